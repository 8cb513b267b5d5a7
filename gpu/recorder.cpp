// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/recorder.h"

#include "gpu/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_commands_per_submit = 256;
constexpr VkDeviceSize k_copied_bytes_per_submit = VkDeviceSize{64} << 20;
constexpr std::uint64_t k_longest_wait_ns =
    120'000'000'000; // a submit is cut to 50 ms: by then the device hangs

/// GFLOP/s that devices of a type reach at least with our kernels. Too low costs a submit more (some 20 µs),
/// too high a desktop that stutters, or a watchdog.
double cautious_flops_per_second(DeviceType type)
{
    switch (type) {
    case DeviceType::Discrete:
        return 300e9;
    case DeviceType::Integrated:
    case DeviceType::Virtual:
        return 50e9;
    case DeviceType::Software:
    case DeviceType::Other:
        return 2e9;
    }
    return 2e9;
}

TimedWork work_of(const Dispatch& dispatch)
{
    const auto label = static_cast<std::size_t>(dispatch.kernel);
    switch (kernel_info(dispatch.kernel).rate) {
    case Rate::Arithmetic:
        return {label, dispatch.flops, 0.0};
    case Rate::Memory: {
        double bytes = 0.0;
        for (const Binding& binding : dispatch.bindings)
            bytes += static_cast<double>(binding.size) * (binding.access == Access::ReadWrite ? 2.0 : 1.0);
        return {label, 0.0, bytes};
    }
    case Rate::None:
        break;
    }
    return {label, 0.0, 0.0};
}

} // namespace

Recorder::Recorder(std::shared_ptr<Device> device, std::shared_ptr<Pipelines> pipelines)
    : device_(std::move(device)), pipelines_(std::move(pipelines)),
      timer_(device_, k_frames, k_commands_per_submit)
{
    flops_per_submit_ = 0.05 * cautious_flops_per_second(device_->physical().info.type);
    try {
        VkSemaphoreTypeCreateInfo type{};
        type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
        type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
        VkSemaphoreCreateInfo info{};
        info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
        info.pNext = &type;
        device_->check(device_->vk().vkCreateSemaphore(device_->handle(), &info, nullptr, &timeline_),
                       "prepare the queue");
        for (Frame& frame : frames_)
            create_frame(frame);
    } catch (...) {
        destroy();
        throw;
    }
}

Recorder::~Recorder() { destroy(); }

void Recorder::destroy()
{
    const auto& vk = device_->vk();
    (void)vk.vkDeviceWaitIdle(device_->handle());
    for (Frame& frame : frames_) {
        vk.vkDestroyDescriptorPool(device_->handle(), frame.descriptors, nullptr);
        vk.vkDestroyCommandPool(device_->handle(), frame.command_pool, nullptr);
        frame.in_use.clear();
    }
    vk.vkDestroySemaphore(device_->handle(), timeline_, nullptr);
}

void Recorder::create_frame(Frame& frame)
{
    const auto& vk = device_->vk();
    VkCommandPoolCreateInfo pool{};
    pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
    pool.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
    pool.queueFamilyIndex = device_->physical().queue_family;
    device_->check(vk.vkCreateCommandPool(device_->handle(), &pool, nullptr, &frame.command_pool),
                   "prepare the queue");
    VkCommandBufferAllocateInfo commands{};
    commands.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    commands.commandPool = frame.command_pool;
    commands.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    commands.commandBufferCount = 1;
    device_->check(vk.vkAllocateCommandBuffers(device_->handle(), &commands, &frame.commands),
                   "prepare the queue");
    const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                    k_commands_per_submit * k_max_bindings};
    VkDescriptorPoolCreateInfo descriptors{};
    descriptors.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
    descriptors.maxSets = k_commands_per_submit;
    descriptors.poolSizeCount = 1;
    descriptors.pPoolSizes = &size;
    device_->check(vk.vkCreateDescriptorPool(device_->handle(), &descriptors, nullptr, &frame.descriptors),
                   "prepare the queue");
}

/// The frame to record into, with room for a command of that cost.
Recorder::Frame& Recorder::recording(double flops)
{
    device_->require_alive();
    if (current_ != nullptr
        && (recorded_flops_ + flops > flops_per_submit_ || recorded_commands_ >= k_commands_per_submit
            || recorded_bytes_ >= k_copied_bytes_per_submit))
        submit();
    if (current_ == nullptr) {
        auto oldest = std::min_element(frames_.begin(), frames_.end(),
                                       [](const Frame& a, const Frame& b) { return a.value < b.value; });
        if (oldest->value != 0)
            wait(oldest->value);
        begin(*oldest);
    }
    recorded_flops_ += flops;
    ++recorded_commands_;
    return *current_;
}

