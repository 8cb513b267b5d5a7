// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/qlr_layer.h"

#include "core/compute/grid_levels.h"
#include "core/export/detail/bit_packing.h"

#include <cmath>

namespace rankscope {
namespace {

PackedTensor packed_tensor(const std::vector<std::uint16_t>& values, Index rows, Index cols, int bits)
{
    return {DType::I32, {rows, packed_words(cols, bits)}, pack_rows(values, rows, cols, bits)};
}

/// Zero point of a row and group: what was subtracted from the stored code.
int zero_of(const QuantizedMatrix& q, Index row, Index group)
{
    return q.grid.symmetric ? 1 << (q.grid.bits - 1) : static_cast<int>(std::lrintf(q.zeros(row, group)));
}

Result<std::vector<std::uint16_t>> unsigned_codes(const QuantizedMatrix& q)
{
    std::vector<std::uint16_t> values;
    values.reserve(static_cast<std::size_t>(q.codes.size()));
    const Index width = q.grid.group_width(q.codes.cols());
    for (Index row = 0; row < q.codes.rows(); ++row) {
        for (Index col = 0; col < q.codes.cols(); ++col) {
            const int value = q.codes(row, col) + zero_of(q, row, col / width);
            if (value < 0 || value >= 1 << q.grid.bits)
                return bad_input("the code at row " + std::to_string(row) + ", column " + std::to_string(col)
                                     + " is outside its grid of " + std::to_string(q.grid.bits) + " bits",
                                 {}, "Compute the layer again");
            values.push_back(static_cast<std::uint16_t>(value));
        }
    }
    return values;
}

Status add_quantized(const QuantizedMatrix& q, PackedLayer& packed)
{
    const Index groups = q.grid.groups(q.codes.cols());
    const bool zeros_fit = q.grid.symmetric || (q.zeros.rows() == q.codes.rows() && q.zeros.cols() == groups);
    if (q.grid.bits < 1 || q.grid.bits > 8 || q.scales.rows() != q.codes.rows() || q.scales.cols() != groups
        || !zeros_fit)
        return bad_input("scales, zero points and codes do not fit together", {}, "Compute the layer again");
    auto codes = unsigned_codes(q);
    if (!codes)
        return codes.error();
    packed.bits = q.grid.bits;
    packed.group_width = q.grid.group_width(q.codes.cols());
    packed.symmetric = q.grid.symmetric;
    packed.tensors[k_qlr_codes] = packed_tensor(*codes, packed.out, packed.in, packed.bits);
    packed.tensors[k_qlr_scales] = float_tensor(scale_type(q.scales), q.scales);
    if (!q.grid.symmetric) {
        std::vector<std::uint16_t> zeros;
        for (Index i = 0; i < q.zeros.size(); ++i) {
            const long zero = std::lrintf(q.zeros.data()[i]);
            if (zero < 0 || zero >= 1 << q.grid.bits)
                return bad_input("a zero point is outside its grid", {}, "Compute the layer again");
            zeros.push_back(static_cast<std::uint16_t>(zero));
        }
        packed.tensors[k_qlr_zeros] = packed_tensor(zeros, packed.out, groups, packed.bits);
    }
    return {};
}

} // namespace

std::uint64_t PackedLayer::bytes() const
{
    std::uint64_t sum = 0;
    for (const auto& [suffix, tensor] : tensors)
        sum += tensor.bytes.size();
    return sum;
}

Status check_packable(const Decomposition& decomposition)
{
    std::string reason;
    if (decomposition.quantized.codebook == Codebook::E8P)
        reason = "hf-qlr holds steps of a uniform grid, this layer's codes are points of the E8P lattice";
    else if (decomposition.quantized.grid.levels == GridLevels::NormalFloat)
        reason = "hf-qlr holds steps of a uniform grid, this layer's codes are NormalFloat levels";
    else if (has_minimum(decomposition.quantized.grid))
        reason =
            "hf-qlr holds steps of a uniform grid with whole zero points, this layer's codes are those of a "
            "K type, which gguf holds";
    else if (!decomposition.transform.empty())
        reason = "hf-qlr has no rotation of activations, this layer is stored in a rotated basis";
    else if (decomposition.low_rank.rank() > 0 && decomposition.factors.bits < 16)
        reason = "hf-qlr stores L and R in 16 bits, this layer's have "
                 + std::to_string(decomposition.factors.bits);
    if (reason.empty())
        return {};
    return usage_error(reason, {}, "Export as hf, which holds the reconstructed weights");
}

Result<PackedLayer> pack_layer(const Decomposition& decomposition, const LinearLayer& layer)
{
    if (auto fits = check_packable(decomposition); !fits)
        return fits.error().in(layer.name);
    const QuantizedMatrix& q = decomposition.quantized;
    const LowRank& factors = decomposition.low_rank;
    const bool has_codes = q.codes.size() > 0;
    const bool codes_fit = !has_codes || (q.codes.rows() == layer.out && q.codes.cols() == layer.in);
    const bool factors_fit = factors.rank() == 0
                             || (factors.left.rows() == layer.out && factors.right.cols() == layer.in
                                 && factors.right.rows() == factors.rank());
    if (!codes_fit || !factors_fit)
        return bad_input("the run's layer does not have the checkpoint's shape of "
                             + std::to_string(layer.out) + " × " + std::to_string(layer.in),
                         layer.name, "Compress this checkpoint again");
    if (!q.scales.allFinite() || !factors.left.allFinite() || !factors.right.allFinite())
        return bad_input("a scale or factor is not finite", layer.name, "Compute the layer again");
    PackedLayer packed;
    packed.out = layer.out;
    packed.in = layer.in;
    if (has_codes) {
        if (auto added = add_quantized(q, packed); !added)
            return added.error().in(layer.name);
    }
    packed.rank = factors.rank();
    if (packed.rank > 0) {
        packed.tensors[k_qlr_left] = float_tensor(factor_type(factors.left), factors.left);
        packed.tensors[k_qlr_right] = float_tensor(factor_type(factors.right), factors.right);
    }
    return packed;
}

void describe_layout(const PackedLayer& packed, Json& entry)
{
    entry.set("bits", packed.bits);
    entry.set("group_width", std::int64_t{packed.group_width});
    entry.set("symmetric", packed.symmetric);
    entry.set("rank", std::int64_t{packed.rank});
    entry.set("stored_bytes", packed.bytes());
}

Decomposition rounded_to_stored(const Decomposition& decomposition, const PackedLayer& packed)
{
    Decomposition result = decomposition;
    const auto round = [&](const char* suffix, Matrix& values) {
        if (const auto found = packed.tensors.find(suffix); found != packed.tensors.end())
            values = through(found->second.dtype, values);
    };
    round(k_qlr_scales, result.quantized.scales);
    round(k_qlr_left, result.low_rank.left);
    round(k_qlr_right, result.low_rank.right);
    return result;
}

} // namespace rankscope
