// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/views/view.h"

namespace rankscope {

Result<Picture> computeOther(const View& view, const ViewSides& sides, Picture first, Backend& backend,
                             Monitor& monitor)
{
    if (!first && view.comparesPictures()) {
        auto computed = view.compute(sides.first, backend, monitor);
        if (!computed)
            return computed.error();
        first = std::move(*computed);
    }
    const auto second = view.computeSecond(sides, backend, monitor);
    if (!second)
        return second.error();
    monitor.throw_if_cancelled();
    return view.compare(sides, first, *second, monitor);
}

} // namespace rankscope
