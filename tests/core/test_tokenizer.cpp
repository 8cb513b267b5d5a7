// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/model.h"
#include "tests/support/test_paths.h"

#include <QElapsedTimer>
#include <QTemporaryDir>
#include <QTest>

#include <cstdlib>
#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

std::vector<TokenId> ids_of(const Json& list)
{
    std::vector<TokenId> ids;
    for (const Json& id : *list.array_if())
        ids.push_back(static_cast<TokenId>(id.integer()));
    return ids;
}

/// A byte-level-free tokenizer of single letters and a few joined ones; members replace or extend the
/// defaults.
Json small_tokenizer(const char* members = "{}")
{
    auto json = Json::parse(R"({
        "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": "?", "fuse_unk": true, "byte_fallback": false,
                  "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6, "▁": 7, "▁a": 8, "1": 9, "2": 10,
                            " ": 11, "<0xC3>": 12, "<0xA4>": 13},
                  "merges": ["a b", ["b", "c"], "ab c", ["▁", "a"]]}})");
    const auto changes = Json::parse(members);
    for (const auto& [key, value] : *changes->object_if()) {
        if (key == "model") {
            Json model = (*json)["model"];
            for (const auto& [name, option] : *value.object_if())
                model.set(name, option);
            json->set("model", std::move(model));
        } else {
            json->set(key, value);
        }
    }
    return *json;
}

/// From a folder, a tokenizer.model or a GGUF file.
Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const fs::path& source)
{
    if (source.extension() != ".gguf")
        return Tokenizer::read(source);
    const auto model = Model::open(source);
    return model ? (*model)->tokenizer() : model.error();
}

std::string words(const std::vector<TokenId>& ids)
{
    std::string text;
    for (const TokenId id : ids)
        text += (text.empty() ? "" : " ") + std::to_string(id);
    return text;
}

} // namespace

