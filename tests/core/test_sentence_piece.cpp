// SPDX-License-Identifier: GPL-3.0-or-later
// tokenizer.model files written field by field, so that each can be broken alone.
#include "core/model/tokenizer.h"

#include <QTemporaryDir>
#include <QTest>

#include <fstream>
#include <functional>
#include <limits>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// One message in protobuf's wire format.
class Message {
public:
    Message& number(unsigned field, std::uint64_t value) { return tag(field, 0).varint(value); }
    Message& real(unsigned field, float value)
    {
        tag(field, 5);
        bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
        return *this;
    }
    Message& text(unsigned field, const std::string& value)
    {
        tag(field, 2).varint(value.size());
        bytes += value;
        return *this;
    }
    Message& message(unsigned field, const Message& inner) { return text(field, inner.bytes); }
    Message& tag(unsigned field, unsigned wire) { return varint(field << 3 | wire); }
    Message& varint(std::uint64_t value)
    {
        for (; value >= 0x80; value >>= 7)
            bytes += static_cast<char>((value & 0x7F) | 0x80);
        bytes += static_cast<char>(value);
        return *this;
    }
    Message& raw(const std::string& more)
    {
        bytes += more;
        return *this;
    }

    std::string bytes;
};

Message piece(const std::string& text, float score, unsigned type = 1)
{
    return Message().text(1, text).real(2, score).number(3, type);
}

struct Settings {
    std::uint64_t model_type = 2;
    bool prefix = true;
    bool removes_spaces = false;
    bool escapes = true;
    std::string character_map = {};
};

/// <unk> <s> </s> a b ab ▁ ▁a <0xC3> <0xA4> "<x>"
Message small_model(const Settings& settings = {}, const std::function<void(Message&)>& more = {})
{
    Message model;
    model.message(1, piece("<unk>", 0, 2)).message(1, piece("<s>", 0, 3)).message(1, piece("</s>", 0, 3));
    model.message(1, piece("a", -3)).message(1, piece("b", -4)).message(1, piece("ab", -1));
    model.message(1, piece("▁", -5)).message(1, piece("▁a", -2));
    model.message(1, piece("<0xC3>", 0, 6)).message(1, piece("<0xA4>", 0, 6)).message(1, piece("<x>", 0, 4));
    if (more)
        more(model);
    model.message(2, Message().number(3, settings.model_type).number(35, 1));
    model.message(3, Message()
                         .text(1, "nmt_nfkc")
                         .text(2, settings.character_map)
                         .number(3, settings.prefix)
                         .number(4, settings.removes_spaces)
                         .number(5, settings.escapes));
    return model;
}

std::string words(const std::vector<TokenId>& ids)
{
    std::string text;
    for (const TokenId id : ids)
        text += (text.empty() ? "" : " ") + std::to_string(id);
    return text;
}

} // namespace

class TestSentencePiece : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;

    fs::path file(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }
    Result<std::shared_ptr<const Tokenizer>> read(const std::string& bytes) const
    {
        std::ofstream(file("tokenizer.model"), std::ios::binary) << bytes;
        return Tokenizer::read(file("tokenizer.model"));
    }

