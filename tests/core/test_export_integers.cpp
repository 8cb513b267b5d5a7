// SPDX-License-Identifier: GPL-3.0-or-later
//
// compressed-tensors and GPTQ: what lies where, read by loops that follow the layouts' words (formats.md §5,
// §6) and held to files that transformers and gptqmodel were seen to load.
#include "core/base/json.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/tensor/half.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <cstring>

using namespace rankscope;
using test::text_of;
namespace fs = std::filesystem;

namespace {

template <class T>
std::vector<T> numbers(const CheckpointReader& reader, const std::string& name)
{
    const auto view = reader.view(name);
    std::vector<T> values;
    if (view) {
        values.resize(view->bytes.size() / sizeof(T));
        std::memcpy(values.data(), view->bytes.data(), values.size() * sizeof(T));
    }
    return values;
}

/// Bits begin … begin + bits − 1 of a little-endian stream whose words lie `stride` apart.
std::uint32_t bits_at(const std::vector<std::uint32_t>& words, std::size_t first, std::size_t stride,
                      std::size_t begin, int bits)
{
    std::uint32_t value = 0;
    for (int i = 0; i < bits; ++i) {
        const std::size_t bit = begin + static_cast<std::size_t>(i);
        value |= (words[first + bit / 32 * stride] >> (bit % 32) & 1U) << i;
    }
    return value;
}

/// w[o, i] = (code − zero) · scale of a pack-quantized layer.
Matrix compressed_tensors_weight(const CheckpointReader& reader, const std::string& layer, int bits)
{
    const auto packed = numbers<std::uint32_t>(reader, layer + ".weight_packed");
    const auto shape = numbers<std::int64_t>(reader, layer + ".weight_shape");
    const auto zeros = numbers<std::uint32_t>(reader, layer + ".weight_zero_point");
    const Matrix scales = *reader.read(layer + ".weight_scale");
    Matrix weight(shape[0], shape[1]);
    const std::size_t row_words = packed.size() / static_cast<std::size_t>(shape[0]);
    const auto groups = static_cast<std::size_t>(scales.cols());
    for (Index o = 0; o < weight.rows(); ++o) {
        for (Index i = 0; i < weight.cols(); ++i) {
            const Index group = i / (weight.cols() / scales.cols());
            const auto code = bits_at(packed, static_cast<std::size_t>(o) * row_words, 1,
                                      static_cast<std::size_t>(i * bits), bits);
            const auto zero = zeros.empty() ? 1U << (bits - 1)
                                            : bits_at(zeros, static_cast<std::size_t>(group), groups,
                                                      static_cast<std::size_t>(o * bits), bits);
            weight(o, i) =
                static_cast<float>(static_cast<int>(code) - static_cast<int>(zero)) * scales(o, group);
        }
    }
    return weight;
}

/// w[o, i] = scales[g, o] · (q − z[g, o]); version 1 stores z − 1.
Matrix gptq_weight(const CheckpointReader& reader, const std::string& layer, int bits, int version)
{
    const auto codes = numbers<std::uint32_t>(reader, layer + ".qweight");
    const auto zeros = numbers<std::uint32_t>(reader, layer + ".qzeros");
    const auto groups = numbers<std::int32_t>(reader, layer + ".g_idx");
    const Matrix scales = *reader.read(layer + ".scales");
    const auto out = static_cast<std::size_t>(scales.cols());
    const std::size_t zero_words = zeros.size() / static_cast<std::size_t>(scales.rows());
    Matrix weight(scales.cols(), static_cast<Index>(groups.size()));
    for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = 0; i < groups.size(); ++i) {
            const auto group = static_cast<std::size_t>(groups[i]);
            const auto code = bits_at(codes, o, out, i * static_cast<std::size_t>(bits), bits);
            const auto zero = bits_at(zeros, group * zero_words, 1, o * static_cast<std::size_t>(bits), bits)
                              + (version == 1 ? 1U : 0U);
            weight(static_cast<Index>(o), static_cast<Index>(i)) =
                scales(static_cast<Index>(group), static_cast<Index>(o))
                * static_cast<float>(static_cast<int>(code) - static_cast<int>(zero));
        }
    }
    return weight;
}

/// The run's Q with its scales as F16 holds them.
Matrix stored_base(const Run& run, const std::string& layer)
{
    Decomposition decomposition = *run.decomposition(layer);
    for (Index i = 0; i < decomposition.quantized.scales.size(); ++i) {
        float& scale = decomposition.quantized.scales.data()[i];
        scale = half_to_float(float_to_half(scale));
    }
    return decomposition.quantized.dequantize();
}

test::Given plan(std::int64_t bits, std::int64_t group, bool symmetric, std::int64_t rank = 0)
{
    return {{"bits", bits}, {"group", group}, {"symmetric", symmetric}, {"rank", rank}};
}

} // namespace

