// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/compressed_tensors.h"

#include "core/export/detail/bit_packing.h"
#include "core/export/detail/integer_exporter.h"
#include "core/export/detail/stored_floats.h"

#include <array>
#include <cstring>

namespace rankscope {
namespace {

using namespace export_common;

/// Widths that old and new readers pack alike (formats.md §5): others are stored in the next of them.
constexpr std::array k_widths = {2, 4, 8};

std::vector<TensorSource> layer_tensors(const IntegerTensors& integers, const LinearLayer& layer,
                                        DType scale_dtype)
{
    const IntegerScheme& scheme = integers.scheme();
    const Index groups = scheme.groups(layer.in);
    const int bits = scheme.bits;
    std::vector<TensorSource> tensors;
    tensors.push_back(integers.source(
        layer, ".weight_packed", DType::I32, {layer.out, packed_words(layer.in, bits)},
        [&layer, bits](const IntegerLayer& q) { return pack_rows(q.codes, layer.out, layer.in, bits); }));
    tensors.push_back(
        integers.source(layer, ".weight_scale", scale_dtype, {layer.out, groups},
                        [scale_dtype](const IntegerLayer& q) { return float_bytes(scale_dtype, q.scales); }));
    const std::array<std::int64_t, 2> shape = {layer.out, layer.in};
    std::vector<std::byte> shape_bytes(sizeof shape);
    std::memcpy(shape_bytes.data(), shape.data(), sizeof shape);
    tensors.push_back(tensor_source(layer.name + ".weight_shape", DType::I64, {2}, std::move(shape_bytes)));
    if (!scheme.symmetric) {
        const std::int64_t words = packed_words(layer.out, bits);
        tensors.push_back(integers.source(layer, ".weight_zero_point", DType::I32, {words, groups},
                                          [&layer, bits, groups, words](const IntegerLayer& q) {
                                              const std::vector<std::byte> streams =
                                                  pack_rows(transposed(q.zeros, layer.out, groups), groups,
                                                            layer.out, bits);
                                              return transposed_words(streams, groups, words);
                                          }));
    }
    return tensors;
}

/// The output layer, a linear too, which no plan touches.
std::string head_module(const Model& model)
{
    const std::string weight = model.architecture().head();
    return weight.substr(0, weight.rfind(".weight"));
}

/// What config.json says about the packed modules. All linears of all blocks are named by their class, as
/// other tools write it; a part of them by name.
Json describe_packing(const IntegerLayers& layers, const Model& model)
{
    const IntegerScheme& scheme = layers.scheme;
    Json weights = Json::Object{};
    weights.set("num_bits", scheme.bits);
    weights.set("type", "int");
    weights.set("symmetric", scheme.symmetric);
    weights.set("strategy", scheme.group > 0 ? "group" : "channel");
    weights.set("group_size", scheme.group > 0 ? Json(std::int64_t{scheme.group}) : Json());
    weights.set("dynamic", false);
    weights.set("actorder", Json());
    weights.set("block_structure", Json());
    weights.set("observer", "minmax");
    weights.set("observer_kwargs", Json::Object{});
    Json::Array targets;
    if (layers.packed.size() == model.linears().size()) {
        targets.emplace_back("Linear");
    } else {
        for (const LinearLayer* layer : layers.packed)
            targets.emplace_back(layer->name);
    }
    Json group = Json::Object{};
    group.set("targets", std::move(targets));
    group.set("weights", std::move(weights));
    group.set("input_activations", Json());
    group.set("output_activations", Json());
    Json config = Json::Object{};
    config.set("quant_method", "compressed-tensors");
    config.set("format", "pack-quantized");
    config.set("quantization_status", "compressed");
    config.set("global_compression_ratio", Json());
    config.set("kv_cache_scheme", Json());
    config.set("ignore", Json::Array{Json(head_module(model))});
    config.set("config_groups", Json::Object{{"group_0", std::move(group)}});
    return config;
}

class CompressedTensorsExporter : public IntegerExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{"compressed-tensors", "compressed-tensors, packed Q + PEFT adapter",
                                       "Q as packed integers that transformers and vLLM load; adapter/ is a "
                                       "LoRA adapter of L and R for PEFT"};
        return info;
    }

protected:
    std::span<const int> widths() const override { return k_widths; }
    Status accepts_layers(const IntegerLayers&, const Model&) const override { return {}; }

    std::vector<TensorSource> tensors(const IntegerTensors& integers, const LinearLayer& layer,
                                      DType scale_type) const override
    {
        return layer_tensors(integers, layer, scale_type);
    }

    Json quantization_config(const IntegerLayers& layers, const Model& model) const override
    {
        return describe_packing(layers, model);
    }
};

} // namespace

const Exporter& compressed_tensors_exporter()
{
    static const CompressedTensorsExporter exporter;
    return exporter;
}

} // namespace rankscope
