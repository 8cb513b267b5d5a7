// SPDX-License-Identifier: GPL-3.0-or-later
//
// Version 1 stores zero points minus one, and readers add the one to whole words: a zero point of 0 would
// carry into its neighbor. A symmetric grid has none, so that it is written as version 1, which every reader
// knows; other grids are version 2.
#include "core/export/gptq.h"

#include "core/export/detail/bit_packing.h"
#include "core/export/detail/integer_exporter.h"
#include "core/export/detail/stored_floats.h"

#include <array>
#include <cstring>

namespace rankscope {
namespace {

using namespace export_common;

constexpr std::array k_widths = {2, 3, 4, 8}; ///< that the kernels of the readers know
constexpr int k_word_bits = 32;

Status check_words(const IntegerLayers& layers)
{
    for (const LinearLayer* layer : layers.packed) {
        if (layer->in * layers.scheme.bits % k_word_bits != 0
            || layer->out * layers.scheme.bits % k_word_bits != 0)
            return usage_error("gptq packs whole words along inputs and outputs, but "
                                   + std::to_string(layers.scheme.bits) + " bits of "
                                   + std::to_string(layer->out) + " × " + std::to_string(layer->in)
                                   + " weights do not fill them",
                               layer->name, "Export as compressed-tensors");
        if (layers.scale_types.at(layer->name) != DType::F16)
            return usage_error("gptq stores scales as F16, which this layer's do not survive", layer->name,
                               "Export as compressed-tensors");
    }
    return {};
}

std::vector<std::byte> group_indices(Index in, Index width)
{
    std::vector<std::int32_t> groups(static_cast<std::size_t>(in));
    for (std::size_t i = 0; i < groups.size(); ++i)
        groups[i] = static_cast<std::int32_t>(static_cast<Index>(i) / width);
    std::vector<std::byte> bytes(groups.size() * sizeof(std::int32_t));
    std::memcpy(bytes.data(), groups.data(), bytes.size());
    return bytes;
}

std::vector<TensorSource> layer_tensors(const IntegerTensors& integers, const LinearLayer& layer)
{
    const IntegerScheme& scheme = integers.scheme();
    const int bits = scheme.bits;
    const Index groups = scheme.groups(layer.in);
    const std::int64_t words = packed_words(layer.in, bits);
    const int stored_less = scheme.symmetric ? 1 : 0; // version 1
    std::vector<TensorSource> tensors;
    tensors.push_back(integers.source(
        layer, ".qweight", DType::I32, {words, layer.out}, [&layer, bits, words](const IntegerLayer& q) {
            return transposed_words(pack_rows(q.codes, layer.out, layer.in, bits), layer.out, words);
        }));
    tensors.push_back(integers.source(layer, ".qzeros", DType::I32, {groups, packed_words(layer.out, bits)},
                                      [&layer, bits, groups, stored_less](const IntegerLayer& q) {
                                          std::vector<std::uint16_t> zeros =
                                              transposed(q.zeros, layer.out, groups);
                                          for (std::uint16_t& zero : zeros)
                                              zero = static_cast<std::uint16_t>(zero - stored_less);
                                          return pack_rows(zeros, groups, layer.out, bits);
                                      }));
    tensors.push_back(
        integers.source(layer, ".scales", DType::F16, {groups, layer.out}, [](const IntegerLayer& q) {
            return float_bytes(DType::F16, Matrix(q.scales.transpose()));
        }));
    tensors.push_back(tensor_source(layer.name + ".g_idx", DType::I32, {layer.in},
                                    group_indices(layer.in, scheme.group_width(layer.in))));
    return tensors;
}

class GptqExporter : public IntegerExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{
            "gptq", "GPTQ, packed Q + PEFT adapter",
            "Q as packed integers in GPTQ's layout, for transformers with gptqmodel "
            "and for vLLM; adapter/ is a LoRA adapter of L and R for PEFT"};
        return info;
    }

protected:
    std::span<const int> widths() const override { return k_widths; }

    Status accepts_layers(const IntegerLayers& layers, const Model& model) const override
    {
        for (const LinearLayer& layer : model.linears()) {
            if (!layers.scale_types.contains(layer.name))
                return usage_error("gptq packs every linear layer of every block, but this run leaves it as "
                                   "it is or keeps L·R alone",
                                   layer.name, "Export as compressed-tensors, or plan codes for all layers");
        }
        return check_words(layers);
    }

    std::vector<TensorSource> tensors(const IntegerTensors& integers, const LinearLayer& layer,
                                      DType) const override
    {
        return layer_tensors(integers, layer);
    }

    Json quantization_config(const IntegerLayers& layers, const Model&) const override
    {
        const IntegerScheme& scheme = layers.scheme;
        Json config = Json::Object{};
        config.set("quant_method", "gptq");
        config.set("bits", scheme.bits);
        config.set("group_size", scheme.reported_group());
        config.set("sym", scheme.symmetric);
        config.set("desc_act", false);
        config.set("static_groups", false);
        config.set("true_sequential", true);
        config.set("damp_percent", 0.01);
        config.set("lm_head", false);
        config.set("checkpoint_format", scheme.symmetric ? "gptq" : "gptq_v2");
        config.set("meta", Json::Object{{"quantizer", Json::Array{"rankscope:" RANKSCOPE_VERSION}}});
        return config;
    }
};

} // namespace

const Exporter& gptq_exporter()
{
    static const GptqExporter exporter;
    return exporter;
}

} // namespace rankscope
