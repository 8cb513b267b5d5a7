// SPDX-License-Identifier: GPL-3.0-or-later
// One named case per rule of the packed formats; each breaks one thing of a layer that is otherwise good.
#include "tests/support/packed_layer.h"

#include <QTemporaryDir>
#include <QTest>

#include <functional>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

using Edit = std::function<void(Tensors&, Json&)>;
Q_DECLARE_METATYPE(Edit)

namespace {

void row(const char* name, const Edit& edit, const char* says)
{
    QTest::newRow(name) << edit << QByteArray(says);
}
Edit config_says(const std::vector<std::string>& path, const Json& value)
{
    return [=](Tensors&, Json& config) { set(config, path, value); };
}
Edit gptq_says(const std::string& key, const Json& value)
{
    return config_says({"quantization_config", key}, value);
}
Edit scheme_says(const std::string& key, const Json& value)
{
    return config_says({"quantization_config", "config_groups", "group_0", "weights", key}, value);
}
Edit without(const std::string& tensor)
{
    return [=](Tensors& tensors, Json&) { tensors.erase(tensor); };
}
Edit with(const std::string& tensor, const StoredTensor& stored)
{
    return [=](Tensors& tensors, Json&) { tensors[tensor] = stored; };
}
StoredTensor zeros_of(DType dtype, const Shape& shape)
{
    return {dtype, shape,
            std::vector<std::byte>(static_cast<std::size_t>(element_count(shape)) * size_bytes(dtype))};
}

} // namespace

class TestPackedHostile : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;

private Q_SLOTS:
    void gptq_data();
    void gptq();
    void compressed_tensors_data();
    void compressed_tensors();

private:
    void refused(const Tensors& tensors, const Json& config, const QByteArray& says) const
    {
        auto reader = open_packed(folder_.path().toStdString(), tensors, config);
        Error error;
        if (!reader) {
            error = reader.error();
        } else { // what only the content tells is found when the layer is read
            const auto weight = (*reader)->read("layer.weight");
            QVERIFY(!weight);
            error = weight.error();
        }
        const auto sentence = QByteArray::fromStdString(error.sentence());
        QVERIFY2(error.kind == ErrorKind::BadInput, sentence);
        QVERIFY2(sentence.contains(says), sentence);
        QVERIFY2(sentence.contains("layer") || sentence.contains("quantization_config"), sentence);
    }
};

