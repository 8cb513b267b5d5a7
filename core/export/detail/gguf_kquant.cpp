// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/gguf_kquant.h"

#include "core/base/thread_pool.h"
#include "core/compute/kquant.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

namespace rankscope {
namespace {

using Codes = std::array<unsigned, k_kquant_block>; // unsigned, as the format stores them
using Byte = std::uint8_t;

/// Where the parts of a block begin; −1 for parts that the format does not have (block_format.cpp reads
/// them).
struct Layout {
    BlockFormat format;
    int bits;
    int scales; ///< 4-bit pairs (2 bits), twelve packed bytes (3, 4, 5 bits), 16 signed bytes (6 bits)
    int low;    ///< low bits of the codes
    int high;   ///< the bits above
    int step;
    int minimum_step;
};
constexpr std::array k_layouts = {
    Layout{BlockFormat::Q2_K, 2, 0, 16, -1, 80, 82},    Layout{BlockFormat::Q3_K, 3, 96, 32, 0, 108, -1},
    Layout{BlockFormat::Q4_K, 4, 4, 16, -1, 0, 2},      Layout{BlockFormat::Q5_K, 5, 4, 48, 16, 0, 2},
    Layout{BlockFormat::Q6_K, 6, 192, 0, 128, 208, -1},
};

const Layout* layout_of(int bits)
{
    const auto found = std::find_if(k_layouts.begin(), k_layouts.end(),
                                    [&](const Layout& layout) { return layout.bits == bits; });
    return found == k_layouts.end() ? nullptr : &*found;
}

int lowest_of(int bits) { return kquant_has_minimum(bits) ? 0 : -(1 << (bits - 1)); }

void put_half(Byte* target, float value)
{
    const std::uint16_t bits = float_to_half(value);
    std::memcpy(target, &bits, sizeof bits);
}

Byte byte_of(unsigned value) { return static_cast<Byte>(value); }

/// Two bits of each code, four codes of a half block in a byte.
void put_pairs(Byte* target, const Codes& codes, int shift)
{
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const std::size_t half = i / 128;
        const std::size_t quarter = i % 128 / 32;
        target[half * 32 + i % 32] |= byte_of((codes[i] >> shift & 3U) << (2 * quarter));
    }
}

/// Low nibbles: groups of 32 two by two (4 and 5 bits).
void put_nibbles(Byte* target, const Codes& codes)
{
    for (std::size_t i = 0; i < codes.size(); ++i)
        target[i / 64 * 32 + i % 32] |= byte_of((codes[i] & 0xFU) << (4 * (i / 32 % 2)));
}

/// Low nibbles of 6-bit codes: quarters of a half block, the first two low and the last two high.
void put_six_bit_nibbles(Byte* target, const Codes& codes)
{
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const std::size_t quarter = i % 128 / 32;
        target[i / 128 * 64 + quarter % 2 * 32 + i % 32] |= byte_of((codes[i] & 0xFU) << (4 * (quarter / 2)));
    }
}

/// One bit of each code, the eight stretches of 32 codes in the bits of a byte.
void put_plane(Byte* target, const Codes& codes, int bit)
{
    for (std::size_t i = 0; i < codes.size(); ++i)
        target[i % 32] |= byte_of((codes[i] >> bit & 1U) << (i / 32));
}

/// Eight 6-bit scales and minima in twelve bytes.
void put_scales_and_minima(Byte* target, const KquantParts& parts)
{
    for (std::size_t g = 0; g < 4; ++g) {
        const auto low_scale = static_cast<unsigned>(parts.scales[g]);
        const auto low_minimum = static_cast<unsigned>(parts.minima[g]);
        const auto high_scale = static_cast<unsigned>(parts.scales[g + 4]);
        const auto high_minimum = static_cast<unsigned>(parts.minima[g + 4]);
        target[g] = byte_of(low_scale | high_scale >> 4 << 6);
        target[g + 4] = byte_of(low_minimum | high_minimum >> 4 << 6);
        target[g + 8] = byte_of((high_scale & 0xFU) | (high_minimum & 0xFU) << 4);
    }
}

/// Sixteen 6-bit scales, stored with 32 added: low nibbles in eight bytes, high pairs in four.
void put_signed_scales(Byte* target, const KquantParts& parts)
{
    for (std::size_t g = 0; g < parts.scales.size(); ++g) {
        const auto scale = static_cast<unsigned>(parts.scales[g] + 32);
        target[g % 8] |= byte_of((scale & 0xFU) << (4 * (g / 8)));
        target[8 + g % 4] |= byte_of((scale >> 4) << (2 * (g / 4)));
    }
}

