// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/allocator.h"

#include "gpu/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>

namespace rankscope::gpu {

namespace {

constexpr VkDeviceSize k_block_bytes = VkDeviceSize{16} << 20;
constexpr VkDeviceSize k_small_bytes = VkDeviceSize{1} << 20; // up to this a range shares a block

constexpr VkMemoryPropertyFlags k_host =
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags k_local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr VkMemoryPropertyFlags k_cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

VkDeviceSize round_up(VkDeviceSize bytes)
{
    return (bytes + k_range_alignment - 1) / k_range_alignment * k_range_alignment;
}

std::optional<std::uint32_t> find_type(const VkPhysicalDeviceMemoryProperties& memory, std::uint32_t allowed,
                                       VkMemoryPropertyFlags wanted)
{
    for (std::uint32_t type = 0; type < memory.memoryTypeCount; ++type) {
        if ((allowed >> type & 1U) != 0 && (memory.memoryTypes[type].propertyFlags & wanted) == wanted)
            return type;
    }
    return std::nullopt;
}

} // namespace

/// One allocation with one Vulkan buffer over it. `gaps` are its free ranges by offset.
struct Block {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    VkDeviceSize size = 0;
    void* mapped = nullptr;
    MemoryUse use = MemoryUse::Device;
    bool shared = false;
    std::map<VkDeviceSize, VkDeviceSize> gaps;

    bool unused() const { return gaps.size() == 1 && gaps.begin()->second == size; }
};

DeviceRange::~DeviceRange()
{
    if (block_ != nullptr)
        allocator_->release(*this);
}

std::shared_ptr<Allocator> Allocator::create(std::shared_ptr<Device> device, const Options& options)
{
    std::shared_ptr<Allocator> allocator(new Allocator);
    allocator->device_ = std::move(device);
    allocator->options_ = options;
    const VkPhysicalDeviceMemoryProperties& memory = allocator->device_->physical().memory;

    // Every buffer is made with the same usage, so one of them tells which types they all may use.
    VkBufferCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
    info.size = k_range_alignment;
    info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT
                 | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    const Device& owner = *allocator->device_;
    VkBuffer probe = VK_NULL_HANDLE;
    owner.check(owner.vk().vkCreateBuffer(owner.handle(), &info, nullptr, &probe), "create a buffer");
    VkMemoryRequirements needs{};
    owner.vk().vkGetBufferMemoryRequirements(owner.handle(), probe, &needs);
    owner.vk().vkDestroyBuffer(owner.handle(), probe, nullptr);

    // Mapping device memory pays only where the host reads it through its cache (integrated and software
    // devices).
    const auto both = find_type(memory, needs.memoryTypeBits, k_local | k_host | k_cached);
    const auto local = find_type(memory, needs.memoryTypeBits, k_local);
    const auto host = find_type(memory, needs.memoryTypeBits, k_host);
    const auto cached = find_type(memory, needs.memoryTypeBits, k_host | k_cached);
    if (!host)
        throw BackendFailure(
            vulkan_error(VK_ERROR_FEATURE_NOT_PRESENT, "find memory that the host can write"));
    const bool direct = both.has_value() && !options.force_staging;
    allocator->types_[0] = direct ? *both : local.value_or(*host);
    allocator->types_[1] = *host;
    allocator->types_[2] = cached.value_or(*host);
    allocator->mapped_[0] = direct;
    allocator->mapped_[1] = allocator->mapped_[2] = true;
    return allocator;
}

Allocator::~Allocator()
{
    for (auto& [key, block] : blocks_)
        destroy_block(*block);
}

std::uint64_t Allocator::allocated_bytes() const
{
    const std::lock_guard lock(mutex_);
    return allocated_bytes_;
}

/// Under the lock.
VkDeviceSize Allocator::room_for(MemoryUse use) const
{
    const VkDeviceSize room = device_->memory_room(types_[static_cast<int>(use)]);
    const VkDeviceSize limit = options_.limit;
    return limit == 0 ? room : std::min(room, limit - std::min(limit, allocated_bytes_));
}

VkDeviceSize Allocator::room() const
{
    const std::lock_guard lock(mutex_);
    return room_for(MemoryUse::Device);
}

std::shared_ptr<DeviceRange> Allocator::try_allocate(VkDeviceSize bytes, MemoryUse use)
{
    const VkDeviceSize needed = std::max(round_up(bytes), k_range_alignment);
    if (needed < bytes || needed > largest_range() || device_->faults().range_fails())
        return nullptr;
    const bool small = needed <= k_small_bytes && !options_.apart;
    const std::lock_guard lock(mutex_);
    Block* found = nullptr;
    if (small) {
        for (auto& [key, block] : blocks_) {
            if (!block->shared || block->use != use)
                continue;
            if (std::any_of(block->gaps.begin(), block->gaps.end(),
                            [&](const auto& gap) { return gap.second >= needed; })) {
                found = block.get();
                break;
            }
        }
    }
    if (found == nullptr)
        found = new_block(small ? k_block_bytes : needed, use, small);
    if (found == nullptr && small)
        found = new_block(needed, use, true); // a device that is nearly full still has room for little
    if (found == nullptr)
        return nullptr;
    const auto gap = std::find_if(found->gaps.begin(), found->gaps.end(),
                                  [&](const auto& candidate) { return candidate.second >= needed; });
    const VkDeviceSize offset = gap->first;
    const VkDeviceSize left = gap->second - needed;
    found->gaps.erase(gap);
    if (left > 0)
        found->gaps.emplace(offset + needed, left);

    std::shared_ptr<DeviceRange> range(new DeviceRange);
    range->allocator_ = shared_from_this();
    range->block_ = found;
    range->buffer_ = found->buffer;
    range->offset_ = offset;
    range->size_ = needed;
    range->mapped_ = found->mapped == nullptr ? nullptr : static_cast<std::byte*>(found->mapped) + offset;
    return range;
}

Block* Allocator::new_block(VkDeviceSize bytes, MemoryUse use, bool shared)
{
    const Device& device = *device_;
    if (bytes > room_for(use)) // beyond it the driver would move memory out of the device, and crawl
        return nullptr;
    const auto& vk = device.vk();
    auto block = std::make_unique<Block>();
    block->size = bytes;
    block->use = use;
    block->shared = shared;
    block->gaps.emplace(0, bytes);

    VkBufferCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
    info.size = bytes;
    info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT
                 | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    VkResult result = vk.vkCreateBuffer(device.handle(), &info, nullptr, &block->buffer);
    if (result == VK_SUCCESS) {
        VkMemoryRequirements needs{};
        vk.vkGetBufferMemoryRequirements(device.handle(), block->buffer, &needs);
        VkMemoryAllocateInfo allocation{};
        allocation.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
        allocation.allocationSize = needs.size;
        allocation.memoryTypeIndex = types_[static_cast<int>(use)];
        result = vk.vkAllocateMemory(device.handle(), &allocation, nullptr, &block->memory);
    }
    if (result == VK_SUCCESS)
        result = vk.vkBindBufferMemory(device.handle(), block->buffer, block->memory, 0);
    if (result == VK_SUCCESS && mapped_[static_cast<int>(use)])
        result = vk.vkMapMemory(device.handle(), block->memory, 0, VK_WHOLE_SIZE, 0, &block->mapped);
    if (result != VK_SUCCESS) {
        destroy_block(*block);
        if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY
            || result == VK_ERROR_TOO_MANY_OBJECTS || result == VK_ERROR_MEMORY_MAP_FAILED)
            return nullptr;
        device.check(result, fmt::format("allocate {:.1f} MiB", static_cast<double>(bytes) / 1048576.0));
    }
    allocated_bytes_ += bytes;
    Block* key = block.get();
    blocks_.emplace(key, std::move(block));
    return key;
}

