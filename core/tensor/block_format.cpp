// SPDX-License-Identifier: GPL-3.0-or-later
// The block layouts of GGUF (ggml's documentation of its types). Products are formed in the order of the
// reference, because the last bit depends on it.
#include "core/tensor/block_format.h"

#include "core/tensor/half.h"

#include <array>
#include <cstring>

namespace rankscope {
namespace {

using Byte = std::uint8_t;

constexpr std::array k_layouts = {
    BlockLayout{BlockFormat::Q4_0, "Q4_0", 32, 18},     BlockLayout{BlockFormat::Q4_1, "Q4_1", 32, 20},
    BlockLayout{BlockFormat::Q5_0, "Q5_0", 32, 22},     BlockLayout{BlockFormat::Q5_1, "Q5_1", 32, 24},
    BlockLayout{BlockFormat::Q8_0, "Q8_0", 32, 34},     BlockLayout{BlockFormat::Q2_K, "Q2_K", 256, 84},
    BlockLayout{BlockFormat::Q3_K, "Q3_K", 256, 110},   BlockLayout{BlockFormat::Q4_K, "Q4_K", 256, 144},
    BlockLayout{BlockFormat::Q5_K, "Q5_K", 256, 176},   BlockLayout{BlockFormat::Q6_K, "Q6_K", 256, 210},
    BlockLayout{BlockFormat::IQ4_NL, "IQ4_NL", 32, 18}, BlockLayout{BlockFormat::IQ4_XS, "IQ4_XS", 256, 136},
};

/// The sixteen levels of IQ4_NL and IQ4_XS.
constexpr std::array<float, 16> k_levels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

float half_at(const Byte* bytes)
{
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes, sizeof bits);
    return half_to_float(bits);
}

float as_float(int value) { return static_cast<float>(value); }

void decode_q4_0(const Byte* block, float* y)
{
    const float d = half_at(block);
    for (int j = 0; j < 16; ++j) {
        y[j] = d * as_float((block[2 + j] & 0xF) - 8);
        y[j + 16] = d * as_float((block[2 + j] >> 4) - 8);
    }
}

void decode_q4_1(const Byte* block, float* y)
{
    const float d = half_at(block);
    const float m = half_at(block + 2);
    for (int j = 0; j < 16; ++j) {
        y[j] = d * as_float(block[4 + j] & 0xF) + m;
        y[j + 16] = d * as_float(block[4 + j] >> 4) + m;
    }
}

/// The fifth bits of Q5_0 and Q5_1: bit j of a 32-bit word belongs to element j.
int fifth_bit(const Byte* high, int element) { return (high[element / 8] >> (element % 8) & 1) << 4; }

void decode_q5_0(const Byte* block, float* y)
{
    const float d = half_at(block);
    const Byte* high = block + 2;
    const Byte* low = block + 6;
    for (int j = 0; j < 16; ++j) {
        y[j] = d * as_float(((low[j] & 0xF) | fifth_bit(high, j)) - 16);
        y[j + 16] = d * as_float(((low[j] >> 4) | fifth_bit(high, j + 16)) - 16);
    }
}

void decode_q5_1(const Byte* block, float* y)
{
    const float d = half_at(block);
    const float m = half_at(block + 2);
    const Byte* high = block + 4;
    const Byte* low = block + 8;
    for (int j = 0; j < 16; ++j) {
        y[j] = d * as_float((low[j] & 0xF) | fifth_bit(high, j)) + m;
        y[j + 16] = d * as_float((low[j] >> 4) | fifth_bit(high, j + 16)) + m;
    }
}

void decode_q8_0(const Byte* block, float* y)
{
    const float d = half_at(block);
    for (int j = 0; j < 32; ++j)
        y[j] = d * as_float(static_cast<std::int8_t>(block[2 + j]));
}

void decode_q2_k(const Byte* block, float* y)
{
    const Byte* scales = block;
    const float d = half_at(block + 80);
    const float minimum = half_at(block + 82);
    for (int i = 0; i < 256; ++i) {
        const int half = i / 128;
        const int quarter = i % 128 / 32; // which two bits of the byte
        const Byte scale = scales[i / 16];
        const int q = block[16 + half * 32 + i % 32] >> (2 * quarter) & 3;
        y[i] = d * as_float(scale & 0xF) * as_float(q) - minimum * as_float(scale >> 4);
    }
}

void decode_q3_k(const Byte* block, float* y)
{
    const Byte* mask = block;
    const Byte* low = block + 32;
    const Byte* packed = block + 96;
    const float d = half_at(block + 108);
    for (int i = 0; i < 256; ++i) {
        const int group = i / 16;
        // Sixteen 6-bit scales in twelve bytes: low nibbles in the first eight, high pairs in the last four.
        const int low_bits = group < 8 ? packed[group] & 0xF : packed[group - 8] >> 4;
        const int high_bits = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        const int scale = (low_bits | high_bits << 4) - 32;
        const int plane = i / 32; // bit of the mask byte
        const int q = (low[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3)
                      - ((mask[i % 32] >> plane & 1) != 0 ? 0 : 4);
        y[i] = d * as_float(scale) * as_float(q);
    }
}

/// Eight 6-bit scales and minima in twelve bytes (Q4_K, Q5_K).
void scale_and_minimum(const Byte* packed, int group, int& scale, int& minimum)
{
    if (group < 4) {
        scale = packed[group] & 63;
        minimum = packed[group + 4] & 63;
    } else {
        scale = (packed[group + 4] & 0xF) | (packed[group - 4] >> 6) << 4;
        minimum = packed[group + 4] >> 4 | (packed[group] >> 6) << 4;
    }
}

void decode_q4_or_q5_k(const Byte* block, float* y, bool five)
{
    const float d = half_at(block);
    const float minimum_scale = half_at(block + 2);
    const Byte* high = block + 16;
    const Byte* low = block + (five ? 48 : 16);
    for (int group = 0; group < 8; ++group) {
        int scale = 0;
        int minimum = 0;
        scale_and_minimum(block + 4, group, scale, minimum);
        const float step = d * as_float(scale);
        const float offset = minimum_scale * as_float(minimum);
        const Byte* codes = low + group / 2 * 32;
        for (int j = 0; j < 32; ++j) {
            const int q4 = codes[j] >> (4 * (group % 2)) & 0xF;
            const int q = five ? q4 | (high[j] >> group & 1) << 4 : q4;
            y[32 * group + j] = step * as_float(q) - offset;
        }
    }
}

void decode_q6_k(const Byte* block, float* y)
{
    const Byte* low = block;
    const Byte* high = block + 128;
    const float d = half_at(block + 208);
    for (int i = 0; i < 256; ++i) {
        const int half = i / 128;
        const int quarter = i % 128 / 32;
        const int q4 = low[half * 64 + quarter % 2 * 32 + i % 32] >> (4 * (quarter / 2)) & 0xF;
        const int q2 = high[half * 32 + i % 32] >> (2 * quarter) & 3;
        const auto scale = static_cast<std::int8_t>(block[192 + i / 16]);
        y[i] = d * as_float(scale) * as_float((q4 | q2 << 4) - 32);
    }
}

void decode_iq4_nl(const Byte* block, float* y)
{
    const float d = half_at(block);
    for (std::size_t j = 0; j < 16; ++j) {
        y[j] = d * k_levels[block[2 + j] & 0xF];
        y[j + 16] = d * k_levels[block[2 + j] >> 4];
    }
}

void decode_iq4_xs(const Byte* block, float* y)
{
    const float d = half_at(block);
    std::uint16_t high = 0;
    std::memcpy(&high, block + 2, sizeof high);
    for (int group = 0; group < 8; ++group) {
        const int low = block[4 + group / 2] >> (4 * (group % 2)) & 0xF;
        const int scale = (low | (high >> (2 * group) & 3) << 4) - 32;
        const float step = d * as_float(scale);
        const Byte* codes = block + 8 + 16 * group;
        for (int j = 0; j < 16; ++j) {
            y[32 * group + j] = step * k_levels[codes[j] & 0xF];
            y[32 * group + j + 16] = step * k_levels[codes[j] >> 4];
        }
    }
}

void decode_block(BlockFormat format, const Byte* block, float* y)
{
    switch (format) {
    case BlockFormat::Q4_0:
        return decode_q4_0(block, y);
    case BlockFormat::Q4_1:
        return decode_q4_1(block, y);
    case BlockFormat::Q5_0:
        return decode_q5_0(block, y);
    case BlockFormat::Q5_1:
        return decode_q5_1(block, y);
    case BlockFormat::Q8_0:
        return decode_q8_0(block, y);
    case BlockFormat::Q2_K:
        return decode_q2_k(block, y);
    case BlockFormat::Q3_K:
        return decode_q3_k(block, y);
    case BlockFormat::Q4_K:
        return decode_q4_or_q5_k(block, y, false);
    case BlockFormat::Q5_K:
        return decode_q4_or_q5_k(block, y, true);
    case BlockFormat::Q6_K:
        return decode_q6_k(block, y);
    case BlockFormat::IQ4_NL:
        return decode_iq4_nl(block, y);
    case BlockFormat::IQ4_XS:
        return decode_iq4_xs(block, y);
    }
}

} // namespace

const BlockLayout* block_layout(std::uint32_t format)
{
    for (const BlockLayout& layout : k_layouts) {
        if (static_cast<std::uint32_t>(layout.format) == format)
            return &layout;
    }
    return nullptr;
}

const BlockLayout* block_layout(std::string_view name)
{
    for (const BlockLayout& layout : k_layouts) {
        if (layout.name == name)
            return &layout;
    }
    return nullptr;
}

void decode_blocks(BlockFormat format, const std::byte* source, std::size_t blocks, float* target)
{
    const BlockLayout& layout = *block_layout(static_cast<std::uint32_t>(format));
    const auto* bytes = reinterpret_cast<const Byte*>(source);
    for (std::size_t i = 0; i < blocks; ++i)
        decode_block(format, bytes + i * layout.bytes, target + i * layout.elements);
}

} // namespace rankscope
