// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace rankscope {

/// SHA-256 (FIPS 180-4) of bytes that arrive in pieces. Names files and texts; used for identity, not for
/// secrets.
class Sha256 {
public:
    Sha256();
    void update(const void* data, std::size_t size_bytes);
    void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
    /// 64 lower-case hexadecimal digits of everything so far; update() must not follow.
    std::string finish_hex();

private:
    void take_block(const unsigned char* block);

    std::array<std::uint32_t, 8> state_;
    std::array<unsigned char, 64> pending_{};
    std::uint64_t length_ = 0;
};

std::string sha256_hex(std::string_view bytes);
/// Reads the file in blocks. Errors: Io.
Result<std::string> sha256_file(const std::filesystem::path& path);

} // namespace rankscope
