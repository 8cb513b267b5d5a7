// SPDX-License-Identifier: GPL-3.0-or-later
//
// GPTQ, as AutoGPTQ and GPTQModel write it (docs/formats.md). Per layer: qweight, dense bit streams down the
// inputs of each output; qzeros, streams along the outputs of each group; scales; g_idx, the group of each
// input, which is i div group unless channels were quantized in the order of their activations.
//
// Version 1 stores z − 1. A field of all ones stands for z = 0, which its writers cannot mean: readers that
// add 1 to whole words carry into the next field, here it wraps within its own.
#include "core/checkpoint/detail/packed_format.h"
#include "core/tensor/bit_stream.h"

namespace rankscope::detail {
namespace {

constexpr char k_codes[] = ".qweight";
constexpr char k_zeros[] = ".qzeros";
constexpr char k_scales[] = ".scales";
constexpr char k_groups[] = ".g_idx";

struct GptqConfig {
    int bits = 0;
    Index group = 0; ///< −1: the whole row
    bool minus_one = true;
    bool act_order = false;
};

/// Extensions that change how layers are stored.
Status refuse_extensions(const PackedSource& source)
{
    const Json& config = quantization_of(source);
    for (const char* key : {"dynamic", "is_marlin_format"}) {
        if (!is_off(config[key]))
            return quantization_error(source, key, "layers that are stored in their own ways are not read");
    }
    if (const Json* words = config.find("pack_dtype"); words && words->string() != "int32")
        return quantization_error(source, "pack_dtype", "codes must be packed in int32 words");
    return {};
}

Result<GptqConfig> parse_config(const PackedSource& source)
{
    const Json& config = quantization_of(source);
    GptqConfig result;
    const std::int64_t bits = config["bits"].integer(-1);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return quantization_error(source, "bits", "the bits of a code must be 2, 3, 4 or 8");
    result.bits = static_cast<int>(bits);
    result.group = config["group_size"].integer(0);
    if (result.group != -1 && result.group < 1)
        return quantization_error(source, "group_size", "the group size must be −1 or at least 1");
    const char* key = config.find("checkpoint_format") ? "checkpoint_format" : "format";
    const std::string format = config[key].string("gptq");
    if (format != "gptq" && format != "gptq_v2")
        return quantization_error(
            source, key, "the layout \"" + format.substr(0, 80) + "\" is not read; known: gptq, gptq_v2");
    result.minus_one = format == "gptq";
    result.act_order = config["desc_act"].boolean();
    if (auto plain = refuse_extensions(source); !plain)
        return plain.error();
    return result;
}

Result<Matrix> decode(const CheckpointReader& stored, const PackedLinear& linear, const GptqConfig& config)
{
    const Index width = config.group == -1 ? linear.in : config.group;
    const auto codes = stored.view(linear.name + k_codes);
    const auto zeros = stored.view(linear.name + k_zeros);
    const auto scales = stored.read(linear.name + k_scales);
    if (!codes || !zeros || !scales)
        return !codes ? codes.error() : !zeros ? zeros.error() : scales.error();
    GridTables tables;
    tables.group_of = GridTables::consecutive(linear.in, width);
    if (stored.find(linear.name + k_groups)) {
        auto groups = read_group_indices(stored, linear.name + k_groups, linear.in, scales->rows());
        if (!groups)
            return groups.error();
        tables.group_of = std::move(*groups);
    }
    tables.scales = scales->transpose();
    tables.zeros.resize(linear.out, scales->rows());
    const std::uint32_t mask = (1U << config.bits) - 1;
    for (Index group = 0; group < scales->rows(); ++group) {
        const std::byte* row = zeros->bytes.data() + group * packed_words(linear.out, config.bits) * 4;
        for (Index out = 0; out < linear.out; ++out) {
            const std::uint32_t field = packed_value(row, out, config.bits);
            tables.zeros(out, group) =
                static_cast<std::int16_t>(config.minus_one ? (field + 1) & mask : field);
        }
    }
    return dequantize(tables, [&](Index row, Index col) {
        return packed_value(codes->bytes.data() + row * 4, col, config.bits, linear.out);
    });
}

Result<PackedLinear> describe(const CheckpointReader& stored, const std::string& name,
                              const GptqConfig& config)
{
    const auto codes = part_of(stored, name, k_codes, {DType::I32}, {-1, -1});
    if (!codes)
        return codes.error();
    PackedLinear linear;
    linear.name = name;
    linear.out = (*codes)->shape[1];
    const std::int64_t stream =
        linear.out < 1 ? 0 : (*codes)->shape[0] * 32; // bits; no overflow, the file holds them
    linear.in = stream / config.bits;
    if (linear.in < 1 || stream % config.bits != 0 || linear.out * config.bits % 32 != 0)
        return part_error(stored, name + k_codes,
                          "its shape " + to_string((*codes)->shape) + " holds no whole layer of "
                              + std::to_string(config.bits) + "-bit codes");
    const Index width = config.group == -1 ? linear.in : config.group;
    const Index groups = (linear.in + width - 1) / width;
    linear.parts = {name + k_codes, name + k_scales, name + k_zeros};
    const auto scales =
        part_of(stored, name, k_scales, {DType::F16, DType::BF16, DType::F32}, {groups, linear.out});
    if (!scales)
        return scales.error();
    const auto zeros =
        part_of(stored, name, k_zeros, {DType::I32}, {groups, packed_words(linear.out, config.bits)});
    if (!zeros)
        return zeros.error();
    if (stored.find(name + k_groups)) {
        const auto order = part_of(stored, name, k_groups, {DType::I32}, {linear.in});
        if (!order)
            return order.error();
        linear.parts.push_back(name + k_groups);
    } else if (config.act_order) {
        return part_error(stored, name + k_groups,
                          "this part of a packed layer is missing, although desc_act is set");
    }
    linear.type = "gptq " + grid_name(config.bits, width, linear.in) + (config.act_order ? " act-order" : "");
    linear.decode = [config](const CheckpointReader& reader, const PackedLinear& self) {
        return decode(reader, self, config);
    };
    return linear;
}

} // namespace

Result<PackedLinears> gptq_linears(const PackedSource& source)
{
    const auto names = layers_with(source.stored, k_codes);
    if (names.empty())
        return PackedLinears{};
    const auto config = parse_config(source);
    if (!config)
        return config.error();
    PackedLinears linears;
    for (const std::string& name : names) {
        auto linear = describe(source.stored, name, *config);
        if (!linear)
            return linear.error();
        linears.push_back(std::move(*linear));
    }
    return linears;
}

} // namespace rankscope::detail
