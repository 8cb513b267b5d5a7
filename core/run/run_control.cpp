// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/run_control.h"

namespace rankscope {

void RunControl::run_next(const std::string& layer)
{
    const std::lock_guard lock(mutex_);
    std::erase(wanted_, layer);
    wanted_.insert(wanted_.begin(), layer);
}

std::vector<std::string> RunControl::wanted() const
{
    const std::lock_guard lock(mutex_);
    return wanted_;
}

} // namespace rankscope
