// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/gguf_writer.h"

#include "core/base/atomic_file.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr std::uint32_t k_version = 3;
constexpr std::uint32_t k_list = 9; ///< the type of a list
constexpr std::uint64_t k_alignment = 32;
constexpr char k_first_key[] = "general.architecture";

/// The front of a file, little-endian.
class Header {
public:
    template <class T>
    void number(T value)
    {
        for (std::size_t i = 0; i < sizeof(T); ++i)
            bytes_ += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFFU);
    }
    void text(std::string_view value)
    {
        number(std::uint64_t{value.size()});
        bytes_ += value;
    }
    void pad() { bytes_.append((k_alignment - bytes_.size() % k_alignment) % k_alignment, '\0'); }
    /// False: the value is not of that type.
    bool value(GgufType type, const Json& value);
    const std::string& bytes() const { return bytes_; }

private:
    std::string bytes_ = "GGUF";
};

bool Header::value(GgufType type, const Json& value)
{
    const std::int64_t whole = value.integer();
    switch (type) {
    case GgufType::U32:
        number(static_cast<std::uint32_t>(whole));
        return value.is_integer() && whole >= 0 && whole <= std::numeric_limits<std::uint32_t>::max();
    case GgufType::I32:
        number(static_cast<std::uint32_t>(whole));
        return value.is_integer() && whole == static_cast<std::int32_t>(whole);
    case GgufType::F32:
        number(std::bit_cast<std::uint32_t>(static_cast<float>(value.number())));
        return value.is_number();
    case GgufType::Flag:
        number(static_cast<std::uint8_t>(value.boolean() ? 1 : 0));
        return value.is_bool();
    case GgufType::Text:
        text(value.string());
        return value.is_string();
    }
    return false;
}

bool add_value(Header& header, const GgufValue& entry)
{
    const Json::Array* list = entry.value.array_if();
    if (!list) {
        header.number(static_cast<std::uint32_t>(entry.type));
        return header.value(entry.type, entry.value);
    }
    header.number(k_list);
    header.number(static_cast<std::uint32_t>(entry.type));
    header.number(std::uint64_t{list->size()});
    bool right = true;
    for (const Json& one : *list)
        right = header.value(entry.type, one) && right;
    return right;
}

Status add_metadata(Header& header, const GgufValues& metadata)
{
    const auto add = [&](const std::string& key, const GgufValue& value) -> Status {
        header.text(key);
        if (add_value(header, value))
            return {};
        return internal_error("its value is not of the type that it is to be written as", "key " + key);
    };
    const auto first = metadata.find(k_first_key);
    if (first == metadata.end())
        return internal_error("a GGUF file needs an architecture", k_first_key);
    if (auto added = add(first->first, first->second); !added)
        return added;
    for (const auto& [key, value] : metadata) {
        if (key == k_first_key)
            continue;
        if (auto added = add(key, value); !added)
            return added;
    }
    return {};
}

std::uint64_t aligned(std::uint64_t size) { return (size + k_alignment - 1) / k_alignment * k_alignment; }

/// GGUF lists dimensions fastest first.
Status add_tensors(Header& header, const std::vector<GgufTensorSource>& tensors)
{
    std::uint64_t offset = 0;
    for (const GgufTensorSource& tensor : tensors) {
        const std::int64_t row = tensor.shape.empty() ? 0 : tensor.shape.back();
        if (tensor.shape.empty() || tensor.shape.size() > 4
            || row % static_cast<std::int64_t>(tensor.storage.elements) != 0)
            return internal_error("the shape " + to_string(tensor.shape) + " cannot be stored as "
                                      + std::string(tensor.storage.name),
                                  "tensor " + tensor.name);
        header.text(tensor.name);
        header.number(static_cast<std::uint32_t>(tensor.shape.size()));
        for (auto side = tensor.shape.rbegin(); side != tensor.shape.rend(); ++side)
            header.number(static_cast<std::uint64_t>(*side));
        header.number(tensor.storage.number);
        header.number(offset);
        offset += aligned(tensor.storage.size(tensor.shape));
    }
    header.pad();
    return {};
}

Status write_tensor(AtomicFile& file, const GgufTensorSource& tensor)
{
    const auto bytes = tensor.fill();
    if (!bytes)
        return bytes.error().in("tensor " + tensor.name);
    const std::uint64_t size = tensor.storage.size(tensor.shape);
    if (bytes->size() != size)
        return internal_error("its data has " + std::to_string(bytes->size())
                                  + " bytes where its shape takes " + std::to_string(size),
                              "tensor " + tensor.name);
    if (auto written = file.write(bytes->data(), bytes->size()); !written)
        return written;
    const std::string padding(static_cast<std::size_t>(aligned(size) - size), '\0');
    return file.write(padding);
}

} // namespace

GgufStorage GgufStorage::of(DType dtype)
{
    switch (dtype) {
    case DType::F16:
        return {1, "F16", 1, 2};
    case DType::BF16:
        return {30, "BF16", 1, 2};
    default:
        assert(dtype == DType::F32);
        return {0, "F32", 1, 4};
    }
}

GgufStorage GgufStorage::of(BlockFormat format)
{
    const BlockLayout* layout = block_layout(static_cast<std::uint32_t>(format));
    return {static_cast<std::uint32_t>(format), layout->name, layout->elements, layout->bytes};
}

std::uint64_t GgufStorage::size(const Shape& shape) const
{
    std::uint64_t count = 1;
    for (const std::int64_t side : shape)
        count *= static_cast<std::uint64_t>(side);
    return count / elements * bytes;
}

Status write_gguf(const std::filesystem::path& path, const GgufValues& metadata,
                  const std::vector<GgufTensorSource>& tensors, bool replace)
{
    Header header;
    header.number(k_version);
    header.number(std::uint64_t{tensors.size()});
    header.number(std::uint64_t{metadata.size()});
    if (auto added = add_metadata(header, metadata); !added)
        return added.error().in(path.string());
    if (auto added = add_tensors(header, tensors); !added)
        return added.error().in(path.string());
    std::uint64_t total = header.bytes().size();
    for (const GgufTensorSource& tensor : tensors)
        total += aligned(tensor.storage.size(tensor.shape));
    auto file = AtomicFile::create(path, replace);
    if (!file)
        return file.error();
    if (auto room = require_free_disk(path.has_parent_path() ? path.parent_path() : ".", total); !room)
        return room;
    if (auto written = file->write(header.bytes()); !written)
        return written;
    for (const GgufTensorSource& tensor : tensors) {
        if (auto written = write_tensor(*file, tensor); !written)
            return written.error().where == path.string() ? written
                                                          : Status(written.error().in(path.string()));
    }
    return file->commit();
}

} // namespace rankscope
