// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/device.h"

#include "app/workbench/text.h"
#include "gpu/vulkan_backend.h"

namespace rankscope {

std::shared_ptr<Backend> Device::backend()
{
    const std::lock_guard lock(mutex_);
    if (!backend_) {
        auto opened = open_backend(toStd(choice_));
        if (opened) {
            backend_ = std::move(*opened);
        } else {
            fallback_ = opened.error();
            backend_ = make_cpu_backend();
        }
    }
    return backend_;
}

std::shared_ptr<Backend> Device::cpu()
{
    const std::lock_guard lock(cpu_mutex_);
    if (!cpu_)
        cpu_ = make_cpu_backend();
    return cpu_;
}

std::optional<Error> Device::fallback() const
{
    const std::lock_guard lock(mutex_);
    return fallback_;
}

} // namespace rankscope
