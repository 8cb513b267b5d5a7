// SPDX-License-Identifier: GPL-3.0-or-later
//
// Rankscope's own hf-qlr (docs/formats.md): W = Q + L·R, the schema beside the weights says how each layer is
// packed.
#include "core/checkpoint/qlr_format.h"

#include "core/checkpoint/detail/packed_format.h"
#include "core/tensor/bit_stream.h"

namespace rankscope::detail {
namespace {

constexpr Index k_max_side = Index{1}
                             << 24; ///< a layer of rank alone is small in the file and large in memory
constexpr Index k_max_weights = Index{1} << 32;

/// One entry of the schema's "layers".
struct QlrLayer {
    int bits = 0; ///< 0: no Q
    Index group_width = 0;
    bool symmetric = false;
    Index rank = 0;

    Index groups(Index in) const { return (in + group_width - 1) / group_width; }
};

/// "int3 g32 + rank 8".
std::string type_of(const QlrLayer& layer, Index in)
{
    std::string text = "qlr";
    if (layer.bits > 0)
        text += " " + grid_name(layer.bits, layer.group_width, in);
    if (layer.rank > 0)
        text += std::string(layer.bits > 0 ? " +" : "") + " rank " + std::to_string(layer.rank);
    return text;
}

Result<PackedLinear> parse_layer(const std::string& name, const Json& entry, QlrLayer& layer,
                                 const std::string& where)
{
    const auto refuse = [&](std::string message) {
        return bad_input(std::move(message), where + ": layer " + name, "Export again");
    };
    const auto* sides = entry["shape"].array_if();
    if (!sides || sides->size() != 2)
        return refuse("\"shape\" is missing or no pair");
    PackedLinear linear;
    linear.name = name;
    linear.out = (*sides)[0].integer(-1);
    linear.in = (*sides)[1].integer(-1);
    if (linear.out < 1 || linear.in < 1 || linear.out > k_max_side || linear.in > k_max_side
        || linear.out * linear.in > k_max_weights)
        return refuse("\"shape\" is out of range");
    const std::int64_t bits = entry["bits"].integer(-1);
    if (bits < 0 || bits > 8)
        return refuse("\"bits\" must be 0 to 8");
    layer.bits = static_cast<int>(bits);
    layer.rank = entry["rank"].integer(-1);
    if (layer.rank < 0 || layer.rank > std::min(linear.out, linear.in))
        return refuse("\"rank\" is missing or larger than the layer");
    if (layer.bits == 0 && layer.rank == 0)
        return refuse("there are neither codes nor factors");
    layer.group_width = entry["group_width"].integer(0);
    if (layer.bits > 0 && (layer.group_width < 1 || layer.group_width > linear.in))
        return refuse("\"group_width\" must be between 1 and the number of inputs");
    if (!entry["symmetric"].is_bool())
        return refuse("\"symmetric\" must be true or false");
    layer.symmetric = entry["symmetric"].boolean();
    linear.type = type_of(layer, linear.in);
    return linear;
}

Status check_parts(const CheckpointReader& stored, PackedLinear& linear, const QlrLayer& layer)
{
    struct Part {
        const char* suffix;
        bool packed;
        Shape shape;
    };
    std::vector<Part> parts;
    if (layer.bits > 0) {
        const Index groups = layer.groups(linear.in);
        parts.push_back({k_qlr_codes, true, {linear.out, packed_words(linear.in, layer.bits)}});
        parts.push_back({k_qlr_scales, false, {linear.out, groups}});
        if (!layer.symmetric)
            parts.push_back({k_qlr_zeros, true, {linear.out, packed_words(groups, layer.bits)}});
    }
    if (layer.rank > 0) {
        parts.push_back({k_qlr_left, false, {linear.out, layer.rank}});
        parts.push_back({k_qlr_right, false, {layer.rank, linear.in}});
    }
    for (const Part& part : parts) {
        const auto found =
            part.packed ? part_of(stored, linear.name, part.suffix, {DType::I32}, part.shape)
                        : part_of(stored, linear.name, part.suffix, {DType::F16, DType::F32}, part.shape);
        if (!found)
            return found.error();
        linear.parts.push_back((*found)->name);
    }
    return {};
}

Result<Matrix> decode_quantized(const CheckpointReader& stored, const PackedLinear& linear,
                                const QlrLayer& layer)
{
    GridTables tables;
    auto scales = stored.read(linear.name + k_qlr_scales);
    const auto codes = stored.view(linear.name + k_qlr_codes);
    if (!scales || !codes)
        return !scales ? scales.error() : codes.error();
    tables.scales = std::move(*scales);
    const Index groups = layer.groups(linear.in);
    tables.zeros = CodeMatrix::Constant(linear.out, groups, static_cast<std::int16_t>(1 << (layer.bits - 1)));
    if (!layer.symmetric) {
        const auto zeros = stored.view(linear.name + k_qlr_zeros);
        if (!zeros)
            return zeros.error();
        const std::int64_t row_bytes = packed_words(groups, layer.bits) * 4;
        for (Index row = 0; row < linear.out; ++row) {
            for (Index group = 0; group < groups; ++group)
                tables.zeros(row, group) = static_cast<std::int16_t>(
                    packed_value(zeros->bytes.data() + row * row_bytes, group, layer.bits));
        }
    }
    tables.group_of = GridTables::consecutive(linear.in, layer.group_width);
    const std::int64_t row_bytes = packed_words(linear.in, layer.bits) * 4;
    return dequantize(tables, [&](Index row, Index col) {
        return packed_value(codes->bytes.data() + row * row_bytes, col, layer.bits);
    });
}

/// In the order of operations of Decomposition::reconstruct, so that the values are the run's bit for bit.
Result<Matrix> decode(const CheckpointReader& stored, const PackedLinear& linear, const QlrLayer& layer)
{
    Matrix weight;
    if (layer.bits > 0) {
        auto quantized = decode_quantized(stored, linear, layer);
        if (!quantized || layer.rank == 0)
            return quantized;
        weight = std::move(*quantized);
    }
    const auto left = stored.read(linear.name + k_qlr_left);
    const auto right = stored.read(linear.name + k_qlr_right);
    if (!left || !right)
        return !left ? left.error() : right.error();
    if (layer.bits > 0)
        weight.noalias() += *left * *right;
    else
        weight = *left * *right;
    return weight;
}

} // namespace

bool is_qlr_folder(const PackedSource& source)
{
    return source.stored.files().size() == 1
           && source.stored.files().front().filename() == k_qlr_weights_file;
}

Result<PackedLinears> qlr_linears(const PackedSource& source)
{
    const std::filesystem::path file = source.folder / k_qlr_schema_file;
    const auto schema = Json::read(file);
    if (!schema)
        return schema.error();
    return qlr_linears(source.stored, *schema, file.string());
}

Result<PackedLinears> qlr_linears(const CheckpointReader& stored, const Json& schema,
                                  const std::string& where)
{
    if (schema["format"].string() != k_qlr_format || schema["version"].integer(-1) != k_qlr_version)
        return bad_input("this is no rankscope-qlr export of version 1", where, "Export again");
    const auto* layers = schema["layers"].object_if();
    if (!layers)
        return bad_input("\"layers\" is missing or no object", where, "Export again");
    PackedLinears linears;
    for (const auto& [name, entry] : *layers) {
        QlrLayer layer;
        auto linear = parse_layer(name, entry, layer, where);
        if (!linear)
            return linear.error();
        if (auto fits = check_parts(stored, *linear, layer); !fits)
            return fits.error();
        linear->decode = [layer](const CheckpointReader& from, const PackedLinear& self) {
            return decode(from, self, layer);
        };
        linears.push_back(std::move(*linear));
    }
    return linears;
}

} // namespace rankscope::detail
