// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_writer.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/checkpoint/detail/safetensors_header.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace rankscope {
namespace {

template <class T>
std::vector<std::byte> bytes_of(const T* data, Index count)
{
    std::vector<std::byte> bytes(static_cast<std::size_t>(count) * sizeof(T));
    if (!bytes.empty())
        std::memcpy(bytes.data(), data, bytes.size());
    return bytes;
}

Shape shape_of(Index rows, Index cols) { return {rows, cols}; }

/// Bytes of one tensor, refusing what a reader would refuse.
Result<std::uint64_t> checked_size(const TensorSource& tensor)
{
    if (tensor.name.empty() || tensor.name == "__metadata__")
        return internal_error("a tensor cannot be named \"" + tensor.name + "\"");
    std::int64_t count = 1;
    for (const std::int64_t side : tensor.shape) {
        if (side < 0 || __builtin_mul_overflow(count, side, &count))
            return internal_error("the shape " + to_string(tensor.shape) + " cannot be stored",
                                  "tensor " + tensor.name);
    }
    if (__builtin_mul_overflow(count, static_cast<std::int64_t>(size_bytes(tensor.dtype)), &count))
        return internal_error("the shape " + to_string(tensor.shape) + " cannot be stored",
                              "tensor " + tensor.name);
    return static_cast<std::uint64_t>(count);
}

/// PyTorch views the data in place and wants each tensor at a multiple of its element size: larger elements
/// first keeps that without padding, which the format does not allow.
Status sort_for_alignment(std::vector<TensorSource>& tensors)
{
    std::sort(tensors.begin(), tensors.end(), [](const TensorSource& a, const TensorSource& b) {
        const std::size_t size_a = size_bytes(a.dtype);
        const std::size_t size_b = size_bytes(b.dtype);
        return size_a != size_b ? size_a > size_b : a.name < b.name;
    });
    std::vector<std::string_view> names;
    for (const TensorSource& tensor : tensors)
        names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end())
        return internal_error("two tensors have the same name", "tensor " + std::string(*twice));
    return {};
}

Json::Array json_numbers(std::initializer_list<std::uint64_t> values)
{
    Json::Array array;
    for (const std::uint64_t value : values)
        array.emplace_back(value);
    return array;
}

struct Layout {
    std::string header; ///< length field, JSON, padding
    std::vector<std::uint64_t> sizes;
    std::uint64_t total = 0;
};

Result<Layout> lay_out(const std::vector<TensorSource>& tensors,
                       const std::map<std::string, std::string>& metadata)
{
    Layout layout;
    Json::Object entries;
    std::uint64_t offset = 0;
    for (const TensorSource& tensor : tensors) {
        const auto size = checked_size(tensor);
        if (!size)
            return size.error();
        Json::Array shape;
        for (const std::int64_t side : tensor.shape)
            shape.emplace_back(side);
        Json entry;
        entry.set("dtype", name(tensor.dtype));
        entry.set("shape", std::move(shape));
        entry.set("data_offsets", json_numbers({offset, offset + *size}));
        entries.emplace(tensor.name, std::move(entry));
        layout.sizes.push_back(*size);
        offset += *size;
    }
    if (!metadata.empty()) {
        Json texts;
        for (const auto& [key, value] : metadata)
            texts.set(key, value);
        entries.emplace("__metadata__", std::move(texts));
    }
    std::string json = Json(std::move(entries)).dump();
    json.append((8 - json.size() % 8) % 8, ' ');
    if (json.size() > detail::k_max_safetensors_header)
        return internal_error("the header would have " + std::to_string(json.size())
                              + " bytes, more than the format allows");
    for (std::size_t i = 0; i < 8; ++i)
        layout.header += static_cast<char>(json.size() >> (8 * i) & 0xFFU);
    layout.header += json;
    layout.total = layout.header.size() + offset;
    return layout;
}

Status write_tensor(AtomicFile& file, const TensorSource& tensor, std::uint64_t size)
{
    const auto bytes = tensor.fill();
    if (!bytes)
        return bytes.error().in("tensor " + tensor.name);
    if (bytes->size() != size)
        return internal_error("its data has " + std::to_string(bytes->size())
                                  + " bytes where its shape takes " + std::to_string(size),
                              "tensor " + tensor.name);
    return file.write(bytes->data(), bytes->size());
}

} // namespace

TensorSource tensor_source(std::string name, DType dtype, Shape shape, std::vector<std::byte> bytes)
{
    return {std::move(name), dtype, std::move(shape),
            [bytes = std::move(bytes)]() -> Result<std::vector<std::byte>> { return bytes; }};
}

namespace detail {

TensorSource matrix_source(std::string name, const Matrix& matrix, DType dtype)
{
    const Shape shape = shape_of(matrix.rows(), matrix.cols());
    if (!is_encodable(dtype)) {
        const std::string type(rankscope::name(dtype));
        return {std::move(name), dtype, shape, [type]() -> Result<std::vector<std::byte>> {
                    return internal_error("float values cannot be stored as " + type);
                }};
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(matrix.size()) * size_bytes(dtype));
    encode_from_float(dtype, matrix.data(), static_cast<std::size_t>(matrix.size()), bytes.data());
    return tensor_source(std::move(name), dtype, shape, std::move(bytes));
}

TensorSource matrix_source(std::string name, const MatrixD& matrix)
{
    return tensor_source(std::move(name), DType::F64, shape_of(matrix.rows(), matrix.cols()),
                         bytes_of(matrix.data(), matrix.size()));
}

TensorSource matrix_source(std::string name, const CodeMatrix& codes)
{
    const Shape shape = shape_of(codes.rows(), codes.cols());
    const bool narrow = codes.size() == 0
                        || (codes.minCoeff() >= std::numeric_limits<std::int8_t>::min()
                            && codes.maxCoeff() <= std::numeric_limits<std::int8_t>::max());
    if (!narrow)
        return tensor_source(std::move(name), DType::I16, shape, bytes_of(codes.data(), codes.size()));
    std::vector<std::byte> bytes(static_cast<std::size_t>(codes.size()));
    std::transform(codes.data(), codes.data() + codes.size(), bytes.begin(),
                   [](std::int16_t code) { return static_cast<std::byte>(static_cast<std::int8_t>(code)); });
    return tensor_source(std::move(name), DType::I8, shape, std::move(bytes));
}

} // namespace detail

Status write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                         const std::map<std::string, std::string>& metadata, bool replace)
{
    if (auto sorted = sort_for_alignment(tensors); !sorted)
        return sorted.error().in(path.string());
    const auto layout = lay_out(tensors, metadata);
    if (!layout)
        return layout.error().in(path.string());
    auto file = AtomicFile::create(path, replace);
    if (!file)
        return file.error();
    if (auto room = require_free_disk(path.has_parent_path() ? path.parent_path() : ".", layout->total);
        !room)
        return room;
    if (auto written = file->write(layout->header); !written)
        return written;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (auto written = write_tensor(*file, tensors[i], layout->sizes[i]); !written)
            return written.error().where == path.string() ? written
                                                          : Status(written.error().in(path.string()));
        tensors[i].fill = nullptr; // frees what the source owned
    }
    return file->commit();
}

} // namespace rankscope
