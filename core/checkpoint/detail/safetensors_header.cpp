// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/detail/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

namespace rankscope::detail {
namespace {

constexpr std::size_t k_max_name = 1024;
constexpr std::size_t k_max_rank = 16;

std::string number(std::uint64_t value) { return std::to_string(value); }

/// A name as it may appear in a message: shortened, without control characters.
std::string printable(std::string_view name)
{
    std::string text;
    for (const char c : name.substr(0, 80))
        text += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
    return name.size() > 80 ? text + "…" : text;
}

std::uint64_t read_length(std::span<const std::byte> file)
{
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i)
        value |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
    return value;
}

Status check_name(std::string_view name)
{
    if (name.empty())
        return bad_input("a tensor has an empty name");
    if (name.size() > k_max_name)
        return bad_input("a tensor's name has " + number(name.size()) + " bytes, more than the "
                         + number(k_max_name) + " that are accepted (\"" + printable(name) + "\")");
    const bool control = std::any_of(
        name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
    if (control)
        return bad_input("a tensor's name holds control characters (\"" + printable(name) + "\")");
    return {};
}

Result<Shape> parse_shape(const Json& entry)
{
    const auto* sides = entry["shape"].array_if();
    if (!sides)
        return bad_input("\"shape\" is missing or no list");
    if (sides->size() > k_max_rank)
        return bad_input("the shape has " + number(sides->size()) + " dimensions, more than the "
                         + number(k_max_rank) + " that are accepted");
    Shape shape;
    for (const Json& side : *sides) {
        if (!side.is_integer())
            return bad_input("the shape holds something that is no whole number");
        if (side.integer() < 0)
            return bad_input("the shape holds the negative side " + std::to_string(side.integer()));
        shape.push_back(side.integer());
    }
    return shape;
}

/// The bytes that a tensor of this shape takes, or nothing where the product does not fit 63 bits.
std::optional<std::uint64_t> byte_count(const Shape& shape, DType dtype)
{
    std::int64_t count = 1;
    for (const std::int64_t side : shape) {
        if (__builtin_mul_overflow(count, side, &count))
            return std::nullopt;
    }
    if (__builtin_mul_overflow(count, static_cast<std::int64_t>(size_bytes(dtype)), &count))
        return std::nullopt;
    return static_cast<std::uint64_t>(count);
}

Result<std::uint64_t> parse_offset(const Json& value)
{
    if (!value.is_integer() || value.integer() < 0)
        return bad_input("\"data_offsets\" must hold two whole numbers that are not negative");
    return static_cast<std::uint64_t>(value.integer());
}

/// One entry; `data_size` is what follows the header. Offsets of the result still count from the end of the
/// header.
Result<TensorInfo> parse_tensor(const std::string& name, const Json& entry, std::uint64_t data_size)
{
    if (!entry.is_object())
        return bad_input("its entry in the header is no object");
    TensorInfo info;
    info.name = name;
    const std::string* type = entry["dtype"].string_if();
    if (!type)
        return bad_input("\"dtype\" is missing or no text");
    const auto dtype = dtype_from_name(*type);
    if (!dtype)
        return bad_input("the element type \"" + printable(*type) + "\" is not known", {},
                         "Convert the tensor to F32, F16 or BF16");
    info.dtype = *dtype;
    auto shape = parse_shape(entry);
    if (!shape)
        return shape.error();
    info.shape = std::move(*shape);

    const auto* offsets = entry["data_offsets"].array_if();
    if (!offsets || offsets->size() != 2)
        return bad_input("\"data_offsets\" is missing or not a pair");
    const auto begin = parse_offset((*offsets)[0]);
    const auto end = parse_offset((*offsets)[1]);
    if (!begin)
        return begin.error();
    if (!end)
        return end.error();
    if (*begin > *end)
        return bad_input("its data ends at byte " + number(*end) + " before it begins at " + number(*begin));
    if (*end > data_size)
        return bad_input("its data ends at byte " + number(*end) + " but the file holds only "
                             + number(data_size) + " bytes of data",
                         {}, "The file is cut short or damaged: download it again");
    const auto expected = byte_count(info.shape, info.dtype);
    if (!expected)
        return bad_input("the shape " + to_string(info.shape) + " has more elements than can be counted");
    if (*end - *begin != *expected)
        return bad_input("its data has " + number(*end - *begin) + " bytes, but "
                         + std::string(rankscope::name(info.dtype)) + " " + to_string(info.shape) + " takes "
                         + number(*expected));
    info.offset = *begin;
    info.bytes = *expected;
    return info;
}

/// Every byte of the data belongs to exactly one tensor.
Status check_coverage(const std::vector<TensorInfo>& tensors, std::uint64_t data_size)
{
    std::vector<const TensorInfo*> order;
    for (const TensorInfo& tensor : tensors)
        order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
        return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes;
    });
    std::uint64_t reached = 0;
    const TensorInfo* before = nullptr;
    for (const TensorInfo* tensor : order) {
        if (tensor->offset < reached)
            return bad_input("its data begins at byte " + number(tensor->offset) + " inside that of \""
                                 + printable(before->name) + "\", which ends at " + number(reached),
                             "tensor " + printable(tensor->name));
        if (tensor->offset > reached)
            return bad_input("there is a hole of " + number(tensor->offset - reached)
                                 + " bytes before its data at byte " + number(tensor->offset),
                             "tensor " + printable(tensor->name));
        reached = tensor->offset + tensor->bytes;
        before = tensor;
    }
    if (reached != data_size)
        return bad_input("the tensors end at byte " + number(reached) + " of the data, but "
                         + number(data_size - reached) + " bytes follow that belong to none");
    return {};
}