void Recorder::begin(Frame& frame)
{
    const auto& vk = device_->vk();
    release(frame);
    device_->check(vk.vkResetCommandPool(device_->handle(), frame.command_pool, 0), "record commands");
    device_->check(vk.vkResetDescriptorPool(device_->handle(), frame.descriptors, 0), "record commands");
    VkCommandBufferBeginInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    device_->check(vk.vkBeginCommandBuffer(frame.commands, &info), "record commands");
    current_ = &frame;
    recorded_flops_ = 0.0;
    recorded_bytes_ = 0;
    recorded_commands_ = 0;
    barrier(frame.commands); // earlier submits may have written what is read here
    timer_.begin(static_cast<std::size_t>(current_ - frames_.data()), frame.commands);
}

/// Marks the end of the command that was just recorded.
void Recorder::note(Frame& frame, const TimedWork& work)
{
    timer_.note(static_cast<std::size_t>(&frame - frames_.data()), frame.commands, work);
}

/// Lets go of what a frame was using, whose commands are done or were never submitted.
void Recorder::release(Frame& frame)
{
    frame.in_use.clear();
    if (frame.value != 0)
        timer_.collect(static_cast<std::size_t>(&frame - frames_.data()));
    frame.value = 0;
}

void Recorder::barrier(VkCommandBuffer commands)
{
    constexpr VkPipelineStageFlags k_stages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkMemoryBarrier memory{};
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT
                           | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    device_->vk().vkCmdPipelineBarrier(commands, k_stages, k_stages, 0, 1, &memory, 0, nullptr, 0, nullptr);
    touched_.clear();
}

/// Puts a barrier before a command that would otherwise race with one recorded since the last barrier.
void Recorder::order(std::span<const Binding> touched)
{
    constexpr unsigned k_write = static_cast<unsigned>(Access::Write);
    const bool conflict = std::any_of(touched.begin(), touched.end(), [&](const Binding& binding) {
        return std::any_of(touched_.begin(), touched_.end(), [&](const Touched& earlier) {
            const unsigned both = earlier.access | static_cast<unsigned>(binding.access);
            return earlier.range == binding.range.get() && (both & k_write) != 0;
        });
    });
    if (conflict)
        barrier(current_->commands);
    for (const Binding& binding : touched) {
        touched_.push_back({binding.range.get(), static_cast<unsigned>(binding.access)});
        current_->in_use.push_back(binding.range);
    }
}

