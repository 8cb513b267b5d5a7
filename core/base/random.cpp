// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/random.h"

#include <array>
#include <cmath>
#include <numbers>

namespace rankscope {
namespace {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key)
{
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

} // namespace

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose)
    : key_(stable_hash(purpose, 0xcbf29ce484222325ULL ^ (seed * 0x9E3779B97F4A7C15ULL)))
{}

std::uint64_t RandomStream::bits(std::uint64_t index) const
{
    const auto out =
        philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), 0, 0},
               {static_cast<std::uint32_t>(key_), static_cast<std::uint32_t>(key_ >> 32)});
    return std::uint64_t{out[0]} << 32 | out[1];
}

double RandomStream::uniform(std::uint64_t index) const
{
    return static_cast<double>(bits(index) >> 11) * 0x1.0p-53;
}

double RandomStream::normal(std::uint64_t index) const
{
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(2 * index)));
    return radius * std::cos(2.0 * std::numbers::pi * uniform(2 * index + 1));
}

float RandomStream::sign(std::uint64_t index) const { return (bits(index) & 1U) != 0 ? 1.0F : -1.0F; }

std::uint64_t RandomStream::below(std::uint64_t index, std::uint64_t bound) const
{
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Wide>(bits(index)) * bound >> 64);
}

std::uint64_t stable_hash(std::string_view bytes, std::uint64_t start)
{
    std::uint64_t hash = start;
    for (const char byte : bytes) {
        hash ^= static_cast<unsigned char>(byte);
        hash *= 0x100000001b3ULL;
    }
    return hash;
}

} // namespace rankscope