void TestPackedHostile::gptq_data()
{
    QTest::addColumn<Edit>("edit");
    QTest::addColumn<QByteArray>("says");
    row("bits are missing", gptq_says("bits", Json()), "2, 3, 4 or 8");
    row("bits of 5", gptq_says("bits", 5), "2, 3, 4 or 8");
    row("bits of 0", gptq_says("bits", 0), "2, 3, 4 or 8");
    row("bits are a text", gptq_says("bits", "4"), "2, 3, 4 or 8");
    row("bits of 2^40", gptq_says("bits", std::int64_t{1} << 40), "2, 3, 4 or 8");
    row("bits lie", gptq_says("bits", 8), "scales: it is F16 [3, 64], expected");
    row("bits that fit no whole layer", gptq_says("bits", 3), "expected");
    row("group size of 0", gptq_says("group_size", 0), "group size must be");
    row("group size of −2", gptq_says("group_size", -2), "group size must be");
    row("group size is missing", gptq_says("group_size", Json()), "group size must be");
    row("group size lies", gptq_says("group_size", 48),
        "scales: it is F16 [3, 64], expected F16 or BF16 or F32 [2, 64]");
    row("unknown layout", gptq_says("checkpoint_format", "marlin"), "layout \"marlin\" is not read");
    row("layers of their own kinds", gptq_says("dynamic", *Json::parse(R"({"-:lm_head": {}})")), "not read");
    row("words of 64 bits", gptq_says("pack_dtype", "int64"), "int32 words");
    row("no scales", without("layer.scales"), "layer.scales: this part of a packed layer is missing");
    row("no zero points", without("layer.qzeros"), "layer.qzeros: this part of a packed layer is missing");
    row(
        "no group index in activation order",
        [](Tensors& tensors, Json& config) {
            tensors.erase("layer.g_idx");
            set(config, {"quantization_config", "desc_act"}, true);
        },
        "layer.g_idx: this part of a packed layer is missing, although desc_act");
    row("codes are floats", with("layer.qweight", zeros_of(DType::F32, {12, 64})), "expected I32 [any, any]");
    row("codes of rank 1", with("layer.qweight", zeros_of(DType::I32, {768})), "expected I32 [any, any]");
    row("codes of no outputs", with("layer.qweight", zeros_of(DType::I32, {12, 0})), "holds no whole layer");
    row("codes of no inputs", with("layer.qweight", zeros_of(DType::I32, {0, 64})), "holds no whole layer");
    row("no outputs and 2^60 rows", with("layer.qweight", zeros_of(DType::I32, {std::int64_t{1} << 60, 0})),
        "holds no whole layer");
    row("outputs that fill no word", with("layer.qweight", zeros_of(DType::I32, {12, 63})),
        "holds no whole layer");
    row("scales of another shape", with("layer.scales", zeros_of(DType::F16, {64, 3})), "expected");
    row("scales are integers", with("layer.scales", zeros_of(DType::I16, {3, 64})), "expected F16");
    row("scales are F8", with("layer.scales", zeros_of(DType::F8_E4M3, {3, 64})), "expected F16");
    row("zero points of another shape", with("layer.qzeros", zeros_of(DType::I32, {3, 9})),
        "expected I32 [3, 8]");
    row("zero points not packed", with("layer.qzeros", zeros_of(DType::I32, {3, 64})), "expected I32 [3, 8]");
    row("group index too short", with("layer.g_idx", zeros_of(DType::I32, {95})), "expected I32 [96]");
    row("group index is wide", with("layer.g_idx", zeros_of(DType::I64, {96})), "expected I32 [96]");
    const auto index = [](std::int32_t group) {
        std::vector<std::int32_t> groups(96, 0);
        groups[17] = group;
        return numbers(DType::I32, {96}, groups);
    };
    row("group index beyond the groups", with("layer.g_idx", index(3)), "input 17 is in group 3 of 3");
    row("negative group index", with("layer.g_idx", index(-1)), "input 17 is in group -1 of 3");
    row("infinite scale", with("layer.scales", floats(DType::F16, Matrix::Constant(3, 64, 1e9F))),
        "layer.scales: the value at [0, 0] is infinite");
    row("stored twice", with("layer.weight", zeros_of(DType::F32, {64, 96})), "stored twice");
    row("another method", gptq_says("quant_method", "awq"),
        "quantized with \"awq\", which is not read; known: ");
    row("a method that is no text", gptq_says("quant_method", 3), "which is not read");
}

void TestPackedHostile::gptq()
{
    QFETCH(Edit, edit);
    QFETCH(QByteArray, says);
    const Layer layer(4, 64, 96, 32);
    Tensors tensors = layer.gptq(true);
    Json config = gptq_config(4, 32, "gptq");
    edit(tensors, config);
    refused(tensors, config, says);
}

