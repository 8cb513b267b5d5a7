// SPDX-License-Identifier: GPL-3.0-or-later
// CheckpointReader::rows must give what read() gives, however the tensors are stored, and a weight that is
// decoded on its way to the kernels must multiply like one that was read first.
#include "core/model/model.h"
#include "core/model/rotated_checkpoint.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <fstream>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

class TestRowSource : public QObject {
    Q_OBJECT

    void compare(const fs::path& path)
    {
        auto model = Model::open(path);
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        const CheckpointReader& reader = (*model)->checkpoint();
        int compared = 0;
        for (const TensorInfo& tensor : reader.tensors()) {
            const auto whole = reader.read(tensor.name);
            const auto rows = reader.rows(tensor.name);
            QVERIFY2(whole.has_value() == rows.has_value(), tensor.name.c_str());
            if (!whole) {
                QCOMPARE(rows.error().sentence(), whole.error().sentence());
                continue;
            }
            Matrix gathered = Matrix::Constant(whole->rows(), whole->cols(), -1.0F);
            QCOMPARE(rows->rows, whole->rows());
            QCOMPARE(rows->cols, whole->cols());
            for (Index row = gathered.rows() - 1; row >= 0; --row)
                rows->decode(row, gathered.row(row).data());
            QVERIFY2(gathered == *whole, tensor.name.c_str());
            ++compared;
        }
        QVERIFY(compared > 8);
    }

private Q_SLOTS:
    void rows_are_those_of_the_whole_data()
    {
        QTest::addColumn<QString>("path");
        QTest::newRow("the sample") << QString::fromStdString(sample_folder().string());
        const auto shared = shared_folder();
        if (!shared)
            return;
        for (const char* name :
             {"models/stories260k", "models/tiny-arch/llama-gqa-untied-sharded", "models/tiny-arch/gpt2",
              "models/tiny-arch/mistral-sliding-fp16", "models/tiny-arch/qwen2-bias-bf16",
              "models/tiny-arch/mixtral-moe", "golden/exports/stories260k/gguf/base-q4_0.gguf"})
            QTest::newRow(name) << QString::fromStdString((*shared / name).string());
    }
    void rows_are_those_of_the_whole()
    {
        QFETCH(QString, path);
        compare(path.toStdString());
    }

    void rows_of_a_rotated_model()
    {
        const QTemporaryDir folder;
        const fs::path rotated = fs::path(folder.path().toStdString()) / "rotated";
        QVERIFY(write_rotated_model(sample_folder(), 3, rotated, true));
        compare(rotated);
    }

    void prepared_weights_multiply_alike()
    {
        const auto model = sample_model();
        const auto backend = make_cpu_backend();
        const auto weights = checkpoint_weights(model);
        for (const LinearLayer& layer : model->linears()) {
            auto plain = weights->linear(layer, *backend);
            auto prepared = weights->prepared_linear(layer, *backend);
            QVERIFY(plain && prepared);
            QCOMPARE(prepared->weight.rows(), layer.out);
            QCOMPARE(prepared->weight.cols(), layer.in);
            const Buffer x = backend->upload(random_floats(9, layer.in, 5));
            const Matrix expected = backend->download(
                backend->multiply(x, Transpose::No, backend->prepare_weight(plain->weight), Transpose::Yes));
            const Matrix got =
                backend->download(backend->multiply(x, Transpose::No, prepared->weight, Transpose::Yes));
            QVERIFY2(got == expected, layer.name.c_str()); // to the bit
        }
    }

    void values_that_are_not_finite_are_named()
    {
        const QTemporaryDir folder;
        const fs::path copy = folder.path().toStdString();
        fs::copy(sample_folder(), copy, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
        auto model = Model::open(copy);
        QVERIFY(model);
        const LinearLayer layer = (*model)->linears()[3];
        const TensorInfo* tensor = (*model)->checkpoint().find(layer.weight());
        QVERIFY(tensor && tensor->dtype == DType::F32);
        const fs::path file = (*model)->checkpoint().files()[static_cast<std::size_t>(tensor->file)];
        fs::permissions(file, fs::perms::owner_write, fs::perm_options::add);
        std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
        stream.seekp(static_cast<std::streamoff>(tensor->offset)
                     + static_cast<std::streamoff>((2 * layer.in + 5) * 4));
        const float bad = std::numeric_limits<float>::quiet_NaN();
        stream.write(reinterpret_cast<const char*>(&bad), sizeof(bad));
        stream.close();
        model = Model::open(copy);
        QVERIFY(model);
        const auto backend = make_cpu_backend();
        const auto refused = checkpoint_weights(*model)->prepared_linear(layer, *backend);
        QVERIFY(!refused);
        const std::string sentence = refused.error().sentence();
        QVERIFY2(sentence.find(layer.weight()) != std::string::npos, sentence.c_str());
        QVERIFY2(sentence.find("[2, 5]") != std::string::npos, sentence.c_str());
    }
};

QTEST_GUILESS_MAIN(TestRowSource)
#include "test_row_source.moc"
