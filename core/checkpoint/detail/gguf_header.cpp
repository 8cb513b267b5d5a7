// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/detail/gguf_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

namespace rankscope::detail {
namespace {

constexpr std::uint64_t k_max_key = 65'535;
constexpr std::uint64_t k_max_string = std::uint64_t{16} << 20;
constexpr std::uint64_t k_max_name = 1024;
constexpr std::uint32_t k_max_rank = 8;
constexpr std::uint64_t k_max_alignment = 1 << 20;
constexpr int k_max_array_depth = 4;

/// Value types by their number in the file.
enum class Type : std::uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 };
constexpr std::uint32_t k_types = 13;

/// Least bytes that one value takes: an honest count of an array can never ask for more.
constexpr std::uint64_t least_bytes(Type type)
{
    switch (type) {
    case Type::U8:
    case Type::I8:
    case Type::Bool:
        return 1;
    case Type::U16:
    case Type::I16:
        return 2;
    case Type::U32:
    case Type::I32:
    case Type::F32:
        return 4;
    case Type::Array:
        return 12;
    default:
        return 8;
    }
}

bool valid_utf8(std::string_view text)
{
    std::size_t i = 0;
    while (i < text.size()) {
        const auto lead = static_cast<unsigned char>(text[i]);
        const std::size_t length = lead < 0x80       ? 1
                                   : lead >> 5 == 6  ? 2
                                   : lead >> 4 == 14 ? 3
                                   : lead >> 3 == 30 ? 4
                                                     : 0;
        if (length == 0 || i + length > text.size())
            return false;
        for (std::size_t k = 1; k < length; ++k) {
            if ((static_cast<unsigned char>(text[i + k]) & 0xC0U) != 0x80U)
                return false;
        }
        i += length;
    }
    return true;
}

bool plain_name(std::string_view name)
{
    return !name.empty() && valid_utf8(name) && std::none_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    });
}

/// Reads little-endian values and never beyond the end; the first failure is kept.
class Cursor {
public:
    explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::size_t position() const { return position_; }
    std::uint64_t left() const { return bytes_.size() - position_; }
    bool failed() const { return failed_; }
    const Error& error() const { return error_; }

    void fail(const std::string& message)
    {
        if (!failed_)
            error_ = bad_input(message + " (at byte " + std::to_string(position_) + ")");
        failed_ = true;
    }

    template <class T>
    T value(const char* what)
    {
        T result{};
        if (failed_ || left() < sizeof(T)) {
            fail(std::string("the file ends inside ") + what);
            return result;
        }
        std::memcpy(&result, bytes_.data() + position_, sizeof(T));
        position_ += sizeof(T);
        return result;
    }

    std::string string(const char* what, std::uint64_t limit)
    {
        const auto length = value<std::uint64_t>(what);
        if (!failed_ && length > limit)
            fail(std::string(what) + " claims " + std::to_string(length) + " bytes, more than the "
                 + std::to_string(limit) + " that are accepted");
        if (!failed_ && length > left())
            fail(std::string(what) + " claims " + std::to_string(length) + " bytes, the file has "
                 + std::to_string(left()) + " left");
        if (failed_)
            return {};
        std::string text(reinterpret_cast<const char*>(bytes_.data() + position_), length);
        position_ += length;
        return text;
    }

private:
    std::span<const std::byte> bytes_;
    std::size_t position_ = 0;
    bool failed_ = false;
    Error error_;
};

Json read_value(Cursor& cursor, Type type, int depth);

Json read_array(Cursor& cursor, int depth)
{
    const auto number = cursor.value<std::uint32_t>("an array's type");
    const auto count = cursor.value<std::uint64_t>("an array's length");
    if (!cursor.failed() && number >= k_types)
        cursor.fail("an array has the unknown element type " + std::to_string(number));
    if (!cursor.failed() && depth >= k_max_array_depth)
        cursor.fail("arrays are nested deeper than " + std::to_string(k_max_array_depth) + " levels");
    const Type type = static_cast<Type>(number);
    if (!cursor.failed() && count > cursor.left() / least_bytes(type))
        cursor.fail("an array claims " + std::to_string(count)
                    + " elements, more than the rest of the file can hold");
    Json::Array values;
    if (cursor.failed())
        return values;
    values.reserve(count);
    for (std::uint64_t i = 0; i < count && !cursor.failed(); ++i)
        values.push_back(read_value(cursor, type, depth + 1));
    return values;
}

