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
    const auto where = [&] {
        return files()[static_cast<std::size_t>(find(name)->file)].string() + ": tensor " + std::string(name);
    };
    const TensorInfo& info = *find(name);
    if (!info.holds_floats())
        return bad_input("this tensor holds " + std::string(info.type_name())
                             + " numbers where floating-point weights were expected",
                         where());
    Matrix matrix = tensor->to_matrix();
    if (auto whole = confirm(name); !whole)
        return whole.error();
    const float* values = matrix.data();
    const float* end = values + matrix.size();
    const float* odd = std::find_if(values, end, [](float value) { return !std::isfinite(value); });
    if (odd != end) {
        const char* what = std::isnan(*odd) ? "not a number (NaN)" : "infinite";
        return bad_input("the value at " + position(tensor->shape, odd - values) + " is " + what, where(),
                         "Download the file again; if it stays so, the model itself is damaged");
    }
    return matrix;
}

} // namespace rankscope
