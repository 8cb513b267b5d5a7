// SPDX-License-Identifier: GPL-3.0-or-later
// Models that others have compressed: GPTQ and compressed-tensors.
#include "core/model/model.h"
#include "tests/support/packed_layer.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

class TestPackedCheckpoint : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;

    Result<std::unique_ptr<CheckpointReader>> open(const Tensors& tensors, const Json& config) const
    {
        return open_packed(folder_.path().toStdString(), tensors, config);
    }

    void check(const Layer& layer, const Tensors& tensors, const Json& config, const char* type) const
    {
        const auto reader = open(tensors, config);
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QCOMPARE((*reader)->tensors().size(), std::size_t{1});
        const TensorInfo* info = (*reader)->find("layer.weight");
        QVERIFY(info && info->is_quantized() && info->holds_floats());
        QCOMPARE(QString::fromStdString(std::string(info->type_name())), QString(type));
        QCOMPARE(info->shape, (Shape{layer.out, layer.in}));
        std::uint64_t bytes = 0;
        for (const auto& [name, tensor] : tensors)
            bytes += tensor.bytes.size();
        QCOMPARE(info->bytes, bytes);
        const auto weight = (*reader)->read("layer.weight");
        QVERIFY2(weight, weight ? "" : weight.error().sentence().c_str());
        QVERIFY(*weight == layer.expected());
        QVERIFY(!(*reader)->view("layer.weight"));
        QVERIFY(!(*reader)->find("layer.qweight") && !(*reader)->find("layer.weight_packed"));
    }

private Q_SLOTS:
    void gptq_data()
    {
        QTest::addColumn<int>("bits");
        QTest::addColumn<bool>("minus_one");
        QTest::addColumn<int>("out");
        QTest::addColumn<int>("in");
        QTest::addColumn<int>("group");
        QTest::addColumn<QByteArray>("type");
        for (const int bits : {2, 3, 4, 8}) {
            const QByteArray name = "gptq int" + QByteArray::number(bits);
            for (const bool v1 : {true, false}) {
                const QByteArray row = name + (v1 ? " v1" : " v2");
                QTest::newRow(row + " groups") << bits << v1 << 64 << 96 << 32 << name + " g32";
                QTest::newRow(row + " whole rows") << bits << v1 << 32 << 64 << -1 << name + " channel";
                QTest::newRow(row + " last group shorter") << bits << v1 << 96 << 96 << 64 << name + " g64";
            }
        }
    }
    void gptq()
    {
        QFETCH(int, bits);
        QFETCH(bool, minus_one);
        QFETCH(int, out);
        QFETCH(int, in);
        QFETCH(int, group);
        QFETCH(QByteArray, type);
        const Layer layer(bits, out, in, group < 0 ? in : group);
        check(layer, layer.gptq(minus_one), gptq_config(bits, group, minus_one ? "gptq" : "gptq_v2"), type);
    }

    void gptq_with_channels_in_another_order()
    {
        Layer layer(4, 64, 96, 32);
        for (std::size_t i = 0; i < layer.group_of.size(); ++i)
            layer.group_of[i] = static_cast<std::int32_t>(i * 7 % 3);
        Json config = gptq_config(4, 32, "gptq");
        set(config, {"quantization_config", "desc_act"}, true);
        check(layer, layer.gptq(true), config, "gptq int4 g32 act-order");
    }

    void gptq_without_a_group_index()
    {
        const Layer layer(4, 64, 96, 32);
        Tensors tensors = layer.gptq(false);
        tensors.erase("layer.g_idx");
        check(layer, tensors, gptq_config(4, 32, "gptq_v2"), "gptq int4 g32");
        tensors = layer.gptq(true); // neither version nor layout is named: the first one
        Json config = gptq_config(4, 32, "gptq");
        set(config, {"quantization_config", "checkpoint_format"}, Json());
        check(layer, tensors, config, "gptq int4 g32");
    }

    void gptq_zero_of_all_ones_wraps_in_its_field()
    {
        Layer layer(4, 32, 32, 32);
        layer.zeros.setConstant(3);
        layer.zeros(5, 0) = 0; // stored as 15 by a writer that keeps to the field
        Tensors tensors = layer.gptq(true);
        Codes stored = layer.zeros.array() - 1U;
        stored = stored.unaryExpr([](std::uint32_t zero) { return zero & 15U; });
        tensors["layer.qzeros"] = stream_rows(stored.transpose(), 4);
        check(layer, tensors, gptq_config(4, 32, "gptq"), "gptq int4 channel");
    }

    void compressed_tensors_data()
    {
        QTest::addColumn<int>("bits");
        QTest::addColumn<bool>("symmetric");
        QTest::addColumn<int>("in");
        QTest::addColumn<int>("group"); // 0: channel
        QTest::addColumn<QByteArray>("scales");
        QTest::addColumn<QByteArray>("type");
        for (int bits = 2; bits <= 8; ++bits) {
            const QByteArray name = "ct int" + QByteArray::number(bits);
            for (const bool symmetric : {true, false}) {
                const QByteArray row = name + (symmetric ? " symmetric" : " asymmetric");
                QTest::newRow(row + " groups")
                    << bits << symmetric << 96 << 32 << QByteArray("F32") << name + " g32";
                QTest::newRow(row + " channel")
                    << bits << symmetric << 45 << 0 << QByteArray("F16") << name + " channel";
                QTest::newRow(row + " odd")
                    << bits << symmetric << 77 << 11 << QByteArray("BF16") << name + " g11";
            }
        }
    }
    void compressed_tensors()
    {
        QFETCH(int, bits);
        QFETCH(bool, symmetric);
        QFETCH(int, in);
        QFETCH(int, group);
        QFETCH(QByteArray, scales);
        QFETCH(QByteArray, type);
        const Layer layer(bits, 37, in, group == 0 ? in : group, symmetric,
                          *dtype_from_name(scales.toStdString()));
        check(layer, layer.compressed_tensors(), ct_config({weights_entry(bits, group, symmetric)}), type);
    }

    void compressed_tensors_whose_words_hold_whole_values()
    {
        for (const bool symmetric : {true, false}) { // before version 0.14: 10 values of 3 bits in a word
            const Layer layer(3, 64, 96, 32, symmetric, DType::F32);
            check(layer, layer.compressed_tensors(true), ct_config({weights_entry(3, 32, symmetric)}),
                  "ct int3 g32");
        }
    }

    void compressed_tensors_with_several_schemes()
    {
        const Layer first(4, 32, 64, 32, true, DType::F32);
        const Layer second(8, 32, 64, 64, false, DType::F32);
        Tensors tensors = first.compressed_tensors(false, "layer");
        tensors.merge(second.compressed_tensors(false, "other"));
        const auto reader =
            open(tensors, ct_config({weights_entry(8, 0, false), weights_entry(4, 32, true)}));
        QVERIFY2(reader, reader ? "" : reader.error().sentence().c_str());
        QVERIFY(*(*reader)->read("layer.weight") == first.expected());
        QVERIFY(*(*reader)->read("other.weight") == second.expected());
        QCOMPARE(std::string((*reader)->find("other.weight")->type_name()), std::string("ct int8 channel"));
    }

    void compressed_tensors_in_activation_order()
    {
        Layer layer(4, 32, 64, 32, true, DType::F32);
        for (std::size_t i = 0; i < layer.group_of.size(); ++i)
            layer.group_of[i] = static_cast<std::int32_t>(i % 2);
        Tensors tensors = layer.compressed_tensors();
        tensors["layer.weight_g_idx"] = numbers(DType::I32, {64}, layer.group_of);
        check(layer, tensors, ct_config({weights_entry(4, 32, true)}), "ct int4 g32");
    }

    void plain_checkpoints_stay_as_they_are()
    {
        const Tensors plain = {{"layer.weight", floats(DType::F32, Matrix::Ones(2, 2))}};
        const auto reader = open(plain, Json(Json::Object{}));
        QVERIFY(reader);
        QVERIFY((*reader)->view("layer.weight"));
        const auto method_without_layers = open(plain, gptq_config(4, 32, "gptq"));
        QVERIFY(method_without_layers);
        QVERIFY((*method_without_layers)->view("layer.weight"));
    }

    void reference_exports_data();
    void reference_exports();
};

