// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string_view>

namespace rankscope {

/// Counter-based random numbers (Philox-4x32-10, Salmon et al. 2011): value i of a stream depends on the key
/// and i only, so neither order nor thread count matters. Key: the job's seed and a text such as the layer's
/// name.
class RandomStream {
public:
    explicit RandomStream(std::uint64_t seed, std::string_view purpose = {});

    std::uint64_t bits(std::uint64_t index) const;
    double uniform(std::uint64_t index) const; ///< in [0, 1)
    double normal(std::uint64_t index) const;  ///< standard normal (Box–Muller)
    float sign(std::uint64_t index) const;     ///< −1 or +1
    std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;

private:
    std::uint64_t key_;
};

/// 64-bit FNV-1a; stable across platforms, for cache keys and stream names (not for security).
std::uint64_t stable_hash(std::string_view bytes, std::uint64_t start = 0xcbf29ce484222325ULL);

} // namespace rankscope