class TestExportIntegers : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void layouts_hold_the_run_data();
    void layouts_hold_the_run();
    void layouts_are_those_of_files_that_clients_load();
    void layers_left_out_are_named();
    void factors_alone_stay_dense();
    void refusals_data();
    void refusals();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write_and_check(const char* format, const Run& run, const Model& model) const
    {
        return test::write_and_check(**require_exporter(format), run, model, file("out"));
    }
    Json quantization() const { return (*Json::read(file("out") / "config.json"))["quantization_config"]; }

    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExportIntegers::layouts_hold_the_run_data()
{
    QTest::addColumn<QString>("format");
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<QString>("setting");
    QTest::addColumn<int>("stored_bits");
    QTest::addColumn<int>("stored_group");
    QTest::addColumn<bool>("stored_symmetric");
    const auto row = [](const char* name, const char* format, int bits, int group, bool symmetric,
                        const char* setting, int stored_bits, int stored_group, bool stored_symmetric) {
        QTest::newRow(name) << format << bits << group << symmetric << setting << stored_bits << stored_group
                            << stored_symmetric;
    };
    const char* ct = "compressed-tensors";
    row("ct int4 g32", ct, 4, 32, true, "", 4, 32, true);
    row("ct int4 g32 with zero points", ct, 4, 32, false, "", 4, 32, false);
    row("ct 3 bits are stored in 4", ct, 3, 32, false, "", 4, 32, false);
    row("ct 2 bits", ct, 2, 16, true, "", 2, 16, true);
    row("ct by row", ct, 8, 0, false, "", 8, 0, false);
    row("ct mixed", ct, 4, 32, true, "*.v_proj:bits=6,group=16,symmetric=false", 8, 16, false);
    row("gptq v1", "gptq", 4, 32, true, "", 4, 32, true);
    row("gptq v2", "gptq", 4, 32, false, "", 4, 32, false);
    row("gptq 3 bits straddle words", "gptq", 3, 32, false, "", 3, 32, false);
    row("gptq by row", "gptq", 8, 0, true, "", 8, 0, true);
    row("gptq mixed", "gptq", 2, 32, true, "*.mlp.*:bits=3,group=16", 3, 16, true);
}

void TestExportIntegers::layouts_hold_the_run()
{
    QFETCH(QString, format);
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(bool, symmetric);
    QFETCH(QString, setting);
    QFETCH(int, stored_bits);
    QFETCH(int, stored_group);
    QFETCH(bool, stored_symmetric);
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto model = Model::open(*shared / "models" / "tiny-arch" / "llama-gqa-untied-sharded");
    QVERIFY(model);
    std::vector<std::string> settings;
    if (!setting.isEmpty())
        settings.push_back(setting.toStdString());
    const auto run =
        test::quick_run(*model, file("run"), "svd_residual", plan(bits, group, symmetric, 2), settings);
    const Status done = write_and_check(format.toUtf8().constData(), *run, **model);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto reader = CheckpointReader::open(file("out"));
    QVERIFY(reader);
    for (const LinearLayer& layer : (*model)->linears()) {
        const Matrix stored = format == "gptq"
                                  ? gptq_weight(**reader, layer.name, stored_bits, stored_symmetric ? 1 : 2)
                                  : compressed_tensors_weight(**reader, layer.name, stored_bits);
        QVERIFY2(stored == stored_base(*run, layer.name), layer.name.c_str());
        QVERIFY(!(*reader)->find(layer.weight()));
    }
    const Json config = quantization();
    const Json& weights = config["config_groups"]["group_0"]["weights"];
    if (format == "gptq") {
        QCOMPARE(config["bits"].integer(), std::int64_t{stored_bits});
        QCOMPARE(config["group_size"].integer(), std::int64_t{stored_group > 0 ? stored_group : -1});
        QCOMPARE(config["checkpoint_format"].string(), std::string(stored_symmetric ? "gptq" : "gptq_v2"));
    } else {
        QCOMPARE(weights["num_bits"].integer(), std::int64_t{stored_bits});
        QCOMPARE(weights["symmetric"].boolean(), stored_symmetric);
        QCOMPARE(weights["strategy"].string(), std::string(stored_group > 0 ? "group" : "channel"));
        QCOMPARE(config["config_groups"]["group_0"]["targets"].array_if()->front().string(),
                 std::string("Linear"));
    }
    // What config.json said before is still there, and the index names what is in the shards.
    QCOMPARE((*Json::read(file("out") / "config.json"))["hidden_size"].integer(), std::int64_t{64});
    const Json index = *Json::read(file("out") / "model.safetensors.index.json");
    QCOMPARE(index["weight_map"].object_if()->size(), (*reader)->tensors().size());
    QVERIFY(fs::exists(file("out") / "adapter" / "adapter_model.safetensors"));
}

void TestExportIntegers::layouts_are_those_of_files_that_clients_load()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto original = Model::open(*shared / "models" / "babyllama-105");
    QVERIFY(original);
    const fs::path examples = *shared / "golden" / "exports" / "babyllama-105";
    const auto ct = CheckpointReader::open(examples / "ct-int4-g32" / "model.safetensors");
    const auto gptq = CheckpointReader::open(examples / "gptq-int4-g32-asym" / "model.safetensors");
    QVERIFY(ct && gptq);
    for (const LinearLayer& layer : (*original)->linears()) {
        const Matrix weight = *(*original)->weight(layer);
        const Matrix a = compressed_tensors_weight(**ct, layer.name, 4);
        const Matrix b = gptq_weight(**gptq, layer.name, 4, 1);
        QVERIFY2((a - weight).norm() < 0.12F * weight.norm(), layer.name.c_str());
        QVERIFY2((b - weight).norm() < 0.12F * weight.norm(), layer.name.c_str());
    }
}

