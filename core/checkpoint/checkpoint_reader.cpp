// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_reader.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace rankscope {
namespace {

/// "[3, 17]" for row-major element `index` of a tensor of this shape.
std::string position(const Shape& shape, std::int64_t index)
{
    Shape place(shape.size());
    for (std::size_t i = shape.size(); i-- > 0;) {
        place[i] = index % shape[i];
        index /= shape[i];
    }
    return to_string(place);
}

std::string place_of(const CheckpointReader& reader, const TensorInfo& tensor)
{
    return reader.files()[static_cast<std::size_t>(tensor.file)].string() + ": tensor " + tensor.name;
}

} // namespace

const TensorInfo* CheckpointReader::find(std::string_view name) const
{
    const auto all = tensors();
    const auto found =
        std::lower_bound(all.begin(), all.end(), name,
                         [](const TensorInfo& tensor, std::string_view key) { return tensor.name < key; });
    return found != all.end() && found->name == name ? &*found : nullptr;
}

Status CheckpointReader::confirm(std::string_view name) const
{
    const auto again = view(name);
    return again ? Status{} : Status(again.error());
}

void CheckpointReader::release(std::string_view name) const
{
    const auto tensor = view(name);
    if (!tensor || tensor->bytes.empty())
        return;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(tensor->bytes.data()) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(tensor->bytes.data()) + tensor->bytes.size();
    // A mapping of a file that nobody writes: what is dropped is read again when it is touched.
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<Matrix> CheckpointReader::read(std::string_view name) const
{
    const auto tensor = view(name);
    if (!tensor)
        return tensor.error();
    const TensorInfo& info = *find(name);
    if (auto floats = require_floats(info); !floats)
        return floats.error();
    Matrix matrix = tensor->to_matrix();
    if (auto whole = confirm(name); !whole)
        return whole.error();
    const float* values = matrix.data();
    const float* end = values + matrix.size();
    const float* odd = std::find_if(values, end, [](float value) { return !std::isfinite(value); });
    if (odd != end) {
        const char* what = std::isnan(*odd) ? "not a number (NaN)" : "infinite";
        return bad_input("the value at " + position(tensor->shape, odd - values) + " is " + what,
                         place_of(*this, info),
                         "Download the file again; if it stays so, the model itself is damaged");
    }
    return matrix;
}

Result<RowSource> CheckpointReader::rows(std::string_view name) const
{
    const auto tensor = view(name);
    if (!tensor)
        return tensor.error();
    if (auto floats = require_floats(*find(name)); !floats)
        return floats.error();
    if (tensor->shape.size() != 2)
        return rows_of(read(name));
    return RowSource{tensor->shape[0], tensor->shape[1],
                     [stored = *tensor](std::int64_t row, float* values) { stored.decode_row(row, values); }};
}

Result<RowSource> CheckpointReader::rows_of(Result<Matrix> whole)
{
    if (!whole)
        return whole.error();
    const auto matrix = std::make_shared<const Matrix>(std::move(*whole));
    return RowSource{matrix->rows(), matrix->cols(), [matrix](std::int64_t row, float* values) {
                         std::copy_n(matrix->data() + row * matrix->cols(), matrix->cols(), values);
                     }};
}

Status CheckpointReader::require_floats(const TensorInfo& tensor) const
{
    if (tensor.holds_floats())
        return {};
    return bad_input("this tensor holds " + std::string(tensor.type_name())
                         + " numbers where floating-point weights were expected",
                     place_of(*this, tensor));
}

} // namespace rankscope
