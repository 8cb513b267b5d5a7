// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <QTemporaryDir>
#include <QTest>

#include <algorithm>
#include <cstring>
#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

Matrix numbers(Index rows, Index cols)
{
    Matrix matrix(rows, cols);
    for (Index i = 0; i < matrix.size(); ++i)
        matrix.data()[i] = static_cast<float>(i) * 0.5F - 3.0F; // exact in F16 and BF16
    return matrix;
}

std::string content(const fs::path& path)
{
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

} // namespace

class TestCheckpointWriter : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    fs::path path(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }
    std::ptrdiff_t files() const
    {
        return std::distance(fs::directory_iterator(folder_.path().toStdString()), fs::directory_iterator());
    }

private Q_SLOTS:
    void what_is_written_reads_back()
    {
        const Matrix w = numbers(3, 5);
        CodeMatrix narrow(1, 3);
        narrow << -128, 0, 127;
        CodeMatrix wide(1, 3);
        wide << -129, 0, 127;
        const MatrixD exact = MatrixD::Constant(2, 2, 0.1);
        std::vector<TensorSource> tensors;
        tensors.push_back(tensor_source("z.codes", narrow));
        tensors.push_back(tensor_source("a.codes", wide));
        for (const DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64})
            tensors.push_back(tensor_source("w." + std::string(name(dtype)), w, dtype));
        tensors.push_back(tensor_source("exact", exact));
        tensors.push_back(tensor_source("block", w.block(1, 1, 2, 2)));
        tensors.push_back(tensor_source("empty", Matrix(0, 4)));
        tensors.push_back(tensor_source("scalar", DType::U8, {}, {std::byte{7}}));
        QVERIFY(write_safetensors(path("all.safetensors"), std::move(tensors),
                                  {{"format", "pt"}, {"ä", "\"\n"}}, false));

        auto reader = CheckpointReader::open(path("all.safetensors"));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QCOMPARE((*reader)->metadata()["ä"].string(), std::string("\"\n"));
        for (const char* name : {"w.F32", "w.F16", "w.BF16", "w.F64"})
            QVERIFY2(*(*reader)->read(name) == w, name);
        QVERIFY(*(*reader)->read("block") == w.block(1, 1, 2, 2));
        QVERIFY((*reader)->find("z.codes")->dtype == DType::I8);
        QVERIFY((*reader)->find("a.codes")->dtype == DType::I16);
        QCOMPARE((*reader)->view("z.codes")->to_matrix()(0, 0), -128.0F);
        QCOMPARE((*reader)->view("a.codes")->to_matrix()(0, 0), -129.0F);
        QVERIFY((*reader)->find("empty")->shape == (Shape{0, 4}));
        QCOMPARE((*reader)->view("scalar")->to_matrix()(0, 0), 7.0F);
        double stored = 0.0;
        std::memcpy(&stored, (*reader)->view("exact")->bytes.data(), sizeof stored);
        QCOMPARE(stored, 0.1);
        for (const TensorInfo& tensor : (*reader)->tensors()) // PyTorch views tensors in place
            QVERIFY2(tensor.offset % size_bytes(tensor.dtype) == 0, tensor.name.c_str());
    }

    void same_content_same_bytes()
    {
        const auto write = [this](const char* name, bool turned) {
            std::vector<TensorSource> tensors;
            for (int i = 0; i < 5; ++i)
                tensors.push_back(tensor_source("t" + std::to_string(i), numbers(i + 1, 3)));
            if (turned)
                std::reverse(tensors.begin(), tensors.end());
            return write_safetensors(path(name), std::move(tensors), {{"b", "1"}, {"a", "2"}}, true);
        };
        QVERIFY(write("one", false));
        QVERIFY(write("two", true));
        QCOMPARE(content(path("one")), content(path("two")));
        QVERIFY(content(path("one")).size() % 4 == 0);
        QVERIFY(CheckpointReader::open(path("one")));
    }

    void an_empty_file_is_valid()
    {
        QVERIFY(write_safetensors(path("none"), {}, {}, true));
        auto reader = CheckpointReader::open(path("none"));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QVERIFY((*reader)->tensors().empty());
    }

    void existing_files_stay_without_force()
    {
        QVERIFY(write_safetensors(path("kept"), {}, {{"a", "old"}}, false));
        const std::string before = content(path("kept"));
        auto refused = write_safetensors(path("kept"), {}, {{"a", "new"}}, false);
        QVERIFY(refused.error().kind == ErrorKind::BadInput);
        QVERIFY(QByteArray::fromStdString(refused.error().sentence()).contains("--force"));
        QCOMPARE(content(path("kept")), before);
        QVERIFY(write_safetensors(path("kept"), {}, {{"a", "new"}}, true));
        QVERIFY(content(path("kept")) != before);
    }

    void failures_leave_nothing_behind()
    {
        const auto before = files();
        std::vector<TensorSource> bad = {tensor_source("a", numbers(2, 2))};
        bad.push_back({"b", DType::F32, {4}, []() -> Result<std::vector<std::byte>> {
                           return bad_input("the source broke");
                       }});
        auto broke = write_safetensors(path("broke"), std::move(bad), {}, false);
        QVERIFY(QByteArray::fromStdString(broke.error().sentence()).contains("tensor b: the source broke"));
        auto wrong = write_safetensors(
            path("wrong"), {tensor_source("a", DType::F32, {3}, std::vector<std::byte>(8))}, {}, false);
        QVERIFY(
            QByteArray::fromStdString(wrong.error().sentence()).contains("8 bytes where its shape takes 12"));
        auto twice = write_safetensors(
            path("twice"), {tensor_source("a", numbers(1, 1)), tensor_source("a", numbers(1, 1))}, {}, false);
        QVERIFY(!twice);
        auto reserved =
            write_safetensors(path("reserved"), {tensor_source("__metadata__", numbers(1, 1))}, {}, false);
        QVERIFY(!reserved);
        QVERIFY(!write_safetensors(path("type"), {tensor_source("a", numbers(1, 1), DType::I32)}, {}, false));
        QCOMPARE(files(), before);
    }

    void a_full_disk_is_noticed_before_the_first_byte()
    {
        const auto before = files();
        bool asked = false;
        std::vector<TensorSource> huge;
        huge.push_back(
            {"huge", DType::F32, {std::int64_t{1} << 58}, [&asked]() -> Result<std::vector<std::byte>> {
                 asked = true;
                 return std::vector<std::byte>{};
             }});
        auto refused = write_safetensors(path("huge"), std::move(huge), {}, false);
        QVERIFY(refused.error().kind == ErrorKind::NoSpace);
        QVERIFY(!asked);
        QCOMPARE(files(), before);
    }

    void a_read_only_folder_is_an_error()
    {
        // Root may write in any folder, but nobody makes files in /proc.
        auto refused = write_safetensors("/proc/rankscope-test.safetensors", {}, {}, false);
        QVERIFY(!refused);
        QVERIFY2(refused.error().kind == ErrorKind::Io, refused.error().sentence().c_str());
        QVERIFY(QByteArray::fromStdString(refused.error().sentence())
                    .contains("/proc/rankscope-test.safetensors"));
    }
};

QTEST_GUILESS_MAIN(TestCheckpointWriter)
#include "test_checkpoint_writer.moc"