class TestTokenizer : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void reference_strings_data()
    {
        QTest::addColumn<QString>("golden");
        QTest::addColumn<QString>("source");
        const auto row = [](const char* golden, const char* source) {
            QTest::addRow("%s from %s", golden, source) << golden << source;
        };
        row("stories260k", "models/stories260k");
        row("stories260k", "models/stories260k/tokenizer.model");
        row("stories260k", "golden/exports/stories260k/gguf/base-q4_0.gguf");
        row("babyllama-105", "models/babyllama-105");
        row("babyllama-105", "models/babyllama-105/tokenizer.model");
        row("babyllama-105", "golden/exports/babyllama-105/gguf/base-q4_0.gguf");
        row("gpt2", "models/tokenizers/gpt2");
        row("tiny-qwen2", "models/tiny-arch/qwen2-bias-bf16");
        row("tiny-opt", "models/tiny-arch/opt");
        row("smollm2", "SmolLM2-135M-Instruct-hf");
        row("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
        row("gemma3", "gemma-3-270m-it-hf");
    }
    void reference_strings()
    {
        QFETCH(QString, golden);
        QFETCH(QString, source);
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        const char* large = std::getenv("RANKSCOPE_MODELS");
        const fs::path place = source.contains(QLatin1Char('/')) ? *shared : fs::path(large ? large : "");
        if (place.empty() || !fs::exists(place / source.toStdString()))
            QSKIP("not here: set RANKSCOPE_MODELS to the folder of the larger models");
        auto cases = Json::read(*shared / "golden" / "tokenizer" / (golden.toStdString() + ".json"));
        QVERIFY(cases);
        auto tokenizer = tokenizer_of(place / source.toStdString());
        QVERIFY2(tokenizer, tokenizer ? "" : tokenizer.error().sentence().c_str());
        const auto* list = (*cases)["cases"].array_if();
        QVERIFY(list && list->size() > 40);
        std::size_t passed = 0;
        for (const Json& item : *list) {
            const std::string name = item["name"].string();
            auto ids = (*tokenizer)->encode(item["text"].string());
            QVERIFY2(ids, name.c_str());
            const auto expected = ids_of(item["ids"]);
            QVERIFY2(*ids == expected,
                     (name + ": " + words(*ids) + " instead of " + words(expected)).c_str());
            std::vector<TokenId> with_bos((*tokenizer)->prefix().begin(), (*tokenizer)->prefix().end());
            with_bos.insert(with_bos.end(), ids->begin(), ids->end());
            QVERIFY2(with_bos == ids_of(item["with_bos"]), name.c_str());
            const std::string decoded = (*tokenizer)->decode(*ids);
            QVERIFY2(decoded == item["decoded"].string(), (name + ": " + decoded).c_str());
            ++passed;
        }
        qInfo("%s: %zu of %zu strings", QTest::currentDataTag(), passed, list->size());
    }

    void every_reference_tokenizer_loads()
    {
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        int count = 0;
        for (const auto& item : fs::recursive_directory_iterator(*shared / "models")) {
            if (item.path().filename() != "tokenizer.json")
                continue;
            auto tokenizer = Tokenizer::read(item.path());
            QVERIFY2(tokenizer, tokenizer ? "" : tokenizer.error().sentence().c_str());
            const std::string text = "One day, Tim saw 3 big balls.\n\tÄ ½ 日本 🙂";
            auto ids = (*tokenizer)->encode(text);
            QVERIFY(ids && !ids->empty());
            for (const TokenId id : *ids)
                QVERIFY(id >= 0 && static_cast<std::size_t>(id) < (*tokenizer)->vocabulary());
            ++count;
        }
        QVERIFY(count >= 15);
    }

    void the_sample_reads_back()
    {
        auto tokenizer = Tokenizer::read(test::sample_folder());
        QVERIFY(tokenizer);
        QCOMPARE((*tokenizer)->vocabulary(), std::size_t{512});
        QCOMPARE((*tokenizer)->token_text(1), std::string("<s>"));
        QCOMPARE((*tokenizer)->token_text(-1), std::string());
        QCOMPARE((*tokenizer)->token_text(512), std::string());
        QCOMPARE((*tokenizer)->prefix().size(), std::size_t{1});
        auto text = read_text_file(test::sample_folder() / "evaluation.txt");
        auto ids = (*tokenizer)->encode(*text);
        QVERIFY(ids);
        QCOMPARE((*tokenizer)->decode(*ids), *text);
        const TokenId wild[] = {-5, 1 << 30};
        QCOMPARE((*tokenizer)->decode(wild), std::string());
    }

    void merges_options_and_pieces_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::addColumn<QByteArray>("text");
        QTest::addColumn<QByteArray>("ids");
        const auto row = [](const char* name, const char* members, const char* text, const char* ids) {
            QTest::newRow(name) << QByteArray(members) << QByteArray(text) << QByteArray(ids);
        };
        row("lowest rank first", "{}", "abcbc", "6 5");
        row("leftmost first", "{}", "abab", "4 4");
        row("unknown run becomes one", "{}", "axyb", "1 0 2");
        row("unknown characters stay apart", R"({"model": {"fuse_unk": false}})", "axyb", "1 0 0 2");
        row("no unknown token", R"({"model": {"unk_token": null}})", "axb", "4");
        row("bytes", R"({"model": {"byte_fallback": true}})", "aäb", "1 12 13 2");
        row("bytes that are missing", R"({"model": {"byte_fallback": true}})", "aöb", "1 0 2");
        row("a whole token is taken whole", R"({"model": {"ignore_merges": true, "merges": []}})", "abc",
            "6");
        row("without merges", R"({"model": {"merges": []}})", "abc", "1 2 3");
        row("digits apart", R"({"pre_tokenizer": {"type": "Digits", "individual_digits": true},
                               "model": {"vocab": {"?": 0, "1": 1, "2": 2, "12": 3, "a": 4}, "merges": ["1 2"]}})",
            "a12", "4 1 2");
        row("digits together", R"({"pre_tokenizer": {"type": "Digits", "individual_digits": false},
                                  "model": {"vocab": {"?": 0, "1": 1, "2": 2, "12": 3, "a": 4}, "merges": ["1 2"]}})",
            "a12", "4 3");
        row("metaspace always",
            R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}})",
            "a a", "8 8");
        row("metaspace never",
            R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}})",
            "a a", "1 8");
        row("metaspace first",
            R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
                "added_tokens": [{"id": 20, "content": "<x>", "special": true}]})",
            "a<x>a", "8 20 1");
        row("split removed",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "b"}, "behavior": "Removed"}})",
            "abc", "1 3");
        row("split isolated",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "b"}, "behavior": "Isolated"}})",
            "abc", "1 2 3");
        row("split with previous",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "b"}, "behavior": "MergedWithPrevious"}})",
            "abbc", "4 2 3");
        row("split with next",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "b"}, "behavior": "MergedWithNext"}})",
            "abbc", "1 2 5");
        row("split contiguous",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[ab]"}, "behavior": "Contiguous"}})",
            "abc", "4 3");
        row("split inverted",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "b"}, "behavior": "Removed",
                                                   "invert": true}})",
            "abc", "2");
        row("split on empty matches",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "Isolated"}})",
            "abc", "1 2 3");
        row("replace", R"({"normalizer": {"type": "Replace", "pattern": {"String": "c"}, "content": "ab"}})",
            "c", "4");
        row("composed", R"({"normalizer": {"type": "NFC"}, "model": {"byte_fallback": true}})", "a\xCC\x88",
            "12 13");
        row("longest added token",
            R"({"added_tokens": [{"id": 20, "content": "<x", "special": true}, {"id": 21, "content": "<x>", "special": true}]})",
            "a<x><x", "1 21 20");
        row("added token with spaces",
            R"({"added_tokens": [{"id": 20, "content": "<x>", "special": true, "lstrip": true,
                                                            "rstrip": true}]})",
            "a \n<x> \xE2\x80\x83 b", "1 20 2");
        row("single word",
            R"({"added_tokens": [{"id": 3, "content": "c", "special": true, "single_word": true}]})", "abc c",
            "6 11 3");
        row("after the normalizer",
            R"({"normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": "a"},
                                       "added_tokens": [{"id": 20, "content": "xx", "normalized": true}]})",
            "bxab", "2 20 2");
    }
    void merges_options_and_pieces()
    {
        QFETCH(QByteArray, members);
        QFETCH(QByteArray, text);
        QFETCH(QByteArray, ids);
        auto tokenizer = Tokenizer::parse(small_tokenizer(members));
        QVERIFY2(tokenizer, tokenizer ? "" : tokenizer.error().sentence().c_str());
        auto encoded = (*tokenizer)->encode(text.toStdString());
        QVERIFY(encoded);
        QCOMPARE(words(*encoded), ids.toStdString());
    }

    void decoders()
    {
        const auto decode = [](const char* decoder, std::vector<TokenId> ids) {
            auto tokenizer = Tokenizer::parse(small_tokenizer(decoder));
            return tokenizer ? (*tokenizer)->decode(ids) : tokenizer.error().sentence();
        };
        QCOMPARE(decode(R"({"decoder": null})", {4, 3}), std::string("ab c"));
        QCOMPARE(decode(R"({"decoder": {"type": "ByteFallback"}})", {1, 12, 13, 2}), std::string("aäb"));
        QCOMPARE(decode(R"({"decoder": {"type": "ByteFallback"}})", {12, 1}),
                 std::string("\xEF\xBF\xBD") + "a");
        QCOMPARE(decode(R"({"decoder": {"type": "Metaspace", "replacement": "▁"}})", {8, 8}),
                 std::string("a a"));
        QCOMPARE(
            decode(R"({"decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 0}})", {1, 4, 2}),
            std::string("bb"));
        QCOMPARE(decode(R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"},
                            {"type": "Replace", "pattern": {"String": "ab"}, "content": "-"}]}})",
                        {1, 2}),
                 std::string("-"));
    }

    void what_is_not_implemented_is_refused_by_name_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* name, const char* members, const char* says) {
            QTest::newRow(name) << QByteArray(members) << QByteArray(says);
        };
        row("Unigram", R"({"model": {"type": "Unigram"}})", "\"Unigram\" is not known");
        row("WordPiece", R"({"model": {"type": "WordPiece"}})", "\"WordPiece\" is not known");
        row("no model", R"({"model": {"type": null, "merges": null}})", "model");
        row("normalizer", R"({"normalizer": {"type": "BertNormalizer"}})",
            "normalizer: \"BertNormalizer\" is not known");
        row("nested normalizer", R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}})",
            "\"NFKC\" is not known");
        row("pattern in Replace",
            R"({"normalizer": {"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}})",
            "normalizer: Replace: pattern: a regular expression is not known");
        row("empty pattern",
            R"({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}})",
            "not empty was expected");
        row("texts that explode", R"({"normalizer": {"type": "Sequence", "normalizers": [
              {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
              {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}})",
            "make a text too long");
        row("pre-tokenizer", R"({"pre_tokenizer": {"type": "Whitespace"}})",
            "pre_tokenizer: \"Whitespace\" is not known");
        row("broken regex",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a{2,1}"}, "behavior": "Isolated"}})",
            "not understood at character");
        row("behavior",
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Dropped"}})",
            "behavior \"Dropped\"");
        row("prepend scheme", R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "last"}})",
            "prepend_scheme \"last\"");
        row("decoder", R"({"decoder": {"type": "WordPiece"}})", "decoder: \"WordPiece\" is not known");
        row("post-processor", R"({"post_processor": {"type": "RobertaProcessing"}})",
            "\"RobertaProcessing\" is not known");
        row("template without text", R"({"post_processor": {"type": "TemplateProcessing", "single": []}})",
            "does not say where the text stands");
        row("template with a foreign id", R"({"post_processor": {"type": "TemplateProcessing", "single":
              [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [999]}}}})",
            "an id that no token has");
        row("empty vocabulary", R"({"model": {"vocab": {}}})", "\"vocab\" is missing or empty");
        row("id is a text", R"({"model": {"vocab": {"a": "1"}}})", "the id of the token \"a\"");
        row("negative id", R"({"model": {"vocab": {"a": -1}}})", "the id of the token \"a\"");
        row("id that needs gigabytes", R"({"model": {"vocab": {"a": 2000000000}}})",
            "the id of the token \"a\"");
        row("added id that needs gigabytes", R"({"added_tokens": [{"id": 2000000000, "content": "x"}]})",
            "2000000000");
        row("added token without content", R"({"added_tokens": [{"id": 20}]})",
            "lacks \"id\" or \"content\"");
        row("added token against the vocabulary", R"({"added_tokens": [{"id": 20, "content": "ab"}]})",
            "has the id 20 here and 4");
        row("merge of strangers", R"({"model": {"merges": ["a z"]}})",
            "merges, entry 0: \"z\" is not in the vocabulary");
        row("merge without result", R"({"model": {"merges": ["a b", "c a"]}})", "entry 1: \"ca\" is not in");
        row("merge of three", R"({"model": {"merges": ["a b c"]}})", "two tokens were expected");
        row("merges missing", R"({"model": {"merges": null}})", "\"merges\" is missing");
        row("unknown token missing", R"({"model": {"unk_token": "<unk>"}})",
            "\"<unk>\" is not in the vocabulary");
        row("dropout", R"({"model": {"dropout": 0.1}})", "dropout");
        row("subword prefix", R"({"model": {"continuing_subword_prefix": "##"}})",
            "continuing_subword_prefix");
    }
    void what_is_not_implemented_is_refused_by_name()
    {
        QFETCH(QByteArray, members);
        QFETCH(QByteArray, says);
        auto tokenizer = Tokenizer::parse(small_tokenizer(members));
        QVERIFY(!tokenizer);
        const auto sentence = QByteArray::fromStdString(tokenizer.error().sentence());
        QVERIFY2(tokenizer.error().kind == ErrorKind::BadInput && sentence.contains(says), sentence);
    }

    void bad_texts_and_files()
    {
        auto tokenizer = Tokenizer::parse(small_tokenizer());
        QVERIFY(tokenizer);
        QCOMPARE((*tokenizer)->encode("")->size(), std::size_t{0});
        for (const auto& [text, place] : std::initializer_list<std::pair<std::string, const char*>>{
                 {"ab\xFF", "byte 2"},
                 {"\xC3", "byte 0"},
                 {"a\xED\xA0\x80", "byte 1"},
                 {"a\xC0\x80", "byte 1"},
                 {"\xF4\x90\x80\x80", "byte 0"},
                 {std::string("a\0b\x80", 4), "byte 3"}}) {
            auto refused = (*tokenizer)->encode(text);
            QVERIFY(!refused);
            QVERIFY(refused.error().kind == ErrorKind::BadInput);
            QVERIFY2(QByteArray::fromStdString(refused.error().sentence()).contains(place),
                     refused.error().sentence().c_str());
        }
        QCOMPARE((*tokenizer)->encode(std::string("a\0b", 3))->size(), std::size_t{3});

        QTemporaryDir folder;
        const fs::path path = folder.path().toStdString();
        auto missing = Tokenizer::read(path);
        QVERIFY(QByteArray::fromStdString(missing.error().sentence())
                    .contains("tokenizer.json: the file is missing, and so is tokenizer.model"));
        std::ofstream(path / "tokenizer.json") << "{\"model\":";
        auto broken = Tokenizer::read(path);
        QVERIFY(
            QByteArray::fromStdString(broken.error().sentence()).contains("tokenizer.json: not valid JSON"));
        QVERIFY(Tokenizer::read(path / "nowhere.json").error().kind == ErrorKind::Io);
        QVERIFY(!Tokenizer::parse(Json(1)));
    }

    void an_evil_pattern_gives_up()
    {
        auto tokenizer = Tokenizer::parse(small_tokenizer(
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}})"));
        QVERIFY(tokenizer);
        QElapsedTimer timer;
        timer.start();
        auto ids = (*tokenizer)->encode(std::string(40, 'a') + "b");
        QVERIFY(timer.elapsed() < 20'000);
        if (!ids)
            QVERIFY(ids.error().kind == ErrorKind::BadInput);
    }

    void a_megabyte_is_fast()
    {
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        auto text = read_text_file(test::sample_folder() / "calibration.txt");
        QVERIFY(text);
        std::string megabyte;
        while (megabyte.size() < 1'000'000)
            megabyte += *text;
        megabyte.resize(1'000'000);
        for (const char* name : {"stories260k", "tokenizers/gpt2", "tiny-arch/qwen2-bias-bf16"}) {
            QElapsedTimer timer;
            timer.start();
            auto tokenizer = Tokenizer::read(*shared / "models" / name);
            QVERIFY(tokenizer);
            const auto loaded = timer.restart();
            auto ids = (*tokenizer)->encode(megabyte);
            QVERIFY(ids);
            const auto encoded = timer.elapsed();
            qInfo("%s: loaded in %lld ms, 1 MB encoded in %lld ms", name, loaded, encoded);
            QVERIFY(encoded
                    < 30'000); // quadratic merging takes hours; the figure itself is for a quiet machine
            QCOMPARE((*tokenizer)->decode(*ids), megabyte);
        }
    }
};

QTEST_GUILESS_MAIN(TestTokenizer)
#include "test_tokenizer.moc"
