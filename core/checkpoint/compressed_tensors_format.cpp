// SPDX-License-Identifier: GPL-3.0-or-later
//
// compressed-tensors, format pack-quantized (docs/formats.md). Per layer: weight_packed, a bit stream along
// each row; weight_scale; weight_shape; weight_zero_point, streams down the outputs of each group, absent for
// symmetric grids; weight_g_idx where channels were quantized in the order of their activations.
//
// Streams are dense since version 0.14; before, a word held 32 div bits values and the rest of it stayed
// empty, which is the same for 2, 4 and 8 bits. Which of the config's groups a layer belongs to follows from
// its shapes: bits, group size and symmetry tell the groups apart, so that the patterns in "targets" need not
// be understood.
#include "core/checkpoint/detail/packed_format.h"
#include "core/tensor/bit_stream.h"

#include <array>
#include <cstring>

namespace rankscope::detail {
namespace {

constexpr char k_codes[] = ".weight_packed";
constexpr char k_scales[] = ".weight_scale";
constexpr char k_shape[] = ".weight_shape";
constexpr char k_zeros[] = ".weight_zero_point";
constexpr char k_groups[] = ".weight_g_idx";
constexpr std::size_t k_max_schemes = 1000;

/// One entry of "config_groups".
struct Scheme {
    int bits = 0;
    Index group = 0; ///< 0: one scale for a row
    bool symmetric = true;
};

/// How values lie in words.
struct Packing {
    int bits = 0;
    bool dense = true;