VkDescriptorSet Recorder::descriptor_set(Frame& frame, const Pipeline& pipeline,
                                         std::span<const Binding> bindings)
{
    const auto& vk = device_->vk();
    VkDescriptorSetAllocateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
    info.descriptorPool = frame.descriptors;
    info.descriptorSetCount = 1;
    info.pSetLayouts = &pipeline.set_layout;
    VkDescriptorSet set = VK_NULL_HANDLE;
    device_->check(vk.vkAllocateDescriptorSets(device_->handle(), &info, &set), "record commands");
    std::array<VkDescriptorBufferInfo, k_max_bindings> buffers{};
    std::array<VkWriteDescriptorSet, k_max_bindings> writes{};
    for (std::uint32_t i = 0; i < bindings.size(); ++i) {
        const Binding& binding = bindings[i];
        buffers[i] = {binding.range->buffer(), binding.range->offset() + binding.offset, binding.size};
        writes[i].sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
        writes[i].dstSet = set;
        writes[i].dstBinding = i;
        writes[i].descriptorCount = 1;
        writes[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
        writes[i].pBufferInfo = &buffers[i];
    }
    vk.vkUpdateDescriptorSets(device_->handle(), static_cast<std::uint32_t>(bindings.size()), writes.data(),
                              0, nullptr);
    return set;
}

void Recorder::dispatch(const Dispatch& dispatch)
{
    assert(dispatch.push.size() <= k_push_bytes);
    assert(dispatch.bindings.size() == kernel_info(dispatch.kernel).buffers);
    const Pipeline pipeline =
        pipelines_->get(dispatch.kernel, dispatch.constants); // may compile: not in the lane
    const auto& vk = device_->vk();
    const std::lock_guard lock(mutex_);
    Frame& frame = recording(dispatch.flops);
    order(dispatch.bindings);
    const VkDescriptorSet set = descriptor_set(frame, pipeline, dispatch.bindings);
    vk.vkCmdBindPipeline(frame.commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.pipeline);
    vk.vkCmdBindDescriptorSets(frame.commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout, 0, 1, &set, 0,
                               nullptr);
    if (!dispatch.push.empty())
        vk.vkCmdPushConstants(frame.commands, pipeline.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                              static_cast<std::uint32_t>(dispatch.push.size()), dispatch.push.data());
    vk.vkCmdDispatch(frame.commands, dispatch.groups[0], dispatch.groups[1], dispatch.groups[2]);
    note(frame, work_of(dispatch));
}

void Recorder::copy(const std::shared_ptr<DeviceRange>& source, const std::shared_ptr<DeviceRange>& target,
                    std::vector<VkBufferCopy> parts)
{
    VkDeviceSize bytes = 0;
    for (VkBufferCopy& part : parts) {
        part.srcOffset += source->offset();
        part.dstOffset += target->offset();
        bytes += part.size;
    }
    const std::lock_guard lock(mutex_);
    Frame& frame = recording(0.0);
    const std::array<Binding, 2> touched{Binding{source, 0, 0, Access::Read},
                                         Binding{target, 0, 0, Access::Write}};
    order(touched);
    device_->vk().vkCmdCopyBuffer(frame.commands, source->buffer(), target->buffer(),
                                  static_cast<std::uint32_t>(parts.size()), parts.data());
    recorded_bytes_ += bytes;
    note(frame, {k_copy_label, 0.0, 2.0 * static_cast<double>(bytes)});
}

void Recorder::clear(const std::shared_ptr<DeviceRange>& target, VkDeviceSize bytes)
{
    const std::lock_guard lock(mutex_);
    Frame& frame = recording(0.0);
    const std::array<Binding, 1> touched{Binding{target, 0, 0, Access::Write}};
    order(touched);
    device_->vk().vkCmdFillBuffer(frame.commands, target->buffer(), target->offset(), bytes, 0);
    recorded_bytes_ += bytes;
    note(frame, {k_fill_label, 0.0, static_cast<double>(bytes)});
}

/// Hands the current frame to the queue; the timeline value that marks its end.
std::uint64_t Recorder::submit()
{
    if (current_ == nullptr)
        return last_value_;
    const auto& vk = device_->vk();
    Frame& frame = *current_;
    current_ = nullptr;
    touched_.clear();
    VkMemoryBarrier to_host{};
    to_host.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    to_host.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    to_host.dstAccessMask = VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT;
    vk.vkCmdPipelineBarrier(frame.commands,
                            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                            VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &to_host, 0, nullptr, 0, nullptr);
    device_->check(vk.vkEndCommandBuffer(frame.commands), "record commands");

    const std::uint64_t value = last_value_ + 1;
    VkTimelineSemaphoreSubmitInfo timeline{};
    timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    timeline.signalSemaphoreValueCount = 1;
    timeline.pSignalSemaphoreValues = &value;
    VkSubmitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.pNext = &timeline;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &frame.commands;
    info.signalSemaphoreCount = 1;
    info.pSignalSemaphores = &timeline_;
    if (device_->faults().submit_fails())
        device_->check(VK_ERROR_DEVICE_LOST, "submit work");
    device_->check(vk.vkQueueSubmit(device_->queue(), 1, &info, VK_NULL_HANDLE), "submit work");
    last_value_ = value;
    frame.value = value;
    return value;
}

void Recorder::wait(std::uint64_t value)
{
    if (value == 0)
        return;
    VkSemaphoreWaitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
    info.semaphoreCount = 1;
    info.pSemaphores = &timeline_;
    info.pValues = &value;
    const VkResult result = device_->vk().vkWaitSemaphores(device_->handle(), &info, k_longest_wait_ns);
    if (result == VK_TIMEOUT)
        device_->check(VK_ERROR_DEVICE_LOST, "wait two minutes for work of some milliseconds");
    device_->check(result, "wait for the device");
}

/// Lets go of what finished submits were using.
void Recorder::retire(std::uint64_t done)
{
    for (Frame& frame : frames_) {
        if (frame.value != 0 && frame.value <= done)
            release(frame);
    }
}

std::uint64_t Recorder::flush()
{
    const std::lock_guard lock(mutex_);
    device_->require_alive();
    return submit();
}

void Recorder::wait_until(std::uint64_t value)
{
    wait(value); // outside the lock: other threads go on recording
    const std::lock_guard lock(mutex_);
    retire(value);
}

void Recorder::finish() { wait_until(flush()); }

bool Recorder::measure(bool on)
{
    finish(); // what was recorded before is not counted
    const std::lock_guard lock(mutex_);
    return timer_.enable(on);
}

KernelTimes Recorder::times()
{
    finish();
    const std::lock_guard lock(mutex_);
    return timer_.times();
}

} // namespace rankscope::gpu
