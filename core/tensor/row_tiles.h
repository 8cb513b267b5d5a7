// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/thread_pool.h"
#include "core/tensor/matrix.h"

#include <algorithm>
#include <cstddef>

namespace rankscope {

/// Of a fixed size, so that what is summed by tiles does not depend on the number of threads.
inline constexpr Index k_rows_per_tile = 64;

inline std::size_t row_tile_count(Index rows)
{
    return static_cast<std::size_t>((rows + k_rows_per_tile - 1) / k_rows_per_tile);
}

/// Calls body(tile, first row, last row) on the thread pool for the tiles of rows [begin, end).
template <class Body>
void each_row_tile(Index begin, Index end, const Body& body)
{
    parallel_for(0, static_cast<std::int64_t>(row_tile_count(end - begin)), [&](std::int64_t tile) {
        const Index first = begin + static_cast<Index>(tile) * k_rows_per_tile;
        body(static_cast<std::size_t>(tile), first, std::min(first + k_rows_per_tile, end));
    });
}

} // namespace rankscope
