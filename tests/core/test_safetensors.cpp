// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/sha256.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include <sys/stat.h>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

std::string length_field(std::uint64_t value)
{
    std::string text;
    for (int i = 0; i < 8; ++i)
        text += static_cast<char>(value >> (8 * i) & 0xFFU);
    return text;
}

/// A file with an honest length field in front of whatever header and data are given.
std::string file_bytes(const std::string& header, const std::string& data = {})
{
    return length_field(header.size()) + header + data;
}

std::string zeros(std::size_t count) { return std::string(count, '\0'); }

template <class T>
std::string raw(std::initializer_list<T> values)
{
    std::string bytes(values.size() * sizeof(T), '\0');
    std::memcpy(bytes.data(), std::data(values), bytes.size());
    return bytes;
}

void write_file(const fs::path& path, const std::string& bytes)
{
    std::ofstream stream(path, std::ios::binary);
    stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets)
{
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets
           + "}";
}

} // namespace

class TestSafetensors : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    fs::path path(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }

private Q_SLOTS:
    void sha256_of_known_texts()
    {
        QCOMPARE(sha256_hex(""),
                 std::string("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        QCOMPARE(sha256_hex("abc"),
                 std::string("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        QCOMPARE(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                 std::string("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"));
        QCOMPARE(sha256_hex(std::string(1'000'000, 'a')),
                 std::string("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
        for (const std::size_t size :
             {0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000}) { // pieces make no difference
            const std::string text(size, 'q');
            Sha256 hash;
            for (std::size_t at = 0; at < size; at += 7)
                hash.update(std::string_view(text).substr(at, 7));
            QCOMPARE(hash.finish_hex(), sha256_hex(text));
        }
        write_file(path("hash"), std::string(200'000, 'z'));
        QCOMPARE(*sha256_file(path("hash")), sha256_hex(std::string(200'000, 'z')));
        QVERIFY(sha256_file(path("nowhere")).error().kind == ErrorKind::Io);
    }

    void reads_each_float_type_data()
    {
        QTest::addColumn<QByteArray>("dtype");
        QTest::addColumn<QByteArray>("data");
        const auto row = [](const char* dtype, const std::string& bytes) {
            QTest::newRow(dtype) << QByteArray(dtype) << QByteArray::fromStdString(bytes);
        };
        row("F64", raw<double>({1.0, -2.5, 0.0, 0.25, 448.0, -0.5}));
        row("F32", raw<float>({1.0F, -2.5F, 0.0F, 0.25F, 448.0F, -0.5F}));
        row("F16", raw<std::uint16_t>({0x3C00, 0xC100, 0x0000, 0x3400, 0x5F00, 0xB800}));
        row("BF16", raw<std::uint16_t>({0x3F80, 0xC020, 0x0000, 0x3E80, 0x43E0, 0xBF00}));
        row("F8_E4M3", raw<std::uint8_t>({0x38, 0xC2, 0x00, 0x28, 0x7E, 0xB0}));
    }
    void reads_each_float_type()
    {
        QFETCH(QByteArray, dtype);
        QFETCH(QByteArray, data);
        const std::string header =
            "{" + entry("w", dtype.toStdString(), "[2,3]", "[0," + std::to_string(data.size()) + "]")
            + R"(,"__metadata__":{"format":"pt"}}  )";
        write_file(path("types"), file_bytes(header, data.toStdString()));
        auto reader = CheckpointReader::open(path("types"));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QCOMPARE((*reader)->metadata()["format"].string(), std::string("pt"));
        auto matrix = (*reader)->read("w");
        QVERIFY(matrix);
        Matrix expected(2, 3);
        expected << 1.0F, -2.5F, 0.0F, 0.25F, 448.0F, -0.5F;
        QVERIFY(*matrix == expected);
        QCOMPARE((*reader)->header_hash(), sha256_hex(file_bytes(header)));
    }

    /// data/float8.safetensors: all codes of a type and what PyTorch 2 makes of them in float32, written by
    /// safetensors.torch.save_file({"e4m3": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn),
    /// …}).
    void every_code_of_the_8_bit_floats_data()
    {
        QTest::addColumn<QByteArray>("type");
        for (const char* type : {"e4m3", "e5m2", "e8m0"})
            QTest::newRow(type) << QByteArray(type);
    }
    void every_code_of_the_8_bit_floats()
    {
        QFETCH(QByteArray, type);
        const auto reader =
            CheckpointReader::open(fs::path(RANKSCOPE_SOURCE_DIR) / "tests/core/data/float8.safetensors");
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        const auto codes = (*reader)->view(type.toStdString());
        const auto expected = (*reader)->view((type + ".float").toStdString());
        QVERIFY(codes && expected);
        QCOMPARE(codes->bytes.size(), std::size_t{256});
        const Matrix ours = codes->to_matrix();
        const Matrix theirs = expected->to_matrix();
        for (Index code = 0; code < 256; ++code) {
            const float a = ours(0, code);
            const float b = theirs(0, code);
            QVERIFY2((std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b)),
                     qPrintable(QString("code %1 is %2, expected %3").arg(code).arg(a).arg(b)));
        }
    }

    void every_integer_type_is_listed()
    {
        std::string entries;
        std::size_t at = 0;
        const std::vector<std::pair<const char*, std::size_t>> types = {{"I64", 8}, {"U64", 8}, {"I32", 4},
                                                                        {"U32", 4}, {"I16", 2}, {"U16", 2},
                                                                        {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
        for (const auto& [type, size] : types) {
            entries += (entries.empty() ? "{" : ",")
                       + entry(type, type, "[3]",
                               "[" + std::to_string(at) + "," + std::to_string(at + 3 * size) + "]");
            at += 3 * size;
        }
        std::string data;
        for (const auto& [type, size] : types) {
            for (int i = 1; i <= 3; ++i)
                data += std::string(1, static_cast<char>(i)) + zeros(size - 1);
        }
        write_file(path("integers"), file_bytes(entries + "}", data));
        const auto reader = CheckpointReader::open(path("integers"));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        for (const auto& [type, size] : types) {
            const TensorInfo* info = (*reader)->find(type);
            QVERIFY(info);
            QCOMPARE(std::string(info->type_name()), std::string(type));
            QVERIFY(!info->holds_floats());
            const Matrix values = (*reader)->view(type)->to_matrix();
            QVERIFY(values(0, 0) == 1.0F && values(0, 1) == 2.0F && values(0, 2) == 3.0F);
            QVERIFY(!(*reader)->read(type));
        }
    }

    void integers_are_listed_and_viewed()
    {
        const std::string header = "{" + entry("codes", "I16", "[2]", "[0,4]") + ","
                                   + entry("scalar", "F32", "[]", "[4,8]") + ","
                                   + entry("void", "F32", "[0,7]", "[8,8]") + "}";
        write_file(path("mixed"), file_bytes(header, raw<std::int16_t>({-3, 4}) + raw<float>({2.0F})));
        auto reader = CheckpointReader::open(path("mixed"));
        QVERIFY(reader);
        QCOMPARE((*reader)->tensors().size(), std::size_t{3});
        QVERIFY((*reader)->find("codes") && !(*reader)->find("code") && !(*reader)->find("codes2"));
        auto view = (*reader)->view("codes");
        QVERIFY(view);
        QCOMPARE(view->bytes.size(), std::size_t{4});
        QCOMPARE(view->to_matrix()(0, 0), -3.0F);
        auto refused = (*reader)->read("codes");
        QVERIFY(!refused);
        QVERIFY(QByteArray::fromStdString(refused.error().sentence())
                    .contains("tensor codes: this tensor holds I16"));
        QCOMPARE((*(*reader)->read("scalar"))(0, 0), 2.0F);
        QCOMPARE((*reader)->read("void")->size(), Index{0});
        QVERIFY((*reader)->view("missing").error().kind == ErrorKind::BadInput);
        QVERIFY((*reader)->metadata().is_null());
    }

    void hostile_files_data()
    {
        QTest::addColumn<QByteArray>("bytes");
        QTest::addColumn<QByteArray>("says");
        const auto raw_row = [](const char* name, const std::string& bytes, const char* says) {
            QTest::newRow(name) << QByteArray::fromStdString(bytes) << QByteArray(says);
        };
        const auto row = [&](const char* name, const std::string& members, std::size_t data,
                             const char* says) {
            raw_row(name, file_bytes("{" + members + "}", zeros(data)), says);
        };
        raw_row("empty file", "", "the file is empty");
        raw_row("shorter than the length field", "abc", "too few for the 8-byte header length");
        raw_row("length of zero", length_field(0) + "{}", "the header length is 0");
        raw_row("length of one", length_field(1) + "{", "the header length is 1");
        raw_row("header beyond the end", length_field(1000) + "{}",
                "said to have 1000 bytes, but only 2 follow");
        raw_row("header of 2^63", length_field(std::uint64_t{1} << 63) + "xx", "more than the 100000000");
        raw_row("header of all ones", length_field(~std::uint64_t{0}) + "{}", "more than the 100000000");
        raw_row("header above 100 MB", length_field(100'000'001) + "{}", "more than the 100000000");
        raw_row("no JSON", file_bytes("garbage!"), "does not begin with \"{\"");
        raw_row("an array", file_bytes("[1,2,3]"), "does not begin with \"{\"");
        raw_row("JSON cut off", file_bytes(R"({"w":{"dtype":"F32")"), "not valid JSON");
        raw_row("text after the JSON", file_bytes("{}x"), "not valid JSON");
        raw_row("invalid UTF-8 in a name", file_bytes("{\"\xff\":1}"), "not valid JSON");
        raw_row("deeply nested", file_bytes("{\"w\":" + std::string(5000, '[') + "}"), "nested deeper");
        row("name twice", entry("w", "F32", "[1]", "[0,4]") + "," + entry("w", "F32", "[1]", "[4,8]"), 8,
            "\"w\" appears twice");
        row("entry is a number", "\"w\":3", 0, "tensor w: its entry in the header is no object");
        row("empty name", entry("", "F32", "[1]", "[0,4]"), 4, "empty name");
        row("endless name", entry(std::string(2000, 'n'), "F32", "[1]", "[0,4]"), 4, "name has 2000 bytes");
        row("control character in a name", entry("a\\u0007b", "F32", "[1]", "[0,4]"), 4,
            "control characters");
        row("no dtype", R"("w":{"shape":[1],"data_offsets":[0,4]})", 4, "\"dtype\" is missing");
        row("unknown dtype", entry("w", "F31", "[1]", "[0,4]"), 4, "element type \"F31\" is not known");
        row("no shape", R"("w":{"dtype":"F32","data_offsets":[0,4]})", 4, "\"shape\" is missing");
        row("shape is a text", entry("w", "F32", "\"1\"", "[0,4]"), 4, "\"shape\" is missing or no list");
        row("negative side", entry("w", "F32", "[-1]", "[0,4]"), 4, "negative side -1");
        row("fractional side", entry("w", "F32", "[1.5]", "[0,6]"), 6, "no whole number");
        row("side written as a float", entry("w", "F32", "[1.0]", "[0,4]"), 4, "no whole number");
        row("side beyond 64 bits", entry("w", "F32", "[99999999999999999999]", "[0,4]"), 4,
            "no whole number");
        row("too many dimensions", entry("w", "F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4,
            "17 dimensions");
        row("product overflows", entry("w", "F32", "[4294967296,4294967296]", "[0,0]"), 0,
            "more elements than can be counted");
        row("product overflows before a zero", entry("w", "F32", "[4294967296,4294967296,0]", "[0,0]"), 0,
            "more elements than can be counted");
        row("bytes overflow", entry("w", "F32", "[4611686018427387905]", "[0,4]"), 4,
            "more elements than can be counted");
        row("no offsets", R"("w":{"dtype":"F32","shape":[1]})", 4, "\"data_offsets\" is missing");
        row("three offsets", entry("w", "F32", "[1]", "[0,4,8]"), 4, "not a pair");
        row("negative offset", entry("w", "F32", "[1]", "[-4,0]"), 4, "not negative");
        row("offset is a text", entry("w", "F32", "[1]", "[\"0\",4]"), 4, "whole numbers");
        row("ends before it begins", entry("w", "F32", "[1]", "[4,0]"), 4,
            "ends at byte 0 before it begins at 4");
        row("data cut off", entry("w", "F32", "[4]", "[0,16]"), 15,
            "ends at byte 16 but the file holds only 15");
        row("offset far outside", entry("w", "F32", "[1]", "[9223372036854775800,9223372036854775804]"), 4,
            "but the file holds only 4");
        row("too few bytes for the shape", entry("w", "F32", "[2]", "[0,4]"), 4, "F32 [2] takes 8");
        row("too many bytes for the shape", entry("w", "F16", "[1]", "[0,4]"), 4, "F16 [1] takes 2");
        row("overlap", entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[2]", "[4,12]"), 12,
            "tensor b: its data begins at byte 4 inside that of \"a\"");
        row("same bytes twice", entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[0,4]"),
            4, "inside that of");
        row("hole in front", entry("w", "F32", "[1]", "[4,8]"), 8, "hole of 4 bytes");
        row("hole in between", entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[8,12]"),
            12, "tensor b: there is a hole of 4 bytes");
        row("data that belongs to none", entry("w", "F32", "[1]", "[0,4]"), 12,
            "8 bytes follow that belong to none");
        row("shape holds a list", entry("w", "F32", "[[1]]", "[0,4]"), 4, "no whole number");
        row("dtype is a number", R"("w":{"dtype":32,"shape":[1],"data_offsets":[0,4]})", 4,
            "\"dtype\" is missing");
        row("type of fewer than 8 bits", entry("w", "F4", "[8]", "[0,4]"), 4,
            "element type \"F4\" is not known");
        row("type in small letters", entry("w", "f32", "[1]", "[0,4]"), 4,
            "element type \"f32\" is not known");
        row("one offset", entry("w", "F32", "[1]", "[0]"), 4, "not a pair");
        row("fractional offset", entry("w", "F32", "[1]", "[0,4.5]"), 4, "whole numbers");
        row("data for an empty tensor", entry("w", "F32", "[0]", "[0,4]"), 4, "F32 [0] takes 0");
        row("no tensor but data", "", 4, "4 bytes follow that belong to none");
        row("metadata twice", R"("__metadata__":{},"__metadata__":{})", 0, "appears twice");
        row("metadata is null", R"("__metadata__":null)", 0, "\"__metadata__\" is no object");
        row("metadata holds a list", R"("__metadata__":{"a":[]})", 0, "which is no text");
        row("metadata is a list", R"("__metadata__":[])", 0, "\"__metadata__\" is no object");
        row("metadata holds a number", R"("__metadata__":{"a":1})", 0, "which is no text");
        raw_row("a GGUF file that is cut off", "GGUF" + raw<std::uint32_t>({3, 0, 0}),
                "the file ends inside");
        raw_row("a PyTorch file", std::string("PK\x03\x04\x14\x00\x08\x08", 8) + zeros(20), "PyTorch");
    }
    void hostile_files()
    {
        QFETCH(QByteArray, bytes);
        QFETCH(QByteArray, says);
        write_file(path("hostile.safetensors"), bytes.toStdString());
        auto reader = CheckpointReader::open(path("hostile.safetensors"));
        QVERIFY(!reader);
        const auto sentence = QByteArray::fromStdString(reader.error().sentence());
        QVERIFY2(reader.error().kind == ErrorKind::BadInput, sentence);
        QVERIFY2(sentence.contains(says), sentence);
        QVERIFY2(sentence.contains("hostile.safetensors"), sentence);
    }

    void non_finite_weights_are_refused_data()
    {
        QTest::addColumn<QByteArray>("dtype");
        QTest::addColumn<QByteArray>("data");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* name, const char* dtype, const std::string& data, const char* says) {
            QTest::newRow(name) << QByteArray(dtype) << QByteArray::fromStdString(data) << QByteArray(says);
        };
        const float nan = std::numeric_limits<float>::quiet_NaN();
        const float inf = std::numeric_limits<float>::infinity();
        row("NaN", "F32", raw<float>({0, 0, 0, 0, nan, inf}), "the value at [1, 1] is not a number");
        row("infinity", "F32", raw<float>({0, 0, 0, 0, 0, inf}), "the value at [1, 2] is infinite");
        row("half infinity", "F16", raw<std::uint16_t>({0xFC00, 0, 0, 0, 0, 0}), "[0, 0] is infinite");
        row("bfloat NaN", "BF16", raw<std::uint16_t>({0, 0, 0, 0x7FC0, 0, 0}), "[1, 0] is not a number");
        row("double beyond float", "F64", raw<double>({0, 1e300, 0, 0, 0, 0}), "[0, 1] is infinite");
    }
    void non_finite_weights_are_refused()
    {
        QFETCH(QByteArray, dtype);
        QFETCH(QByteArray, data);
        QFETCH(QByteArray, says);
        const std::string header =
            "{" + entry("model.w", dtype.toStdString(), "[2,3]", "[0," + std::to_string(data.size()) + "]")
            + "}";
        write_file(path("nan.safetensors"), file_bytes(header, data.toStdString()));
        auto reader = CheckpointReader::open(path("nan.safetensors"));
        QVERIFY(reader);
        auto matrix = (*reader)->read("model.w");
        QVERIFY(!matrix);
        QVERIFY(matrix.error().kind == ErrorKind::BadInput);
        const auto sentence = QByteArray::fromStdString(matrix.error().sentence());
        QVERIFY2(sentence.contains(says) && sentence.contains("nan.safetensors: tensor model.w"), sentence);
    }

    void a_file_that_shrinks_is_an_error()
    {
        const std::string header = "{" + entry("w", "F32", "[4096]", "[0,16384]") + "}";
        write_file(path("shrinks"), file_bytes(header, zeros(16384)));
        auto reader = CheckpointReader::open(path("shrinks"));
        QVERIFY(reader);
        QVERIFY((*reader)->read("w"));
        fs::resize_file(path("shrinks"), 100);
        auto gone = (*reader)->read("w");
        QVERIFY(!gone);
        QVERIFY(QByteArray::fromStdString(gone.error().sentence()).contains("shorter since it was opened"));
    }

    void paths_that_are_no_checkpoint()
    {
        const auto kind = [](const fs::path& where) {
            auto reader = CheckpointReader::open(where);
            return reader ? ErrorKind::Internal : reader.error().kind;
        };
        QVERIFY(kind(path("nowhere")) == ErrorKind::Io);
        fs::create_directory(path("empty"));
        auto reader = CheckpointReader::open(path("empty"));
        QVERIFY(reader.error().kind == ErrorKind::BadInput);
        QVERIFY(
            QByteArray::fromStdString(reader.error().sentence()).contains("neither model.safetensors nor"));
        QCOMPARE(::mkfifo(path("pipe").c_str(), 0600), 0);
        QVERIFY(kind(path("pipe")) == ErrorKind::Io);
    }

    void shards_data()
    {
        QTest::addColumn<QByteArray>("index");
        QTest::addColumn<QByteArray>("second");
        QTest::addColumn<QByteArray>("says"); // empty: must open
        const std::string b = file_bytes("{" + entry("b", "F32", "[1]", "[0,4]") + "}", raw<float>({2.0F}));
        const auto row = [](const char* name, const std::string& index, const std::string& second,
                            const char* says) {
            QTest::newRow(name) << QByteArray::fromStdString(index) << QByteArray::fromStdString(second)
                                << QByteArray(says);
        };
        const std::string good =
            R"({"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})";
        row("whole", good, b, "");
        row("missing shard", good, "", "2.safetensors: this shard is missing; it holds 1 of the tensors");
        row("shard lacks a tensor",
            R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}})", b,
            "tensor c: the index says that this tensor is in 2.safetensors, which does not hold it");
        row("tensor in the other shard", R"({"weight_map":{"b":"1.safetensors","a":"2.safetensors"}})", b,
            "is in 2.safetensors, but it is in 1.safetensors");
        row("tensor that the index does not name", good,
            file_bytes("{" + entry("b", "F32", "[1]", "[0,4]") + "," + entry("x", "F32", "[0]", "[4,4]")
                           + "}",
                       zeros(4)),
            "tensor x: 2.safetensors holds this tensor, but the index does not name it");
        row("tensor in two shards", good,
            file_bytes("{" + entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[4,8]")
                           + "}",
                       zeros(8)),
            "tensor a: the tensor is in two files, 1.safetensors and 2.safetensors");
        row("damaged shard", good, b.substr(0, b.size() - 1),
            "2.safetensors: tensor b: its data ends at byte 4");
        row("leads out of the folder", R"({"weight_map":{"a":"../1.safetensors"}})", b, "tensor a");
        row("absolute path", R"({"weight_map":{"a":"/etc/passwd"}})", b, "no plain file name");
        row("file name is a number", R"({"weight_map":{"a":1}})", b, "no plain file name");
        row("no weight_map", R"({"metadata":{}})", b, "\"weight_map\" is missing");
        row("empty weight_map", R"({"weight_map":{}})", b, "names no tensor");
        row("index cut off", good.substr(0, 40), b, "not valid JSON");
    }
    void shards()
    {
        QFETCH(QByteArray, index);
        QFETCH(QByteArray, second);
        QFETCH(QByteArray, says);
        const fs::path folder = path("sharded");
        fs::remove_all(folder);
        fs::create_directory(folder);
        write_file(folder / "model.safetensors.index.json", index.toStdString());
        write_file(folder / "1.safetensors",
                   file_bytes("{" + entry("a", "F32", "[1]", "[0,4]") + "}", raw<float>({1.0F})));
        if (!second.isEmpty())
            write_file(folder / "2.safetensors", second.toStdString());
        auto reader = CheckpointReader::open(folder);
        if (!says.isEmpty()) {
            QVERIFY(!reader);
            QVERIFY(reader.error().kind == ErrorKind::BadInput);
            const auto sentence = QByteArray::fromStdString(reader.error().sentence());
            QVERIFY2(sentence.contains(says) && sentence.contains("sharded"), sentence);
            return;
        }
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QCOMPARE((*reader)->files().size(), std::size_t{2});
        QCOMPARE((*(*reader)->read("a"))(0, 0), 1.0F);
        QCOMPARE((*(*reader)->read("b"))(0, 0), 2.0F);
        auto direct = CheckpointReader::open(folder / "model.safetensors.index.json");
        QVERIFY(direct);
        QCOMPARE((*direct)->header_hash(), (*reader)->header_hash());
    }

    void reads_the_reference_models()
    {
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        const fs::path models = *shared / "models";
        for (const auto& item : fs::recursive_directory_iterator(models)) {
            const auto name = item.path().filename();
            if (name != "model.safetensors" && name != "model.safetensors.index.json")
                continue;
            auto reader = CheckpointReader::open(item.path().parent_path());
            QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
            for (const TensorInfo& tensor : (*reader)->tensors()) {
                if (is_float(tensor.dtype))
                    QVERIFY((*reader)->read(tensor.name));
            }
        }
        auto sharded = CheckpointReader::open(models / "tiny-arch" / "llama-gqa-untied-sharded");
        QVERIFY(sharded);
        QCOMPARE((*sharded)->files().size(), std::size_t{4});
        std::uint64_t total = 0;
        for (const TensorInfo& tensor : (*sharded)->tensors())
            total += tensor.bytes;
        QCOMPARE(total, std::uint64_t{607488});
    }
};

QTEST_GUILESS_MAIN(TestSafetensors)
#include "test_safetensors.moc"
