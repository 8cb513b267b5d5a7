// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace rankscope::test {

/// Writes GGUF bytes field by field, so that a test can break any one of them.
class GgufBuilder {
public:
    template <class T>
    GgufBuilder& number(T value)
    {
        bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
        return *this;
    }
    GgufBuilder& u32(std::uint32_t value) { return number(value); }
    GgufBuilder& u64(std::uint64_t value) { return number(value); }
    GgufBuilder& text(const std::string& value) { return u64(value.size()).raw(value); }
    GgufBuilder& raw(const std::string& value)
    {
        bytes += value;
        return *this;
    }
    GgufBuilder& start(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3)
    {
        return raw("GGUF").u32(version).u64(tensors).u64(keys);
    }
    GgufBuilder& key(const std::string& name, std::uint32_t type) { return text(name).u32(type); }
    GgufBuilder& tensor(const std::string& name, const std::vector<std::uint64_t>& fastest_first,
                        std::uint32_t type, std::uint64_t offset)
    {
        text(name).u32(static_cast<std::uint32_t>(fastest_first.size()));
        for (const std::uint64_t side : fastest_first)
            u64(side);
        return u32(type).u64(offset);
    }
    GgufBuilder& pad(std::size_t alignment = 32)
    {
        bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
        return *this;
    }

    std::string bytes;
};

} // namespace rankscope::test