void TestExportIntegers::layers_left_out_are_named()
{
    const auto model = test::sample_model();
    const auto run =
        test::quick_run(model, file("run"), "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{0}}},
                        {"model.layers.1.mlp.*:include=false"});
    const Status done = write_and_check("compressed-tensors", *run, *model);
    QVERIFY2(done, qPrintable(text_of(done)));
    QVERIFY(!fs::exists(file("out") / "adapter")); // there is no L·R
    const Json config = quantization();
    const auto& targets = *config["config_groups"]["group_0"]["targets"].array_if();
    QCOMPARE(targets.size(), std::size_t{32});
    QCOMPARE(targets.front().string(), std::string("model.layers.0.self_attn.q_proj"));
    const auto reader = CheckpointReader::open(file("out"));
    QVERIFY(reader && (*reader)->find("model.layers.1.mlp.up_proj.weight"));
    const Status refused = write_and_check("gptq", *run, *model);
    QVERIFY(!refused);
    QVERIFY2(text_of(refused).contains("model.layers.1.mlp.gate_proj"), qPrintable(text_of(refused)));
}

void TestExportIntegers::factors_alone_stay_dense()
{
    const auto model = test::sample_model();
    const auto run = test::quick_run(model, file("run"), "svd_residual", plan(8, 0, true, 4));
    // A run whose layer keeps L·R alone: the codes of one layer are taken away.
    const fs::path layer = file("run") / "layers" / "model.layers.0.mlp.up_proj.safetensors";
    const auto reader = CheckpointReader::open(layer);
    QVERIFY(reader);
    std::vector<TensorSource> kept;
    for (const char* name : {"left", "right"}) {
        const auto view = (*reader)->view(name);
        QVERIFY(view);
        kept.push_back(
            tensor_source(name, view->dtype, view->shape, {view->bytes.begin(), view->bytes.end()}));
    }
    std::map<std::string, std::string> texts;
    if (const Json::Object* metadata = (*reader)->metadata().object_if()) {
        for (const auto& [key, value] : *metadata)
            texts[key] = value.string();
    }
    QVERIFY(write_safetensors(layer, std::move(kept), texts, true));
    const auto changed = Run::open(file("run"));
    QVERIFY(changed);
    const auto decomposition = (*changed)->decomposition("model.layers.0.mlp.up_proj");
    QVERIFY2(decomposition, decomposition ? "" : decomposition.error().sentence().c_str());
    QVERIFY(decomposition->quantized.empty());
    const Status done = write_and_check("compressed-tensors", **changed, *model);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto exported = CheckpointReader::open(file("out"));
    QVERIFY(exported);
    const auto weight = (*exported)->read("model.layers.0.mlp.up_proj.weight");
    QVERIFY(weight && weight->norm() == 0.0F);
    QCOMPARE(quantization()["config_groups"]["group_0"]["targets"].array_if()->size(), std::size_t{34});
}

void TestExportIntegers::refusals_data()
{
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("model");
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<QString>("words");
    const auto row = [](const char* name, const char* format, const char* model, int bits, int group,
                        const char* words) {
        QTest::newRow(name) << format << model << bits << group << words;
    };
    row("groups that divide nothing", "compressed-tensors", "", 4, 64, "group");
    row("half words", "gptq", "", 4, 0, "do not fill");
    row("Conv1D", "compressed-tensors", "gpt2", 4, 32, "Conv1D");
    row("Conv1D in gptq", "gptq", "gpt2", 4, 32, "Conv1D");
    row("experts", "compressed-tensors", "mixtral-moe", 4, 32, "experts");
}

void TestExportIntegers::refusals()
{
    QFETCH(QString, format);
    QFETCH(QString, model);
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(QString, words);
    std::shared_ptr<const Model> source = test::sample_model();
    if (!model.isEmpty()) {
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        source = *Model::open(*shared / "models" / "tiny-arch" / model.toStdString());
    }
    const auto run = test::quick_run(source, file("run"), "svd_residual", plan(bits, group, true, 0));
    const Exporter& exporter = **require_exporter(format.toStdString());
    const Status accepted = exporter.accepts(*run, *source);
    QVERIFY(!accepted);
    QCOMPARE(accepted.error().kind, ErrorKind::Usage);
    QVERIFY2(text_of(accepted).contains(words), qPrintable(text_of(accepted)));
    QVERIFY(!accepted.error().remedy.empty());
    QVERIFY(!exporter.write(*run, *source, file("out"), {}, silent_monitor()));
    QVERIFY(!fs::exists(file("out")));
}

QTEST_GUILESS_MAIN(TestExportIntegers)
#include "test_export_integers.moc"
