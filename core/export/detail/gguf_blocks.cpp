// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/gguf_blocks.h"

#include "core/export/detail/gguf_kquant.h"
#include "core/export/detail/stored_floats.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace rankscope {
namespace {

constexpr Index k_block = 32;

/// How one format stores a code.
struct Rule {
    BlockFormat format;
    int lowest;  ///< code, zero point subtracted, that is stored as 0
    int highest; ///< code
    int bits;
    bool least = false; ///< a least value stands beside the scale; unsigned codes
};
constexpr std::array k_rules = {
    Rule{BlockFormat::Q4_0, -8, 7, 4},     Rule{BlockFormat::Q4_1, 0, 15, 4, true},
    Rule{BlockFormat::Q5_0, -16, 15, 5},   Rule{BlockFormat::Q5_1, 0, 31, 5, true},
    Rule{BlockFormat::Q8_0, -128, 127, 8},
};

const Rule* rule_of(BlockFormat format)
{
    const auto found =
        std::find_if(k_rules.begin(), k_rules.end(), [&](const Rule& rule) { return rule.format == format; });
    return found == k_rules.end() ? nullptr : &*found;
}

int zero_of(const QuantizedMatrix& q, Index row, Index group)
{
    return q.grid.symmetric ? 1 << (q.grid.bits - 1) : static_cast<int>(std::lrintf(q.zeros(row, group)));
}

bool blocks_fit(const QuantizedMatrix& q)
{
    const Index cols = q.codes.cols();
    const Index width = q.grid.group_width(cols);
    return q.codebook == Codebook::Uniform && q.grid.levels != GridLevels::NormalFloat
           && q.grid.levels != GridLevels::Kquant && !q.empty() && cols % k_block == 0 && width % k_block == 0
           && q.scales.rows() == q.codes.rows() && q.scales.cols() == q.grid.groups(cols)
           && scale_type(q.scales) == DType::F16;
}

void put_half(std::byte*& target, float value)
{
    const std::uint16_t bits = float_to_half(value);
    std::memcpy(target, &bits, sizeof bits);
    target += sizeof bits;
}

/// 32 unsigned codes: the fifth bits first where there are five, then nibbles, value j low and j + 16 high.
void put_nibbles(std::byte*& target, const std::array<unsigned, k_block>& codes, int bits)
{
    constexpr std::size_t k_half = k_block / 2;
    if (bits == 5) {
        std::uint32_t high = 0;
        for (std::size_t i = 0; i < codes.size(); ++i)
            high |= (codes[i] >> 4 & 1U) << i;
        std::memcpy(target, &high, sizeof high);
        target += sizeof high;
    }
    for (std::size_t i = 0; i < k_half; ++i)
        *target++ = static_cast<std::byte>((codes[i] & 0xFU) | (codes[i + k_half] & 0xFU) << 4);
}

} // namespace

bool fits_block(const QuantizedMatrix& q, BlockFormat format)
{
    const Rule* rule = rule_of(format);
    if (!rule || !blocks_fit(q))
        return false;
    if (rule->least)
        return q.grid.bits <= rule->bits && q.grid.levels == GridLevels::Integers;
    return q.codes.minCoeff() >= rule->lowest && q.codes.maxCoeff() <= rule->highest;
}

std::optional<BlockFormat> exact_block(const QuantizedMatrix& q)
{
    if (const auto format = kquant_block(q))
        return format;
    for (const Rule& rule : k_rules) {
        if (fits_block(q, rule.format))
            return rule.format;
    }
    return std::nullopt;
}

std::vector<std::byte> encode_blocks(const QuantizedMatrix& q, BlockFormat format,
                                     std::span<const Index> row_order)
{
    if (q.grid.levels == GridLevels::Kquant)
        return encode_kquant(q, row_order);
    const Rule& rule = *rule_of(format);
    const BlockLayout& layout = *block_layout(static_cast<std::uint32_t>(format));
    const Index rows = q.codes.rows();
    const Index blocks = q.codes.cols() / k_block;
    const Index width = q.grid.group_width(q.codes.cols());
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows * blocks) * layout.bytes);
    std::byte* target = bytes.data();
    for (Index stored_row = 0; stored_row < rows; ++stored_row) {
        const Index row = row_order.empty() ? stored_row : row_order[static_cast<std::size_t>(stored_row)];
        for (Index block = 0; block < blocks; ++block) {
            const Index group = block * k_block / width;
            const float scale = half_to_float(float_to_half(q.scales(row, group)));
            const int zero = rule.least ? zero_of(q, row, group) : -rule.lowest;
            put_half(target, scale);
            if (rule.least)
                put_half(target, -scale * static_cast<float>(zero));
            std::array<unsigned, k_block> codes{};
            for (std::size_t i = 0; i < codes.size(); ++i)
                codes[i] =
                    static_cast<unsigned>(q.codes(row, block * k_block + static_cast<Index>(i)) + zero);
            if (rule.bits < 8) {
                put_nibbles(target, codes, rule.bits);
                continue;
            }
            for (const unsigned code : codes)
                *target++ = static_cast<std::byte>(static_cast<std::uint8_t>(code - 128U));
        }
    }
    return bytes;
}

Matrix stored_values(const QuantizedMatrix& q, BlockFormat format)
{
    if (q.grid.levels == GridLevels::Kquant) // nothing is rounded
        return q.dequantize();
    const Rule& rule = *rule_of(format);
    const Matrix scales = through(DType::F16, q.scales);
    const Index width = q.grid.group_width(q.codes.cols());
    Matrix values(q.codes.rows(), q.codes.cols());
    for (Index row = 0; row < values.rows(); ++row) {
        for (Index col = 0; col < values.cols(); ++col) {
            const Index group = col / width;
            const float scale = scales(row, group);
            const int code = q.codes(row, col);
            if (!rule.least) {
                values(row, col) = scale * static_cast<float>(code);
                continue;
            }
            const int zero = zero_of(q, row, group);
            const float least = half_to_float(float_to_half(-scale * static_cast<float>(zero)));
            values(row, col) = scale * static_cast<float>(code + zero) + least;
        }
    }
    return values;
}

} // namespace rankscope
