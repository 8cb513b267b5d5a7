// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/device.h"
#include "gpu/kernels/registry.h"

#include <filesystem>
#include <map>
#include <mutex>
#include <span>

namespace rankscope::gpu {

inline constexpr std::uint32_t k_max_bindings = 4; // what Vulkan promises a shader stage
inline constexpr std::uint32_t k_push_bytes = 128; // and of push constants

struct Pipeline {
    VkPipeline pipeline = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;
    VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
};

/// Compute pipelines by kernel and specialisation constants, made when first used. What the driver compiled
/// is kept under $XDG_CACHE_HOME/rankscope for the same driver; a file that is broken or of another driver is
/// ignored. Thread-safe.
class Pipelines {
public:
    explicit Pipelines(std::shared_ptr<Device> device);
    ~Pipelines();
    Pipelines(const Pipelines&) = delete;
    Pipelines& operator=(const Pipelines&) = delete;

    /// constants[i] is the value of constant_id i; 0 and 1 are the local size. Throws BackendFailure.
    Pipeline get(Kernel kernel, std::span<const std::uint32_t> constants);

private:
    void create_layouts();
    void load_cache();
    void save_cache() const;
    void destroy();
    VkPipeline compile(Kernel kernel, std::span<const std::uint32_t> constants);

    std::shared_ptr<Device> device_;
    std::filesystem::path file_; ///< empty: nowhere to keep it
    std::mutex mutex_;
    VkPipelineCache cache_ = VK_NULL_HANDLE;
    bool cache_grew_ = false;
    VkDescriptorSetLayout set_layouts_[k_max_bindings + 1] = {};
    VkPipelineLayout layouts_[k_max_bindings + 1] = {};
    std::map<std::pair<Kernel, std::vector<std::uint32_t>>, VkPipeline> pipelines_;
};

} // namespace rankscope::gpu