Json read_value(Cursor& cursor, Type type, int depth)
{
    constexpr char k_what[] = "a metadata value";
    switch (type) {
    case Type::U8:
        return std::int64_t{cursor.value<std::uint8_t>(k_what)};
    case Type::I8:
        return std::int64_t{cursor.value<std::int8_t>(k_what)};
    case Type::U16:
        return std::int64_t{cursor.value<std::uint16_t>(k_what)};
    case Type::I16:
        return std::int64_t{cursor.value<std::int16_t>(k_what)};
    case Type::U32:
        return std::int64_t{cursor.value<std::uint32_t>(k_what)};
    case Type::I32:
        return std::int64_t{cursor.value<std::int32_t>(k_what)};
    case Type::U64:
        return cursor.value<std::uint64_t>(k_what);
    case Type::I64:
        return cursor.value<std::int64_t>(k_what);
    case Type::F32:
        return static_cast<double>(cursor.value<float>(k_what));
    case Type::F64:
        return cursor.value<double>(k_what);
    case Type::String:
        return cursor.string("a metadata string", k_max_string);
    case Type::Array:
        return read_array(cursor, depth);
    case Type::Bool:
        break;
    }
    const auto flag = cursor.value<std::uint8_t>(k_what);
    if (flag > 1)
        cursor.fail("a truth value is " + std::to_string(flag) + " instead of 0 or 1");
    return flag != 0;
}

Status read_metadata(Cursor& cursor, std::uint64_t count, Json& metadata)
{
    metadata = Json::Object{};
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::string key = cursor.string("a metadata key", k_max_key);
        if (!cursor.failed() && !plain_name(key))
            cursor.fail("a metadata key is empty or no plain text");
        if (!cursor.failed() && metadata.find(key))
            cursor.fail("the metadata key \"" + key + "\" appears twice");
        const auto type = cursor.value<std::uint32_t>("a metadata type");
        if (!cursor.failed() && type >= k_types)
            cursor.fail("the metadata key \"" + key + "\" has the unknown type " + std::to_string(type));
        if (cursor.failed())
            return cursor.error();
        Json value = read_value(cursor, static_cast<Type>(type), 0);
        if (cursor.failed())
            return cursor.error().in("metadata key " + key);
        metadata.set(key, std::move(value));
    }
    return {};
}

/// Element types that are not blocks.
std::optional<DType> plain_type(std::uint32_t number)
{
    switch (number) {
    case 0:
        return DType::F32;
    case 1:
        return DType::F16;
    case 24:
        return DType::I8;
    case 25:
        return DType::I16;
    case 26:
        return DType::I32;
    case 27:
        return DType::I64;
    case 28:
        return DType::F64;
    case 30:
        return DType::BF16;
    default:
        return std::nullopt;
    }
}

/// Fills dtype or block and bytes from the type number and the shape; overflow and partial blocks are
/// refused.
void set_type(Cursor& cursor, TensorInfo& tensor, std::uint32_t number)
{
    std::uint64_t elements = 1;
    for (const std::int64_t side : tensor.shape) {
        const auto length = static_cast<std::uint64_t>(side);
        if (length != 0 && elements > (std::uint64_t{1} << 48) / length)
            return cursor.fail("tensor " + tensor.name + " claims more than 2^48 elements");
        elements *= length;
    }
    if (const auto dtype = plain_type(number)) {
        tensor.dtype = *dtype;
        tensor.bytes = elements * size_bytes(*dtype);
        return;
    }
    tensor.block = block_layout(number);
    if (!tensor.block)
        return cursor.fail("tensor " + tensor.name + " has the type number " + std::to_string(number)
                           + ", which is not read");
    const std::uint64_t row = tensor.shape.empty() ? 1 : static_cast<std::uint64_t>(tensor.shape.back());
    if (row % tensor.block->elements != 0)
        return cursor.fail("tensor " + tensor.name + " has rows of " + std::to_string(row)
                           + ", no whole blocks of " + std::to_string(tensor.block->elements));
    tensor.bytes = elements / tensor.block->elements * tensor.block->bytes;
}