void put_block(const Layout& layout, const KquantParts& parts, const Codes& codes, Byte* target)
{
    put_half(target + layout.step, parts.step);
    if (layout.minimum_step >= 0)
        put_half(target + layout.minimum_step, parts.minimum_step);
    Byte* scales = target + layout.scales;
    switch (layout.bits) {
    case 2:
        for (std::size_t g = 0; g < parts.scales.size(); ++g)
            scales[g] = byte_of(static_cast<unsigned>(parts.scales[g] | parts.minima[g] << 4));
        put_pairs(target + layout.low, codes, 0);
        break;
    case 3:
        put_signed_scales(scales, parts);
        put_pairs(target + layout.low, codes, 0);
        put_plane(target + layout.high, codes, 2);
        break;
    case 6:
        for (std::size_t g = 0; g < parts.scales.size(); ++g)
            scales[g] = static_cast<Byte>(static_cast<std::int8_t>(parts.scales[g]));
        put_six_bit_nibbles(target + layout.low, codes);
        put_pairs(target + layout.high, codes, 4);
        break;
    default:
        put_scales_and_minima(scales, parts);
        put_nibbles(target + layout.low, codes);
        if (layout.bits == 5)
            put_plane(target + layout.high, codes, 4);
    }
}

std::optional<KquantParts> parts_of(const QuantizedMatrix& q, Index row, Index block)
{
    const Index groups = k_kquant_block / kquant_group(q.grid.bits);
    const auto stretch = [&](const Matrix& values) {
        return std::span<const float>(values.row(row).data() + block * groups,
                                      static_cast<std::size_t>(groups));
    };
    return kquant_parts(stretch(q.scales), stretch(q.zeros), q.grid.bits);
}

bool shapes_fit(const QuantizedMatrix& q)
{
    const Index groups = q.codes.cols() / std::max<Index>(1, kquant_group(q.grid.bits));
    return q.codebook == Codebook::Uniform && q.grid.levels == GridLevels::Kquant && !q.empty()
           && layout_of(q.grid.bits) && q.codes.cols() % k_kquant_block == 0
           && q.scales.rows() == q.codes.rows() && q.scales.cols() == groups
           && q.zeros.rows() == q.scales.rows() && q.zeros.cols() == groups;
}

} // namespace

std::optional<BlockFormat> kquant_block(const QuantizedMatrix& q)
{
    if (!shapes_fit(q))
        return std::nullopt;
    const int lowest = lowest_of(q.grid.bits);
    if (q.codes.minCoeff() < lowest || q.codes.maxCoeff() >= lowest + (1 << q.grid.bits))
        return std::nullopt;
    std::atomic<bool> whole{true};
    parallel_for(0, q.codes.rows(), [&](Index row) {
        for (Index block = 0; block < q.codes.cols() / k_kquant_block && whole; ++block) {
            if (!parts_of(q, row, block))
                whole = false;
        }
    });
    return whole ? std::optional(layout_of(q.grid.bits)->format) : std::nullopt;
}

std::vector<std::byte> encode_kquant(const QuantizedMatrix& q, std::span<const Index> row_order)
{
    const Layout& layout = *layout_of(q.grid.bits);
    const std::size_t size = block_layout(static_cast<std::uint32_t>(layout.format))->bytes;
    const Index blocks = q.codes.cols() / k_kquant_block;
    std::vector<std::byte> bytes(static_cast<std::size_t>(q.codes.rows() * blocks) * size);
    parallel_for(0, q.codes.rows(), [&](Index stored_row) {
        const Index row = row_order.empty() ? stored_row : row_order[static_cast<std::size_t>(stored_row)];
        for (Index block = 0; block < blocks; ++block) {
            Codes codes{};
            for (std::size_t i = 0; i < codes.size(); ++i)
                codes[i] = static_cast<unsigned>(q.codes(row, block * k_kquant_block + static_cast<Index>(i))
                                                 - lowest_of(layout.bits));
            std::byte* target = bytes.data() + static_cast<std::size_t>(stored_row * blocks + block) * size;
            put_block(layout, parts_of(q, row, block).value_or(KquantParts{}), codes,
                      reinterpret_cast<Byte*>(target));
        }
    });
    return bytes;
}

} // namespace rankscope