void TestPackedCheckpoint::reference_exports_data()
{
    QTest::addColumn<QByteArray>("name");
    QTest::addColumn<double>("tolerance"); // largest difference over the range of the logits
    QTest::newRow("compressed-tensors") << QByteArray("ct-int4-g32") << 1e-5;
    QTest::newRow("GPTQ") << QByteArray("gptq-int4-g32-asym") << 1e-5;
}

void TestPackedCheckpoint::reference_exports()
{
    QFETCH(QByteArray, name);
    QFETCH(double, tolerance);
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const fs::path folder = *shared / "golden" / "exports" / "babyllama-105";
    const auto model = Model::open(folder / name.toStdString());
    QVERIFY2(model, model ? "" : model.error().sentence().c_str());
    const auto reference = CheckpointReader::open(folder / (name + "-base.safetensors").toStdString());
    QVERIFY(reference);
    const auto weights = checkpoint_weights(*model);
    const auto backend = make_cpu_backend();
    for (const char* prompt : {"0", "1", "2"}) {
        const Matrix numbers = (*reference)->view(std::string("ids.") + prompt)->to_matrix();
        std::vector<TokenId> ids;
        for (Index i = 0; i < numbers.size(); ++i)
            ids.push_back(static_cast<TokenId>(numbers.data()[i]));
        const auto got = logits(**model, *weights, ids, *backend, silent_monitor());
        QVERIFY2(got, got ? "" : got.error().sentence().c_str());
        const Matrix expected = *(*reference)->read(std::string("logits.") + prompt);
        const double worst =
            (*got - expected).cwiseAbs().maxCoeff() / (expected.maxCoeff() - expected.minCoeff());
        QVERIFY2(worst <= tolerance,
                 qPrintable(QString("prompt %1: %2 of the range").arg(prompt).arg(worst)));
    }
}

QTEST_GUILESS_MAIN(TestPackedCheckpoint)
#include "test_packed_checkpoint.moc"
