// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/rotation_tables.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace rankscope::detail {
namespace {

template <class T>
RotationTable<T> computed(const RopeShape& shape)
{
    const auto pairs = static_cast<Index>(shape.inverse_frequency.size());
    RotationTable<T> table{RowMajor<T>(shape.sequence_length, pairs),
                           RowMajor<T>(shape.sequence_length, pairs)};
    for (Index position = 0; position < shape.sequence_length; ++position) {
        for (Index i = 0; i < pairs; ++i) {
            const double angle =
                static_cast<double>(position) * shape.inverse_frequency[static_cast<std::size_t>(i)];
            table.cosine(position, i) = static_cast<T>(shape.attention_factor * std::cos(angle));
            table.sine(position, i) = static_cast<T>(shape.attention_factor * std::sin(angle));
        }
    }
    return table;
}

} // namespace

template <class T>
std::shared_ptr<const RotationTable<T>> RotationTables::of(const RopeShape& shape)
{
    const std::lock_guard lock(mutex_);
    Last<T>* last = nullptr;
    if constexpr (std::is_same_v<T, float>)
        last = &single_;
    else
        last = &twice_;
    const bool fits = last->table && last->table->cosine.rows() >= shape.sequence_length
                      && last->attention_factor == shape.attention_factor
                      && std::ranges::equal(last->inverse_frequency, shape.inverse_frequency);
    if (!fits)
        *last = {{shape.inverse_frequency.begin(), shape.inverse_frequency.end()},
                 shape.attention_factor,
                 std::make_shared<const RotationTable<T>>(computed<T>(shape))};
    return last->table;
}

template std::shared_ptr<const RotationTable<float>> RotationTables::of(const RopeShape&);
template std::shared_ptr<const RotationTable<double>> RotationTables::of(const RopeShape&);

} // namespace rankscope::detail