void TestPackedHostile::compressed_tensors_data()
{
    QTest::addColumn<Edit>("edit");
    QTest::addColumn<QByteArray>("says");
    const char* none_fits = "fit none of the config_groups";
    row("bits are missing", scheme_says("num_bits", Json()), "2 to 8");
    row("bits of 1", scheme_says("num_bits", 1), "2 to 8");
    row("bits of 9", scheme_says("num_bits", 9), "2 to 8");
    row("bits lie", scheme_says("num_bits", 8), none_fits);
    row("float codes", scheme_says("type", "float"), "only integer codes");
    row("dynamic", scheme_says("dynamic", true), "dynamically");
    row("symmetry is missing", scheme_says("symmetric", Json()), "true or false");
    row("symmetry lies", scheme_says("symmetric", true), none_fits);
    row("strategy of blocks", scheme_says("strategy", "block"), "strategy \"block\" is not read");
    row("strategy lies", scheme_says("strategy", "channel"), none_fits);
    row("group size of 0", scheme_says("group_size", 0), "group size must be");
    row("group size is null", scheme_says("group_size", Json()), "group size must be");
    row("group size lies", scheme_says("group_size", 16), none_fits);
    row("another format", gptq_says("format", "int-quantized"), "format \"int-quantized\" is not read");
    row("format is missing", gptq_says("format", Json()), "is not read");
    row("rotated", gptq_says("transform_config", *Json::parse(R"({"config_groups": {}})")), "are not read");
    row("sparse", gptq_says("sparsity_config", *Json::parse(R"({"format": "sparse-24-bitmask"})")),
        "are not read");
    row("no groups", gptq_says("config_groups", Json()), "at least one group");
    row("groups are a list", gptq_says("config_groups", Json::Array{}), "at least one group");
    row("groups without weights",
        config_says({"quantization_config", "config_groups", "group_0", "weights"}, Json()), "no group says");
    row("no scales", without("layer.weight_scale"),
        "layer.weight_scale: this part of a packed layer is missing");
    row("no shape", without("layer.weight_shape"),
        "layer.weight_shape: this part of a packed layer is missing");
    row("no zero points", without("layer.weight_zero_point"), none_fits);
    row("codes are floats", with("layer.weight_packed", zeros_of(DType::F32, {64, 12})), "expected I32");
    row("codes of rank 3", with("layer.weight_packed", zeros_of(DType::I32, {64, 12, 1})), "expected I32");
    row("no codes", with("layer.weight_packed", zeros_of(DType::I32, {64, 0})), "holds no codes");
    row("codes of other width", with("layer.weight_packed", zeros_of(DType::I32, {64, 13})), none_fits);
    row("scales are integers", with("layer.weight_scale", zeros_of(DType::I32, {64, 3})), "expected F32");
    row("scales of rank 1", with("layer.weight_scale", zeros_of(DType::F32, {64})), "expected F32");
    row("scales of fewer rows", with("layer.weight_scale", zeros_of(DType::F32, {63, 3})), none_fits);
    row("zero points not packed", with("layer.weight_zero_point", zeros_of(DType::I8, {64, 3})),
        "expected I32 [8, 3]");
    row("zero points of another shape", with("layer.weight_zero_point", zeros_of(DType::I32, {7, 3})),
        "expected I32 [8, 3]");
    const auto shape = [](std::int64_t out, std::int64_t in) {
        return with("layer.weight_shape", numbers<std::int64_t>(DType::I64, {2}, {out, in}));
    };
    row("shape of other outputs", shape(65, 96), "does not fit the codes [64, 12]");
    row("shape of other inputs", shape(64, 88), none_fits);
    row("shape of no inputs", shape(64, 0), "does not fit the codes");
    row("negative shape", shape(64, -96), "does not fit the codes");
    row("shape of 2^62 inputs", shape(64, std::int64_t{1} << 62), "does not fit the codes");
    row("shape of three sides", with("layer.weight_shape", zeros_of(DType::I64, {3})),
        "expected I64 or I32 [2]");
    row("shape is a float", with("layer.weight_shape", zeros_of(DType::F64, {2})), "expected I64 or I32 [2]");
    row("group index of another length", with("layer.weight_g_idx", zeros_of(DType::I32, {64})),
        "expected I32 [96]");
    row("group index beyond the groups",
        with("layer.weight_g_idx", numbers(DType::I32, {96}, std::vector<std::int32_t>(96, 3))),
        "input 0 is in group 3 of 3");
    row("NaN scale",
        with("layer.weight_scale",
             floats(DType::F32, Matrix::Constant(64, 3, std::numeric_limits<float>::quiet_NaN()))),
        "not a number");
    row("values beyond float", with("layer.weight_scale", floats(DType::F32, Matrix::Constant(64, 3, 3e38F))),
        "not finite");
    row("stored twice", with("layer.weight", zeros_of(DType::F32, {64, 96})), "stored twice");
}

void TestPackedHostile::compressed_tensors()
{
    QFETCH(Edit, edit);
    QFETCH(QByteArray, says);
    const Layer layer(4, 64, 96, 32, false, DType::F32);
    Tensors tensors = layer.compressed_tensors();
    Json config = ct_config({weights_entry(4, 32, false)});
    edit(tensors, config);
    refused(tensors, config, says);
}

QTEST_GUILESS_MAIN(TestPackedHostile)
#include "test_packed_hostile.moc"
