// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <functional>

using namespace rankscope;
using rankscope::test::GgufBuilder;
namespace fs = std::filesystem;

namespace {

enum : std::uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 };

GgufBuilder good_file()
{
    GgufBuilder file;
    file.start(2, 3);
    file.key("general.architecture", String).text("llama");
    file.key("numbers", Array)
        .u32(U16)
        .u64(3)
        .number(std::uint16_t{1})
        .number(std::uint16_t{2})
        .number(std::uint16_t{3});
    file.key("pi", F32).number(3.25F);
    file.tensor("b", {3, 2}, 0, 0).tensor("a", {32, 1}, 8, 32).pad();
    for (int i = 0; i < 6; ++i)
        file.number(static_cast<float>(i));
    file.pad().number(std::uint16_t{0x3C00}); // Q8_0: scale 1, then 32 codes
    for (int i = 0; i < 32; ++i)
        file.number(static_cast<std::int8_t>(i - 16));
    return file;
}

using Make = std::function<void(GgufBuilder&)>;

struct Case {
    const char* name;
    Make make;
    const char* says;
};

/// One tensor "t" after no metadata, then `data` bytes.
Make one_tensor(std::vector<std::uint64_t> shape, std::uint32_t type, std::uint64_t offset, std::size_t data)
{
    return [=](GgufBuilder& f) {
        f.start(1, 0).tensor("t", shape, type, offset).pad().raw(std::string(data, '\0'));
    };
}

Make one_key(std::uint32_t type, std::function<void(GgufBuilder&)> value)
{
    return [=](GgufBuilder& f) {
        f.start(0, 1).key("k", type);
        value(f);
        f.pad();
    };
}

std::vector<Case> header_cases()
{
    return {
        {"version 1", [](auto& f) { f.start(0, 0, 1); }, "version 1"},
        {"version 4", [](auto& f) { f.start(0, 0, 4); }, "version 4"},
        {"big-endian version", [](auto& f) { f.start(0, 0, 0x03000000); }, "version 50331648"},
        {"ends after the magic", [](auto& f) { f.raw("GGUF").raw(std::string(4, '\3')); }, "version"},
        {"ends inside the counts", [](auto& f) { f.raw("GGUF").u32(3).u32(1); },
         "ends inside the tensor count"},
        {"ends before the key count", [](auto& f) { f.raw("GGUF").u32(3).u64(0); },
         "ends inside the metadata count"},
        {"2^63 tensors", [](auto& f) { f.start(1ULL << 63, 0); }, "more than the file can hold"},
        {"2^63 keys", [](auto& f) { f.start(0, 1ULL << 63); }, "more than the file can hold"},
        {"one tensor too many",
         [](auto& f) { f.start(2, 0).tensor("t", {1}, 0, 0).pad().number(0.0F).raw(std::string(60, '\0')); },
         ""},
        {"keys promised, none there", [](auto& f) { f.start(0, 1); }, "more than the file can hold"},
    };
}

std::vector<Case> key_cases()
{
    return {
        {"empty key", [](auto& f) { f.start(0, 1).key("", U8).raw("aaaaaaaaa"); }, "key is empty"},
        {"key of 2^40 bytes", [](auto& f) { f.start(0, 1).u64(1ULL << 40).raw("abcdef"); },
         "claims 1099511627776 bytes"},
        {"key longer than the file", [](auto& f) { f.start(0, 1).u64(500).raw("abcdefghij"); }, "left"},
        {"key with control characters", [](auto& f) { f.start(0, 1).key("a\nb", U8).raw("aaaaaaaaa"); },
         "plain text"},
        {"key that is no UTF-8", [](auto& f) { f.start(0, 1).key("\xc3\x28", U8).raw("aaaaaaaaa"); },
         "plain text"},
        {"duplicate key", [](auto& f) { f.start(0, 2).key("k", U8).raw("a").key("k", U8).raw("a"); },
         "\"k\" appears twice"},
        {"unknown value type", one_key(13, [](auto& f) { f.u64(0); }), "unknown type 13"},
        {"value type 2^32−1", one_key(0xFFFFFFFF, [](auto& f) { f.u64(0); }), "unknown type"},
        {"truth value of 2", one_key(Bool, [](auto& f) { f.raw("\2"); }), "truth value"},
        {"string of 2^62 bytes", one_key(String, [](auto& f) { f.u64(1ULL << 62); }), "claims"},
        {"string longer than the file", one_key(String, [](auto& f) { f.u64(1000).raw("x"); }), "left"},
        {"array of unknown type", one_key(Array, [](auto& f) { f.u32(77).u64(1); }),
         "unknown element type 77"},
        {"array of 2^61 bytes", one_key(Array, [](auto& f) { f.u32(U8).u64(1ULL << 61); }),
         "more than the rest"},
        {"array of 2^61 doubles (product overflows)",
         one_key(Array, [](auto& f) { f.u32(F64).u64(1ULL << 61); }), "more than the rest"},
        {"array of strings that do not fit",
         one_key(Array, [](auto& f) { f.u32(String).u64(100).text("a"); }), "more than the rest"},
        {"array cut off",
         [](auto& f) { f.start(0, 1).key("k", Array).u32(String).u64(2).text("abcdefghijkl").u32(0); },
         "ends inside"},
        {"string of an array longer than the file",
         one_key(Array, [](auto& f) { f.u32(String).u64(1).u64(99).raw("abc"); }), "left"},
        {"truth value of 3 in an array", one_key(Array, [](auto& f) { f.u32(Bool).u64(1).raw("\3"); }),
         "truth value"},
        {"arrays nested too deep",
         one_key(Array,
                 [](auto& f) {
                     for (int i = 0; i < 6; ++i)
                         f.u32(Array).u64(1);
                     f.u32(U8).u64(0);
                 }),
         "nested deeper"},
        {"ends inside a number", [](auto& f) { f.start(0, 1).key("kk", U64).u32(1); },
         "ends inside a metadata value"},
        {"ends before a value type", [](auto& f) { f.start(0, 1).text("abcdefgh").raw("\1\0"); }, "type"},
    };
}

