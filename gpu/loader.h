// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <volk.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rankscope::gpu {

enum class Validation : std::uint8_t {
    Off,
    Layers,      ///< with synchronization validation
    GpuAssisted, ///< and with checks inside the kernels: what they read and write beyond their buffers
};

/// The Vulkan instance, shared by every device made from it and destroyed with the last one. Loading the
/// driver takes 50–400 ms: keep it off the GUI thread. Thread-safe.
class Instance {
public:
    /// The live instance, or a new one. Errors: NoDevice when no loader or no driver is installed.
    static Result<std::shared_ptr<Instance>> acquire(Validation validation);
    ~Instance();
    Instance(const Instance&) = delete;
    Instance& operator=(const Instance&) = delete;

    VkInstance handle() const { return handle_; }
    bool validation() const { return messenger_ != VK_NULL_HANDLE; }

private:
    Instance() = default;
    static Result<std::shared_ptr<Instance>> create(Validation validation);

    VkInstance handle_ = VK_NULL_HANDLE;
    VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
};

/// What the validation layers have said since the process started.
std::vector<std::string> collected_validation_messages();

} // namespace rankscope::gpu