void Allocator::destroy_block(Block& block)
{
    const auto& vk = device_->vk();
    if (block.buffer != VK_NULL_HANDLE)
        vk.vkDestroyBuffer(device_->handle(), block.buffer, nullptr);
    if (block.memory != VK_NULL_HANDLE)
        vk.vkFreeMemory(device_->handle(), block.memory, nullptr);
}

void Allocator::release(DeviceRange& range)
{
    const std::lock_guard lock(mutex_);
    Block& block = *range.block_;
    auto gap = block.gaps.emplace(range.offset_, range.size_).first;
    if (const auto next = std::next(gap);
        next != block.gaps.end() && gap->first + gap->second == next->first) {
        gap->second += next->second;
        block.gaps.erase(next);
    }
    if (gap != block.gaps.begin()) {
        const auto previous = std::prev(gap);
        if (previous->first + previous->second == gap->first) {
            previous->second += gap->second;
            block.gaps.erase(gap);
        }
    }
    if (!block.unused())
        return;
    // One empty shared block of each use stays: small temporaries come and go all the time.
    const bool spare_exists = std::any_of(blocks_.begin(), blocks_.end(), [&](const auto& entry) {
        return entry.first != &block && entry.second->shared && entry.second->use == block.use
               && entry.second->unused();
    });
    if (block.shared && !spare_exists)
        return;
    allocated_bytes_ -= block.size;
    destroy_block(block);
    blocks_.erase(&block);
}

} // namespace rankscope::gpu