std::vector<Case> tensor_cases()
{
    const auto aligned = [](std::function<void(GgufBuilder&)> value, std::uint32_t type) {
        return Make([=](GgufBuilder& f) {
            f.start(0, 1).key("general.alignment", type);
            value(f);
            f.pad();
        });
    };
    return {
        {"empty tensor name",
         [](auto& f) { f.start(1, 0).tensor("", {1}, 0, 0).pad().raw(std::string(32, '\0')); },
         "name is empty"},
        {"tensor name of 2^50 bytes",
         [](auto& f) { f.start(1, 0).u64(1ULL << 50).raw(std::string(40, 'x')); }, "claims"},
        {"tensor name with a zero byte",
         [](auto& f) {
             f.start(1, 0).tensor(std::string("a\0b", 3), {1}, 0, 0).pad().raw(std::string(32, '\0'));
         },
         "plain text"},
        {"duplicate tensor",
         [](auto& f) {
             f.start(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).pad().raw(std::string(64, '\0'));
         },
         "appears twice"},
        {"nine dimensions", one_tensor({1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 0, 64), "9 dimensions"},
        {"2^32−1 dimensions",
         [](auto& f) { f.start(1, 0).text("t").u32(0xFFFFFFFF).raw(std::string(64, '\0')); }, "dimensions"},
        {"a dimension of 2^64−1", one_tensor({~0ULL}, 0, 0, 64), "dimension of"},
        {"2^62 elements", one_tensor({1ULL << 31, 1ULL << 31}, 0, 0, 64), "more than 2^48 elements"},
        {"product wraps to zero", one_tensor({1ULL << 32, 1ULL << 32}, 0, 0, 64), "more than 2^48 elements"},
        {"product wraps to a small number", one_tensor({(1ULL << 62) + 1, 4}, 0, 0, 64),
         "more than 2^48 elements"},
        {"unknown tensor type", one_tensor({32}, 99, 0, 64), "type number 99"},
        {"removed tensor type", one_tensor({32}, 4, 0, 64), "type number 4"},
        {"Q4_0 row of 33", one_tensor({33}, 2, 0, 64), "no whole blocks of 32"},
        {"Q4_K row of 32", one_tensor({32, 8}, 12, 0, 256), "no whole blocks of 256"},
        {"block type without dimensions", one_tensor({}, 2, 0, 64), "no whole blocks"},
        {"offset beyond the file", one_tensor({1}, 0, 1 << 20, 32), "needs 4 bytes"},
        {"offset of 2^64−32", one_tensor({1}, 0, ~0ULL - 31, 32), "needs 4 bytes"},
        {"end beyond the file", one_tensor({100}, 0, 0, 32), "needs 400 bytes"},
        {"block end beyond the file", one_tensor({256}, 12, 0, 143), "needs 144 bytes"},
        {"unaligned offset", one_tensor({1}, 0, 4, 64), "no multiple of the alignment 32"},
        {"overlap",
         [](auto& f) {
             f.start(2, 0).tensor("a", {16}, 0, 0).tensor("b", {1}, 0, 32).pad().raw(std::string(96, '\0'));
         },
         "overlaps tensor a"},
        {"same place",
         [](auto& f) {
             f.start(2, 0).tensor("a", {1}, 0, 0).tensor("b", {1}, 0, 0).pad().raw(std::string(32, '\0'));
         },
         "overlaps"},
        {"alignment of zero", aligned([](auto& f) { f.u32(0); }, U32), "no power of two"},
        {"alignment of 33", aligned([](auto& f) { f.u32(33); }, U32), "no power of two"},
        {"alignment of 2^31", aligned([](auto& f) { f.u32(1U << 31); }, U32), "no power of two"},
        {"alignment that is text", aligned([](auto& f) { f.text("32"); }, String), "no power of two"},
        {"negative alignment", aligned([](auto& f) { f.number(std::int32_t{-32}); }, I32), "no power of two"},
        {"ends inside the tensor list",
         [](auto& f) { f.start(1, 0).text("tttttttttttttttttttt").u32(2).u64(1); }, "ends inside"},
        {"no data at all", [](auto& f) { f.start(1, 0).tensor("t", {1}, 0, 0); }, "needs 4 bytes"},
        {"data starts behind the end",
         [](auto& f) {
             f.start(1, 0).tensor("t", {0, 5}, 0, 32);
         },
         "needs 0 bytes"},
    };
}

} // namespace