private Q_SLOTS:
    void cleanup()
    {
        for (const char* name : {"tokenizer_config.json", "added_tokens.json", "tokenizer.json"})
            fs::remove(file(name));
    }

    void joins_by_score()
    {
        const auto tokenizer = read(small_model().bytes);
        QVERIFY2(tokenizer, tokenizer ? "" : tokenizer.error().sentence().c_str());
        QCOMPARE((*tokenizer)->vocabulary(), std::size_t{11});
        QCOMPARE(words(*(*tokenizer)->encode("ab ab")), std::string("6 5 6 5")); // "ab" scores above "▁a"
        QCOMPARE(words(*(*tokenizer)->encode("aä")), std::string("7 8 9"));
        QCOMPARE(words(*(*tokenizer)->encode("a<x>z")), std::string("7 10 6 0"));
        QCOMPARE(words({(*tokenizer)->prefix().begin(), (*tokenizer)->prefix().end()}), std::string("1"));
        const TokenId ids[] = {7, 8, 9, 6, 3};
        QCOMPARE((*tokenizer)->decode(ids), std::string("aä a"));
        const auto bare = read(small_model({.prefix = false}).bytes);
        QVERIFY(bare);
        QCOMPARE(words(*(*bare)->encode("ab ab")), std::string("5 6 5"));
    }

    void is_read_where_there_is_no_json()
    {
        QVERIFY(read(small_model().bytes));
        const auto found = Tokenizer::read(fs::path(folder_.path().toStdString()));
        QVERIFY2(found, found ? "" : found.error().sentence().c_str());
        QCOMPARE((*found)->vocabulary(), std::size_t{11});
        std::ofstream(file("tokenizer.json")) << "{}"; // is then the file that counts
        QVERIFY(!Tokenizer::read(fs::path(folder_.path().toStdString())));
    }

    void companions_are_heard()
    {
        std::ofstream(file("tokenizer_config.json"))
            << R"({"add_bos_token": false, "added_tokens_decoder": {"11": {"content": "<y>", "special": true,
                   "rstrip": true}}})";
        const auto decoder = read(small_model().bytes);
        QVERIFY2(decoder, decoder ? "" : decoder.error().sentence().c_str());
        QVERIFY((*decoder)->prefix().empty());
        QCOMPARE(words(*(*decoder)->encode("a<y> a")), std::string("7 11 7"));
        std::ofstream(file("tokenizer_config.json")) << "{}";
        std::ofstream(file("added_tokens.json")) << R"({"<z>": 12})";
        const auto old = read(small_model().bytes);
        QVERIFY2(old, old ? "" : old.error().sentence().c_str());
        QCOMPARE(words(*(*old)->encode("<z>a")), std::string("12 7"));
        QCOMPARE((*old)->prefix().size(), std::size_t{1});
    }

    void bad_companions_are_named()
    {
        const auto says = [this](const char* name, const char* text) {
            std::ofstream(file(name)) << text;
            const auto refused = read(small_model().bytes);
            fs::remove(file(name));
            return refused ? std::string() : refused.error().sentence();
        };
        QVERIFY(says("tokenizer_config.json", "{").find("tokenizer_config.json: not valid JSON")
                != std::string::npos);
        QVERIFY(says("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})")
                    .find("added_tokens_decoder")
                != std::string::npos);
        QVERIFY(says("added_tokens.json", "[]").find("added_tokens.json: an object") != std::string::npos);
        QVERIFY(says("added_tokens.json", R"({"a": 40})").find("has the id 40 here and 3")
                != std::string::npos);
    }

    void lies_are_named_data()
    {
        QTest::addColumn<QByteArray>("bytes");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* name, const std::string& bytes, const char* says) {
            QTest::newRow(name) << QByteArray::fromStdString(bytes) << QByteArray(says);
        };
        const auto with = [](const std::function<void(Message&)>& more) {
            return small_model({}, more).bytes;
        };
        row("empty", "", "it holds no tokens");
        row("no tokens", Message().message(2, Message().number(3, 2)).bytes, "it holds no tokens");
        row("Unigram", small_model({.model_type = 1}).bytes, "\"Unigram\" is not known; known: BPE");
        row("Unigram by default", Message().message(1, piece("<unk>", 0, 2)).bytes,
            "\"Unigram\" is not known");
        row("Word", small_model({.model_type = 3}).bytes, "\"Word\" is not known");
        row("a type of the future", small_model({.model_type = 77}).bytes, "\"77\" is not known");
        row("a normalizer", small_model({.character_map = "xyz"}).bytes,
            "the normalizer \"nmt_nfkc\" is not known");
        row("extra spaces", small_model({.removes_spaces = true}).bytes,
            "removing extra spaces is not known");
        row("bare spaces", small_model({.escapes = false}).bytes, "escape_whitespaces");
        row("spaces behind", small_model().message(2, Message().number(3, 2).number(24, 1)).bytes,
            "treat_whitespace_as_suffix");
        row("text file", "hello world, this is no model", "not a SentencePiece model");
        row("JSON", "{\"model\": {}}", "not a SentencePiece model");
        row("cut off", small_model().bytes.substr(0, 40), "bytes, and");
        row("cut off inside a number", Message().number(1, 0).bytes.substr(0, 1), "it ends inside a number");
        row("a number without end", std::string("\x08") + std::string(12, '\xFF'), "more than ten bytes");
        row("a length beyond the file", Message().tag(1, 2).varint(1000).raw("abc").bytes,
            "claims 1000 bytes, and 3");
        row("a length of 2^63", Message().tag(1, 2).varint(std::uint64_t{1} << 63).bytes, "and 0 are left");
        row("field number 0", Message().tag(0, 0).varint(1).bytes, "the number 0");
        row("a group", Message().tag(7, 3).bytes, "the unknown wire type 3");
        row("wire type 7", Message().tag(1, 7).bytes, "the unknown wire type 7");
        row("a token that is a number", Message().number(1, 5).bytes, "field 1 has the wire type 0");
        row("a score that is a text",
            with([](Message& m) { m.message(1, Message().text(1, "c").text(2, "x")); }),
            "field 2 has the wire type 2");
        row("a double for a score",
            with([](Message& m) { m.message(1, Message().text(1, "c").tag(2, 1).raw("12345678")); }),
            "field 2 has the wire type 1");
        row("a score that ends early",
            with([](Message& m) { m.message(1, Message().text(1, "c").tag(2, 5).raw("12")); }),
            "it ends inside a number");
        row("a token type of the future", with([](Message& m) { m.message(1, piece("c", 0, 9)); }),
            "token 11: its type 9");
        row("an empty token", with([](Message& m) { m.message(1, piece("", 0)); }), "token 11: it is empty");
        row("a token without text", with([](Message& m) { m.message(1, Message().real(2, 1)); }),
            "it is empty");
        row("a token twice", with([](Message& m) { m.message(1, piece("b", 0)); }), "the same as token 4");
        row("a long token", with([](Message& m) { m.message(1, piece(std::string(1025, 'c'), 0)); }),
            "it has 1025 bytes");
        row("no UTF-8", with([](Message& m) { m.message(1, piece("a\xFF", 0)); }),
            "token 11: it is not valid UTF-8");
        row("a score that is no number",
            with([](Message& m) { m.message(1, piece("c", std::numeric_limits<float>::quiet_NaN())); }),
            "its score is no finite number");
        row("an infinite score",
            with([](Message& m) { m.message(1, piece("c", std::numeric_limits<float>::infinity())); }),
            "its score is no finite number");
        row("two unknown tokens", with([](Message& m) { m.message(1, piece("c", 0, 2)); }),
            "a second unknown token");
        row("no unknown token",
            Message()
                .message(1, piece("a", 0))
                .message(2, Message().number(3, 2))
                .message(3, Message().number(4, 0))
                .bytes,
            "marked as the unknown one");
    }
    void lies_are_named()
    {
        QFETCH(QByteArray, bytes);
        QFETCH(QByteArray, says);
        const auto refused = read(bytes.toStdString());
        QVERIFY(!refused);
        const auto sentence = QByteArray::fromStdString(refused.error().sentence());
        QVERIFY2(refused.error().kind == ErrorKind::BadInput && sentence.contains(says), sentence);
        QVERIFY2(sentence.contains("tokenizer.model"), sentence);
    }

    void every_truncation_is_refused_or_read()
    {
        const std::string whole = small_model().bytes;
        for (std::size_t length = 0; length < whole.size(); ++length) {
            const auto part = read(whole.substr(0, length));
            QVERIFY(!part || (*part)->vocabulary() > 0);
        }
    }
};

QTEST_GUILESS_MAIN(TestSentencePiece)
#include "test_sentence_piece.moc"
