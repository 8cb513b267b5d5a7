// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/pipelines.h"

#include "core/base/atomic_file.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "gpu/cache_file.h"
#include "gpu/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

namespace rankscope::gpu {

namespace {

constexpr std::size_t k_largest_cache_bytes = std::size_t{64} << 20;

/// What stands before the driver's own bytes: drivers are known to crash on damaged ones, so they never see
/// them.
struct CacheHeader {
    std::array<char, 8> magic;
    std::array<std::uint8_t, VK_UUID_SIZE> driver_uuid;
    std::array<std::uint8_t, VK_UUID_SIZE> pipeline_cache_uuid;
    std::uint32_t driver_version;
    std::uint32_t device_id_hash;
    std::uint64_t payload_bytes;
    std::uint64_t payload_hash;
};
static_assert(sizeof(CacheHeader) == 64);

CacheHeader header_for(const PhysicalDevice& physical)
{
    CacheHeader header{};
    header.magic = {'r', 's', 'p', 'i', 'p', 'e', '0', '1'};
    header.driver_uuid = physical.driver_uuid;
    header.pipeline_cache_uuid = physical.pipeline_cache_uuid;
    header.driver_version = physical.driver_version;
    header.device_id_hash = device_name_hash(physical);
    return header;
}

/// The driver's bytes of a cache file; none if the file is missing, damaged, or of another driver.
std::optional<std::string> read_cache(const std::filesystem::path& file, const PhysicalDevice& physical)
{
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return std::nullopt;
    std::string content((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    CacheHeader header{};
    if (content.size() < sizeof header || content.size() > k_largest_cache_bytes)
        return std::nullopt;
    std::memcpy(&header, content.data(), sizeof header);
    content.erase(0, sizeof header);
    CacheHeader expected = header_for(physical);
    expected.payload_bytes = content.size();
    expected.payload_hash = stable_hash(content);
    if (std::memcmp(&header, &expected, sizeof header) != 0)
        return std::nullopt;
    return content;
}

} // namespace

Pipelines::Pipelines(std::shared_ptr<Device> device)
    : device_(std::move(device)), file_(cache_file(device_->physical(), "pipelines", "bin"))
{
    try {
        create_layouts();
        load_cache();
    } catch (...) {
        destroy();
        throw;
    }
}

Pipelines::~Pipelines()
{
    if (cache_grew_)
        save_cache();
    destroy();
}

void Pipelines::destroy()
{
    const auto& vk = device_->vk();
    for (const auto& [key, pipeline] : pipelines_)
        vk.vkDestroyPipeline(device_->handle(), pipeline, nullptr);
    for (const VkPipelineLayout layout : layouts_)
        vk.vkDestroyPipelineLayout(device_->handle(), layout, nullptr);
    for (const VkDescriptorSetLayout layout : set_layouts_)
        vk.vkDestroyDescriptorSetLayout(device_->handle(), layout, nullptr);
    vk.vkDestroyPipelineCache(device_->handle(), cache_, nullptr);
}

void Pipelines::create_layouts()
{
    const auto& vk = device_->vk();
    for (std::uint32_t buffers = 1; buffers <= k_max_bindings; ++buffers) {
        std::array<VkDescriptorSetLayoutBinding, k_max_bindings> bindings{};
        for (std::uint32_t i = 0; i < buffers; ++i)
            bindings[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
        VkDescriptorSetLayoutCreateInfo set_info{};
        set_info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
        set_info.bindingCount = buffers;
        set_info.pBindings = bindings.data();
        device_->check(
            vk.vkCreateDescriptorSetLayout(device_->handle(), &set_info, nullptr, &set_layouts_[buffers]),
            "prepare the kernels");
        const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, k_push_bytes};
        VkPipelineLayoutCreateInfo info{};
        info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
        info.setLayoutCount = 1;
        info.pSetLayouts = &set_layouts_[buffers];
        info.pushConstantRangeCount = 1;
        info.pPushConstantRanges = &range;
        device_->check(vk.vkCreatePipelineLayout(device_->handle(), &info, nullptr, &layouts_[buffers]),
                       "prepare the kernels");
    }
}

void Pipelines::load_cache()
{
    std::optional<std::string> stored;
    if (!file_.empty())
        stored = read_cache(file_, device_->physical());
    VkPipelineCacheCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
    if (stored) {
        info.initialDataSize = stored->size();
        info.pInitialData = stored->data();
    }
    device_->check(device_->vk().vkCreatePipelineCache(device_->handle(), &info, nullptr, &cache_),
                   "prepare the kernels");
}

void Pipelines::save_cache() const
{
    if (file_.empty())
        return;
    std::size_t bytes = 0;
    const auto& vk = device_->vk();
    if (vk.vkGetPipelineCacheData(device_->handle(), cache_, &bytes, nullptr) != VK_SUCCESS || bytes == 0
        || bytes > k_largest_cache_bytes)
        return;
    std::string payload(bytes, '\0');
    if (vk.vkGetPipelineCacheData(device_->handle(), cache_, &bytes, payload.data()) != VK_SUCCESS)
        return;
    payload.resize(bytes);
    CacheHeader header = header_for(device_->physical());
    header.payload_bytes = payload.size();
    header.payload_hash = stable_hash(payload);

    // A cache that cannot be kept costs time at the next start and nothing else.
    std::error_code ignored;
    std::filesystem::create_directories(file_.parent_path(), ignored);
    auto file = AtomicFile::create(file_, true);
    Status status = file ? file->write(&header, sizeof header) : Status(file.error());
    if (status)
        status = file->write(payload);
    if (status)
        status = file->commit();
    if (!status)
        log::debug("The pipeline cache was not kept: " + status.error().sentence());
}

Pipeline Pipelines::get(Kernel kernel, std::span<const std::uint32_t> constants)
{
    const std::uint32_t buffers = kernel_info(kernel).buffers;
    std::pair key(kernel, std::vector<std::uint32_t>(constants.begin(), constants.end()));
    const std::lock_guard lock(mutex_);
    auto found = pipelines_.find(key);
    if (found == pipelines_.end()) {
        const VkPipeline pipeline = compile(kernel, constants);
        found = pipelines_.emplace(std::move(key), pipeline).first;
        cache_grew_ = true;
    }
    return {found->second, layouts_[buffers], set_layouts_[buffers]};
}

VkPipeline Pipelines::compile(Kernel kernel, std::span<const std::uint32_t> constants)
{
    const auto& vk = device_->vk();
    const KernelInfo& info = kernel_info(kernel);
    const std::string what = fmt::format("compile the kernel {}", info.name);
    VkShaderModuleCreateInfo module_info{};
    module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
    module_info.codeSize = info.words.size_bytes();
    module_info.pCode = info.words.data();
    VkShaderModule module = VK_NULL_HANDLE;
    device_->check(vk.vkCreateShaderModule(device_->handle(), &module_info, nullptr, &module), what);

    std::vector<VkSpecializationMapEntry> entries(constants.size());
    for (std::uint32_t i = 0; i < entries.size(); ++i)
        entries[i] = {i, i * static_cast<std::uint32_t>(sizeof(std::uint32_t)), sizeof(std::uint32_t)};
    VkSpecializationInfo specialization{};
    specialization.mapEntryCount = static_cast<std::uint32_t>(entries.size());
    specialization.pMapEntries = entries.data();
    specialization.dataSize = constants.size_bytes();
    specialization.pData = constants.data();

    VkComputePipelineCreateInfo pipeline_info{};
    pipeline_info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
    pipeline_info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
    pipeline_info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
    pipeline_info.stage.module = module;
    pipeline_info.stage.pName = "main";
    pipeline_info.stage.pSpecializationInfo = &specialization;
    pipeline_info.layout = layouts_[info.buffers];
    VkPipeline pipeline = VK_NULL_HANDLE;
    const VkResult result =
        vk.vkCreateComputePipelines(device_->handle(), cache_, 1, &pipeline_info, nullptr, &pipeline);
    vk.vkDestroyShaderModule(device_->handle(), module, nullptr);
    device_->check(result, what);
    return pipeline;
}

} // namespace rankscope::gpu