class TestGguf : public QObject {
    Q_OBJECT
    QTemporaryDir folder_;

    fs::path write(const std::string& bytes)
    {
        const fs::path path = fs::path(folder_.path().toStdString()) / "x.gguf";
        const auto written = write_text_file(path, bytes, true);
        return written ? path : fs::path();
    }

private Q_SLOTS:
    void reads_values_and_metadata()
    {
        const auto reader = CheckpointReader::open(write(good_file().bytes));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QCOMPARE((*reader)->tensors().size(), std::size_t{2});
        QCOMPARE((*reader)->metadata()["general.architecture"].string(), std::string("llama"));
        QCOMPARE((*reader)->metadata()["numbers"].array_if()->at(2).integer(), std::int64_t{3});
        QCOMPARE((*reader)->metadata()["pi"].number(), 3.25);
        const auto b = (*reader)->read("b");
        QVERIFY(b);
        QCOMPARE(b->rows(), Index{2});
        QCOMPARE(b->cols(), Index{3});
        QCOMPARE((*b)(1, 0), 3.0F);
        const auto a = (*reader)->read("a");
        QVERIFY(a);
        QCOMPARE(a->cols(), Index{32});
        QCOMPARE((*a)(0, 5), -11.0F);
        QCOMPARE((*reader)->find("a")->type_name(), std::string_view("Q8_0"));
        QVERIFY(!(*reader)->read("c"));
    }

    void refuses_hostile_files_data()
    {
        QTest::addColumn<QByteArray>("bytes");
        QTest::addColumn<QByteArray>("says");
        int count = 0;
        for (const auto& cases : {header_cases(), key_cases(), tensor_cases()}) {
            for (const Case& row : cases) {
                GgufBuilder file;
                row.make(file);
                QTest::newRow(row.name) << QByteArray::fromStdString(file.bytes) << QByteArray(row.says);
                ++count;
            }
        }
        QVERIFY(count >= 60);
    }
    void refuses_hostile_files()
    {
        QFETCH(QByteArray, bytes);
        QFETCH(QByteArray, says);
        const fs::path path = write(bytes.toStdString());
        const auto reader = CheckpointReader::open(path);
        QVERIFY(!reader);
        QCOMPARE(reader.error().kind, ErrorKind::BadInput);
        const std::string sentence = reader.error().sentence();
        QVERIFY2(sentence.find(path.string()) != std::string::npos, sentence.c_str());
        QVERIFY2(QByteArray::fromStdString(sentence).contains(says), sentence.c_str());
    }

    void every_truncation_is_refused_or_whole()
    {
        const std::string whole = good_file().bytes;
        for (std::size_t length = 0; length < whole.size(); ++length)
            QVERIFY2(!CheckpointReader::open(write(whole.substr(0, length))),
                     qPrintable(QString::number(length)));
        QVERIFY(CheckpointReader::open(write(whole)));
    }

    void a_file_that_shrinks_is_an_error()
    {
        const fs::path path = write(good_file().bytes);
        const auto reader = CheckpointReader::open(path);
        QVERIFY(reader);
        fs::resize_file(path, 100);
        const auto tensor = (*reader)->read("a");
        QVERIFY(!tensor);
        QVERIFY(tensor.error().message.find("shorter") != std::string::npos);
    }

    void reads_the_worked_export()
    {
        const auto shared = rankscope::test::shared_folder();
        if (!shared)
            QSKIP(rankscope::test::k_no_shared);
        const auto gguf =
            CheckpointReader::open(*shared / "golden/exports/babyllama-105/gguf/base-q4_0.gguf");
        const auto original = CheckpointReader::open(*shared / "models/babyllama-105");
        QVERIFY(gguf && original);
        const auto norm = (*gguf)->read("output_norm.weight");
        const auto expected = (*original)->read("model.norm.weight");
        QVERIFY(norm && expected);
        QVERIFY(*norm == *expected);
        const auto down = (*gguf)->read("blk.2.ffn_down.weight");
        const auto exact = (*original)->read("model.layers.2.mlp.down_proj.weight");
        QVERIFY(down && exact);
        QCOMPARE(down->rows(), exact->rows());
        QVERIFY((*down - *exact).norm() / exact->norm() < 0.15F); // 4 bits, groups of 32
        QVERIFY((*down - *exact).norm() > 0.0F);
    }
};

QTEST_GUILESS_MAIN(TestGguf)
#include "test_gguf.moc"