    std::int64_t words(std::int64_t count) const
    {
        const int each = 32 / bits;
        return dense ? packed_words(count, bits) : (count + each - 1) / each;
    }
    std::uint32_t value(const std::byte* stream, std::int64_t index, std::int64_t stride) const
    {
        if (dense)
            return packed_value(stream, index, bits, stride);
        const int each = 32 / bits;
        return packed_value(stream + index / each * stride * 4, index % each, bits);
    }
};

Result<Scheme> parse_scheme(const PackedSource& source, const std::string& name, const Json& weights)
{
    const std::string place = "config_groups." + name + ".weights.";
    const auto refuse = [&](const char* key, const std::string& message) {
        return quantization_error(source, place + key, message);
    };
    Scheme scheme;
    const std::int64_t bits = weights["num_bits"].integer(-1);
    if (bits < 2 || bits > 8)
        return refuse("num_bits", "the bits of a code must be 2 to 8");
    scheme.bits = static_cast<int>(bits);
    if (weights["type"].string("int") != "int")
        return refuse("type", "only integer codes (\"int\") are read in this format");
    if (weights["dynamic"].boolean())
        return refuse("dynamic", "weights cannot be quantized dynamically");
    if (!weights["symmetric"].is_bool())
        return refuse("symmetric", "it must be true or false");
    scheme.symmetric = weights["symmetric"].boolean();
    const std::string strategy = weights["strategy"].string();
    if (strategy == "group") {
        scheme.group = weights["group_size"].integer(0);
        if (scheme.group < 1)
            return refuse("group_size", "the group size must be at least 1");
    } else if (strategy != "channel") {
        return refuse("strategy",
                      "the strategy \"" + strategy.substr(0, 80) + "\" is not read; known: group, channel");
    }
    return scheme;
}

Result<std::vector<Scheme>> parse_config(const PackedSource& source)
{
    const Json& config = quantization_of(source);
    const std::string format = config["format"].string();
    if (format != "pack-quantized")
        return quantization_error(source, "format",
                                  "the format \"" + format.substr(0, 80)
                                      + "\" is not read; known: pack-quantized");
    for (const char* key : {"sparsity_config", "transform_config"}) {
        if (!is_off(config[key]) && config[key]["format"].string() != "dense")
            return quantization_error(source, key, "sparse and rotated weights are not read");
    }
    const auto* groups = config["config_groups"].object_if();
    if (!groups || groups->empty() || groups->size() > k_max_schemes)
        return quantization_error(source, "config_groups", "it must be an object with at least one group");
    std::vector<Scheme> schemes;
    for (const auto& [name, group] : *groups) {
        if (group["weights"].is_null())
            continue;
        auto scheme = parse_scheme(source, name, group["weights"]);
        if (!scheme)
            return scheme.error();
        schemes.push_back(*scheme);
    }
    if (schemes.empty())
        return quantization_error(source, "config_groups", "no group says how weights are quantized");
    return schemes;
}

/// A layer's shapes as they are stored.
struct Stored {
    Shape codes;
    Shape scales;
    bool zeros = false;
    Index out = 0;
    Index in = 0;
};

std::optional<Packing> fitting(const Stored& stored, const Scheme& scheme)
{
    const Index groups = scheme.group == 0 ? 1 : (stored.in + scheme.group - 1) / scheme.group;
    if (stored.scales != Shape{stored.out, groups} || stored.zeros == scheme.symmetric)
        return std::nullopt;
    for (const bool dense : {true, false}) {
        const Packing packing{scheme.bits, dense};
        if (stored.codes[1] == packing.words(stored.in))
            return packing;
    }
    return std::nullopt;
}

/// weight_shape, checked against the codes so far as any number of bits allows.
Status read_shape(const CheckpointReader& reader, const std::string& layer, Stored& stored)
{
    const std::string name = layer + k_shape;
    const auto part = part_of(reader, layer, k_shape, {DType::I64, DType::I32}, {2});
    if (!part)
        return part.error();
    const auto view = reader.view(name);
    if (!view)
        return view.error();
    std::array<std::int64_t, 2> sides{};
    for (std::size_t i = 0; i < 2; ++i) {
        std::int32_t narrow = 0;
        if (view->dtype == DType::I32) {
            std::memcpy(&narrow, view->bytes.data() + i * sizeof narrow, sizeof narrow);
            sides[i] = narrow;
        } else {
            std::memcpy(&sides[i], view->bytes.data() + i * sizeof sides[i], sizeof sides[i]);
        }
    }
    if (auto whole = reader.confirm(name); !whole)
        return whole;
    constexpr std::int64_t k_values_per_word = 16; // of 2 bits
    if (sides[0] < 1 || sides[0] != stored.codes[0] || sides[1] < 1
        || sides[1] > stored.codes[1] * k_values_per_word)
        return part_error(reader, name,
                          "it says " + to_string({sides[0], sides[1]}) + ", which does not fit the codes "
                              + to_string(stored.codes));
    stored.out = sides[0];
    stored.in = sides[1];
    return {};
}

Result<GridTables> read_tables(const CheckpointReader& reader, const PackedLinear& linear,
                               const Scheme& scheme, const Packing& packing)
{
    GridTables tables;
    auto scales = reader.read(linear.name + k_scales);
    if (!scales)
        return scales.error();
    tables.scales = std::move(*scales);
    const Index groups = tables.scales.cols();
    tables.zeros =
        CodeMatrix::Constant(linear.out, groups, static_cast<std::int16_t>(1 << (scheme.bits - 1)));
    if (!scheme.symmetric) {
        const auto zeros = reader.view(linear.name + k_zeros);
        if (!zeros)
            return zeros.error();
        for (Index row = 0; row < linear.out; ++row) {
            for (Index group = 0; group < groups; ++group)
                tables.zeros(row, group) =
                    static_cast<std::int16_t>(packing.value(zeros->bytes.data() + group * 4, row, groups));
        }
    }
    tables.group_of = GridTables::consecutive(linear.in, scheme.group == 0 ? linear.in : scheme.group);
    if (reader.find(linear.name + k_groups)) {
        auto order = read_group_indices(reader, linear.name + k_groups, linear.in, groups);
        if (!order)
            return order.error();
        tables.group_of = std::move(*order);
    }
    return tables;
}

Result<Matrix> decode(const CheckpointReader& reader, const PackedLinear& linear, const Scheme& scheme,
                      const Packing& packing)
{
    const auto tables = read_tables(reader, linear, scheme, packing);
    if (!tables)
        return tables.error();
    const auto codes = reader.view(linear.name + k_codes);
    if (!codes)
        return codes.error();
    const std::int64_t row_bytes = packing.words(linear.in) * 4;
    return dequantize(*tables, [&](Index row, Index col) {
        return packing.value(codes->bytes.data() + row * row_bytes, col, 1);
    });
}

/// Parts whose shape follows from the scheme.
Status check_parts(const CheckpointReader& reader, PackedLinear& linear, const Packing& packing, Index groups)
{
    linear.parts = {linear.name + k_codes, linear.name + k_scales, linear.name + k_shape};
    if (reader.find(linear.name + k_zeros)) {
        const auto zeros =
            part_of(reader, linear.name, k_zeros, {DType::I32}, {packing.words(linear.out), groups});
        if (!zeros)
            return zeros.error();
        linear.parts.push_back(linear.name + k_zeros);
    }
    if (reader.find(linear.name + k_groups)) {
        const auto order = part_of(reader, linear.name, k_groups, {DType::I32}, {linear.in});
        if (!order)
            return order.error();
        linear.parts.push_back(linear.name + k_groups);
    }
    return {};
}

Result<PackedLinear> describe(const CheckpointReader& reader, const std::string& name,
                              const std::vector<Scheme>& schemes)
{
    const auto codes = part_of(reader, name, k_codes, {DType::I32}, {-1, -1});
    if (!codes)
        return codes.error();
    const auto scales = part_of(reader, name, k_scales, {DType::F32, DType::F16, DType::BF16}, {-1, -1});
    if (!scales)
        return scales.error();
    Stored stored{(*codes)->shape, (*scales)->shape, reader.find(name + k_zeros) != nullptr, 0, 0};
    if (stored.codes[0] < 1 || stored.codes[1] < 1)
        return part_error(reader, name + k_codes, "it holds no codes");
    if (auto read = read_shape(reader, name, stored); !read)
        return read.error();
    for (const Scheme& scheme : schemes) {
        const auto packing = fitting(stored, scheme);
        if (!packing)
            continue;
        PackedLinear linear;
        linear.name = name;
        linear.out = stored.out;
        linear.in = stored.in;
        const Index width = scheme.group == 0 ? linear.in : scheme.group;
        linear.type = "ct " + grid_name(scheme.bits, width, linear.in);
        if (auto checked = check_parts(reader, linear, *packing, stored.scales[1]); !checked)
            return checked.error();
        linear.decode = [scheme, packing = *packing](const CheckpointReader& from, const PackedLinear& self) {
            return decode(from, self, scheme, packing);
        };
        return linear;
    }
    return part_error(reader, name + k_codes,
                      "codes " + to_string(stored.codes) + ", scales " + to_string(stored.scales)
                          + (stored.zeros ? ", with" : " and no") + " zero points of a layer of "
                          + to_string({stored.out, stored.in})
                          + " fit none of the config_groups in config.json");
}

} // namespace

Result<PackedLinears> compressed_tensors_linears(const PackedSource& source)
{
    const auto names = layers_with(source.stored, k_codes);
    const auto schemes = parse_config(source);
    if (!schemes)
        return schemes.error();
    PackedLinears linears;
    for (const std::string& name : names) {
        auto linear = describe(source.stored, name, *schemes);
        if (!linear)
            return linear.error();
        linears.push_back(std::move(*linear));
    }
    return linears;
}

} // namespace rankscope::detail