Status check_metadata(const Json& metadata)
{
    const auto* members = metadata.object_if();
    if (!members)
        return bad_input("\"__metadata__\" is no object");
    for (const auto& [key, value] : *members) {
        if (!value.is_string())
            return bad_input("\"__metadata__\" holds \"" + printable(key) + "\", which is no text");
    }
    return {};
}

/// The length field, checked; the JSON text begins at byte 8.
Result<std::size_t> header_size(std::span<const std::byte> file)
{
    if (file.empty())
        return bad_input("the file is empty", {}, "Download it again");
    if (file.size() < 8)
        return bad_input("the file has " + number(file.size())
                         + " bytes, too few for the 8-byte header length");
    const std::uint64_t length = read_length(file);
    if (length < 2)
        return bad_input("the header length is " + number(length) + ", but a header has at least 2 bytes");
    if (length > k_max_safetensors_header)
        return bad_input("the header length is " + number(length) + " bytes, more than the "
                         + number(k_max_safetensors_header) + " that the format allows");
    if (length > file.size() - 8)
        return bad_input("the header is said to have " + number(length) + " bytes, but only "
                             + number(file.size() - 8) + " follow",
                         {}, "The file is cut short or damaged: download it again");
    return static_cast<std::size_t>(length);
}

} // namespace

Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file)
{
    const auto length = header_size(file);
    if (!length)
        return length.error();
    const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
    const std::string_view text = all.substr(8, *length);
    if (text.front() != '{')
        return bad_input("the header does not begin with \"{\"", "byte 8", "This is no safetensors file");
    auto json = Json::parse(text, JsonLimits{k_max_safetensors_header, 8});
    if (!json)
        return json.error().in("header");

    SafetensorsHeader header;
    header.bytes = all.substr(0, 8 + *length);
    const std::uint64_t data_start = header.bytes.size();
    const std::uint64_t data_size = file.size() - data_start;
    for (const auto& [name, entry] : *json->object_if()) {
        if (name == "__metadata__") {
            if (auto checked = check_metadata(entry); !checked)
                return checked.error();
            header.metadata = entry;
            continue;
        }
        if (auto checked = check_name(name); !checked)
            return checked.error();
        auto tensor = parse_tensor(name, entry, data_size);
        if (!tensor)
            return tensor.error().in("tensor " + printable(name));
        header.tensors.push_back(std::move(*tensor));
    }
    if (auto covered = check_coverage(header.tensors, data_size); !covered)
        return covered.error();
    for (TensorInfo& tensor : header.tensors)
        tensor.offset += data_start;
    return header;
}

} // namespace rankscope::detail
