// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/views/registry.h"

#include <array>

namespace rankscope {

std::span<const View* const> views()
{
    static const std::array all = {
        &overviewView(),  &channelsView(), &spectrumView(),
        &histogramView(), &matricesView(), &activationsView(),
    };
    return all;
}

const View* findView(const QString& id)
{
    for (const View* view : views())
        if (view->info().id == id)
            return view;
    return nullptr;
}

QStringList viewIds()
{
    QStringList ids;
    for (const View* view : views())
        ids << view->info().id;
    return ids;
}

} // namespace rankscope
