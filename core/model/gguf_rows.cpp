// SPDX-License-Identifier: GPL-3.0-or-later
// The order of rows in GGUF files, for reading and for writing.
#include "core/model/detail/gguf_family.h"

namespace rankscope::detail {
namespace {

/// llama.cpp turns neighboring rows (2i, 2i + 1) of a head, Hugging Face (i, i + d/2).
RowOrder paired_order(Index rows, Index heads)
{
    RowOrder order;
    const Index width = rows / heads;
    for (Index head = 0; head < heads; ++head) {
        for (Index i = 0; i < width; ++i)
            order.push_back(head * width + 2 * (i % (width / 2)) + i / (width / 2));
    }
    return order;
}

RowOrder parts_order(Index rows, Index heads)
{
    RowOrder order;
    const Index width = rows / heads / 3;
    for (Index head = 0; head < heads; ++head) {
        for (Index part = 0; part < 3; ++part) {
            for (Index i = 0; i < width; ++i)
                order.push_back((part * heads + head) * width + i);
        }
    }
    return order;
}

} // namespace

RowOrder row_order(Stored stored, Index rows, Index heads, Index kv_heads)
{
    if (stored == Stored::PairedKeyRows)
        heads = kv_heads;
    const bool paired = stored == Stored::PairedQueryRows || stored == Stored::PairedKeyRows;
    if (heads < 1 || rows % heads != 0)
        return {};
    if (paired && rows / heads % 2 == 0)
        return paired_order(rows, heads);
    return stored == Stored::PartsApart && rows / heads % 3 == 0 ? parts_order(rows, heads) : RowOrder{};
}

} // namespace rankscope::detail