Result<TensorInfo> read_tensor(Cursor& cursor)
{
    TensorInfo tensor;
    tensor.name = cursor.string("a tensor's name", k_max_name);
    if (!cursor.failed() && !plain_name(tensor.name))
        cursor.fail("a tensor's name is empty or no plain text");
    const auto rank = cursor.value<std::uint32_t>("a tensor's rank");
    if (!cursor.failed() && rank > k_max_rank)
        cursor.fail("tensor " + tensor.name + " has " + std::to_string(rank) + " dimensions");
    for (std::uint32_t i = 0; i < rank && !cursor.failed(); ++i) {
        const auto side = cursor.value<std::uint64_t>("a tensor's shape");
        if (side > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
            cursor.fail("tensor " + tensor.name + " has a dimension of " + std::to_string(side));
        tensor.shape.insert(tensor.shape.begin(),
                            static_cast<std::int64_t>(side)); // the file lists the fastest first
    }
    const auto type = cursor.value<std::uint32_t>("a tensor's type");
    if (!cursor.failed())
        set_type(cursor, tensor, type);
    tensor.offset = cursor.value<std::uint64_t>("a tensor's offset");
    if (cursor.failed())
        return cursor.error();
    return tensor;
}

/// Turns offsets into absolute ones and checks each against the file and its neighbours.
Status place_tensors(std::vector<TensorInfo>& tensors, std::uint64_t data_start, std::uint64_t alignment,
                     std::uint64_t file_bytes)
{
    const std::uint64_t data_bytes = file_bytes - std::min(file_bytes, data_start);
    for (TensorInfo& tensor : tensors) {
        if (tensor.offset % alignment != 0)
            return bad_input("the offset " + std::to_string(tensor.offset)
                                 + " is no multiple of the alignment " + std::to_string(alignment),
                             "tensor " + tensor.name);
        if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset)
            return bad_input("it needs " + std::to_string(tensor.bytes) + " bytes from offset "
                                 + std::to_string(tensor.offset) + " of the data, the file has "
                                 + std::to_string(data_bytes),
                             "tensor " + tensor.name, "The file is incomplete: download it again");
        // The data of empty tensors may begin behind the end of a file that has nothing but them.
        tensor.offset = std::min(tensor.offset + data_start, file_bytes);
    }
    std::vector<const TensorInfo*> by_offset;
    for (const TensorInfo& tensor : tensors) {
        if (tensor.bytes > 0)
            by_offset.push_back(&tensor);
    }
    std::sort(by_offset.begin(), by_offset.end(),
              [](const auto* a, const auto* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < by_offset.size(); ++i) {
        if (by_offset[i - 1]->offset + by_offset[i - 1]->bytes > by_offset[i]->offset)
            return bad_input("it overlaps tensor " + by_offset[i - 1]->name, "tensor " + by_offset[i]->name);
    }
    return {};
}

Result<std::uint64_t> read_alignment(const Json& metadata)
{
    const Json* value = metadata.find("general.alignment");
    if (!value)
        return std::uint64_t{32};
    const auto alignment = static_cast<std::uint64_t>(std::max<std::int64_t>(0, value->integer(0)));
    if (!std::has_single_bit(alignment) || alignment > k_max_alignment)
        return bad_input("general.alignment is no power of two up to 2^20");
    return alignment;
}

} // namespace

Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file)
{
    Cursor cursor(file);
    const auto magic = cursor.value<std::uint32_t>("the magic word");
    if (!cursor.failed() && magic != 0x46554747U)
        cursor.fail("the file does not begin with GGUF");
    const auto version = cursor.value<std::uint32_t>("the version");
    if (!cursor.failed() && (version < 2 || version > 3))
        cursor.fail("this is GGUF version " + std::to_string(version) + ", versions 2 and 3 are read");
    const auto tensor_count = cursor.value<std::uint64_t>("the tensor count");
    const auto key_count = cursor.value<std::uint64_t>("the metadata count");
    // A key takes at least 8 + 1 + 4 + 1 bytes, a tensor 8 + 1 + 4 + 4 + 8.
    if (!cursor.failed() && key_count > cursor.left() / 14)
        cursor.fail("it claims " + std::to_string(key_count) + " metadata keys, more than the file can hold");
    if (!cursor.failed() && tensor_count > cursor.left() / 25)
        cursor.fail("it claims " + std::to_string(tensor_count) + " tensors, more than the file can hold");
    if (cursor.failed())
        return cursor.error();

    GgufHeader header;
    if (auto read = read_metadata(cursor, key_count, header.metadata); !read)
        return read.error();
    std::set<std::string> names;
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
        auto tensor = read_tensor(cursor);
        if (!tensor)
            return tensor.error();
        if (!names.insert(tensor->name).second)
            return bad_input("the tensor appears twice", "tensor " + tensor->name);
        header.tensors.push_back(std::move(*tensor));
    }
    header.header_bytes = cursor.position();
    const auto alignment = read_alignment(header.metadata);
    if (!alignment)
        return alignment.error();
    const std::uint64_t data_start = (header.header_bytes + *alignment - 1) / *alignment * *alignment;
    if (auto placed = place_tensors(header.tensors, data_start, *alignment, file.size()); !placed)
        return placed.error();
    std::sort(header.tensors.begin(), header.tensors.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    return header;
}

} // namespace rankscope::detail
