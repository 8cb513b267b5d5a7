// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/vulkan_backend.h"

#include "core/base/log.h"
#include "gpu/failure.h"
#include "gpu/operations.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>

namespace rankscope {

namespace {

Error no_timestamps(const Backend& backend)
{
    return {ErrorKind::NoDevice, "the device has no timestamps to measure kernels by", backend.id(),
            "Choose a Vulkan device (rankscope-cli devices lists them)"};
}

} // namespace

namespace gpu {

VulkanBackend::VulkanBackend(std::shared_ptr<Device> device, const VulkanOptions& options)
    : device_(std::move(device)), allocator_(Allocator::create(device_, {options.force_staging, options.memory_limit_bytes, options.gpu_assisted})),
      pipelines_(std::make_shared<Pipelines>(device_)),
      recorder_(std::make_unique<Recorder>(device_, pipelines_)),
      staging_(*recorder_, [this](VkDeviceSize bytes, MemoryUse use) { return allocator_->try_allocate(bytes, use); })
{
    const VkPhysicalDeviceLimits& limits = device_->physical().limits;
    binding_limit_ = limits.maxStorageBufferRange / k_range_alignment * k_range_alignment;
    if (options.binding_limit_bytes >= 4 * k_range_alignment)
        binding_limit_ = std::min<VkDeviceSize>(binding_limit_, options.binding_limit_bytes
                                                                    / k_range_alignment * k_range_alignment);
    half_weights_ = options.half_weights;
    tiling_ = read_tiling(device_->physical()).value_or(default_tiling(device_->physical()));
    for (const Tiling& tiling : all_tilings()) {
        if (tiling.name() == options.tiling && tiling_fits(tiling, device_->physical()))
            tiling_ = tiling;
    }
    lanes_ =
        limits.maxComputeWorkGroupInvocations >= 256 && limits.maxComputeWorkGroupSize[0] >= 256 ? 256 : 128;
}

VulkanBackend::~VulkanBackend() = default;

std::string VulkanBackend::name() const { return device_->physical().info.name; }

std::string VulkanBackend::id() const
{
    return fmt::format("vulkan:{}{}", device_->physical().info.index, half_weights_ ? ":half" : "");
}

bool VulkanBackend::supports(Op op) const
{
    switch (op) {
    case Op::Gemm:
    case Op::Gram:
    case Op::Hadamard:
    case Op::QuantizeGroups:
    case Op::RoundWithFeedback:
    case Op::Elementwise:
    case Op::Reduce:
    case Op::RmsNorm:
    case Op::Rope:
    case Op::Attention:
    case Op::GatedActivation:
    case Op::ColumnStatistics:
    case Op::Orthonormalize:
    case Op::TriangularSolve:
        return true;
    case Op::Cholesky:
    case Op::SymmetricEigen:
        return false; // float64 on the host
    }
    return false;
}

bool VulkanBackend::fits(std::initializer_list<const Buffer*> buffers) const
{
    return std::all_of(buffers.begin(), buffers.end(), [&](const Buffer* buffer) {
        return buffer->precision() == Precision::Float32 && !buffer->empty()
               && static_cast<VkDeviceSize>(buffer->cols()) * sizeof(float)
                      <= binding_limit_ - k_range_alignment;
    });
}

/// Work groups for a kernel that strides over elements: about four elements a thread.
std::uint32_t VulkanBackend::flat_groups(Index elements) const
{
    const Index per_group = Index{4} * lanes_;
    return u32(std::min<Index>((elements + per_group - 1) / per_group, 32768));
}

} // namespace gpu

Result<std::vector<VulkanDevice>> vulkan_devices()
{
    auto instance = gpu::Instance::acquire(gpu::Validation::Off);
    if (!instance)
        return instance.error();
    auto devices = gpu::enumerate_devices(**instance);
    if (!devices)
        return devices.error();
    std::vector<VulkanDevice> list;
    for (const gpu::PhysicalDevice& device : *devices)
        list.push_back(device.info);
    return list;
}

Result<std::unique_ptr<Backend>> make_vulkan_backend(int index, const VulkanOptions& options)
{
    auto instance = gpu::Instance::acquire(options.gpu_assisted ? gpu::Validation::GpuAssisted
                                              : options.validation ? gpu::Validation::Layers
                                                                   : gpu::Validation::Off);
    if (!instance)
        return instance.error();
    auto devices = gpu::enumerate_devices(**instance);
    if (!devices)
        return devices.error();
    const std::string id = fmt::format("vulkan:{}", index);
    if (index < 0 || static_cast<std::size_t>(index) >= devices->size())
        return Error{ErrorKind::NoDevice,
                     devices->size() == 1
                         ? "there is only one Vulkan device, vulkan:0"
                         : fmt::format("there are only {} Vulkan devices, vulkan:0 to vulkan:{}",
                                       devices->size(), devices->size() - 1),
                     id, "See rankscope-cli devices for the list"};
    gpu::PhysicalDevice& chosen = (*devices)[static_cast<std::size_t>(index)];
    if (!chosen.info.usable)
        return Error{ErrorKind::NoDevice,
                     fmt::format("{} cannot be used: it {}", chosen.info.name, chosen.info.reason), id,
                     "Update its driver, choose another device, or compute on the CPU with --backend cpu"};
    auto device = gpu::Device::create(std::move(*instance), std::move(chosen));
    if (!device)
        return device.error().in(id);
    try {
        return std::make_unique<gpu::VulkanBackend>(std::move(*device), options);
    } catch (const BackendFailure& failure) {
        return failure.error().in(id);
    }
}

/// Asks a device that has timestamps, and switches its measuring on.
template <class T>
static Result<T> measured(Backend& backend, T (gpu::VulkanBackend::*ask)())
{
    auto* vulkan = dynamic_cast<gpu::VulkanBackend*>(&backend);
    try {
        if (vulkan == nullptr || !vulkan->measure(true))
            return no_timestamps(backend);
        return (vulkan->*ask)();
    } catch (const BackendFailure& failure) {
        return failure.error();
    }
}

TransferCounts transfer_counts(const Backend& backend)
{
    const auto* vulkan = dynamic_cast<const gpu::VulkanBackend*>(&backend);
    return vulkan ? vulkan->transfers() : TransferCounts{};
}

Result<std::vector<TilingRate>> tune_products(Backend& backend)
{
    return measured<std::vector<TilingRate>>(backend, &gpu::VulkanBackend::tune);
}

std::string product_tiling(const Backend& backend)
{
    const auto* vulkan = dynamic_cast<const gpu::VulkanBackend*>(&backend);
    return vulkan ? vulkan->tiling() : std::string();
}

std::vector<std::string> product_tilings()
{
    std::vector<std::string> names;
    for (const gpu::Tiling& tiling : gpu::all_tilings())
        names.push_back(tiling.name());
    return names;
}

bool measure_kernels(Backend& backend, bool on)
{
    auto* vulkan = dynamic_cast<gpu::VulkanBackend*>(&backend);
    return vulkan != nullptr && vulkan->measure(on);
}

KernelTimes kernel_times(Backend& backend)
{
    auto* vulkan = dynamic_cast<gpu::VulkanBackend*>(&backend);
    return vulkan ? vulkan->times() : KernelTimes{};
}

Result<DevicePeak> measure_peak(Backend& backend)
{
    return measured<DevicePeak>(backend, &gpu::VulkanBackend::peak);
}

void inject_faults(Backend& backend, const VulkanFaults& faults)
{
    if (auto* vulkan = dynamic_cast<gpu::VulkanBackend*>(&backend))
        vulkan->inject(faults);
}

VulkanCounts counts_since_injection(const Backend& backend)
{
    const auto* vulkan = dynamic_cast<const gpu::VulkanBackend*>(&backend);
    return vulkan ? vulkan->counts() : VulkanCounts{};
}

std::vector<std::string> validation_messages() { return gpu::collected_validation_messages(); }

namespace {

/// Whether the system shows any graphics hardware. Asking Vulkan itself loads every driver that is installed,
/// and a software one (lavapipe with its compiler) then stays in the process: some 50 MB.
bool graphics_hardware_present()
{
    constexpr std::string_view k_nodes[] = {"dri", "nvidia", "nvhost", "mali", "kgsl", "dxg"};
    std::error_code problem;
    for (const auto& entry : std::filesystem::directory_iterator("/dev", problem)) {
        const std::string name = entry.path().filename().string();
        for (const std::string_view node : k_nodes)
            if (name.starts_with(node))
                return true;
    }
    return static_cast<bool>(problem); // not known
}

/// The CPU if there is no graphics card; an installed software driver would be slower than that.
std::unique_ptr<Backend> open_best_backend()
{
    if (!graphics_hardware_present()) {
        log::warn_once("No Vulkan device: computing on CPU. Results are the same, slower.");
        return make_cpu_backend();
    }
    const auto devices = vulkan_devices();
    if (!devices) {
        log::debug(devices.error().sentence());
        log::warn_once("No Vulkan device: computing on CPU. Results are the same, slower.");
        return make_cpu_backend();
    }
    for (const VulkanDevice& device : *devices) {
        if (!device.usable || device.type == DeviceType::Software || device.type == DeviceType::Other)
            continue;
        auto backend = make_vulkan_backend(device.index);
        if (backend)
            return std::move(*backend);
        log::warning(backend.error().sentence() + " Trying the next device, or the CPU.");
    }
    return make_cpu_backend();
}

} // namespace

Result<std::unique_ptr<Backend>> open_backend(const std::string& choice)
{
    constexpr std::string_view k_prefix = "vulkan:";
    if (choice == "auto")
        return open_best_backend();
    if (choice == "cpu")
        return make_cpu_backend();
    if (choice == "cpu:bf16")
        return make_bfloat_cpu_backend();
    constexpr std::string_view k_half = ":half";
    const bool half = choice.ends_with(k_half);
    const std::string device = half ? choice.substr(0, choice.size() - k_half.size()) : choice;
    const VulkanOptions options{.half_weights = half};
    if (device == "vulkan")
        return make_vulkan_backend(0, options);
    if (device.starts_with(k_prefix)) {
        int index = -1;
        const char* begin = device.data() + k_prefix.size();
        const char* end = device.data() + device.size();
        const auto parsed = std::from_chars(begin, end, index);
        if (begin != end && parsed.ptr == end && index >= 0 && parsed.ec == std::errc{})
            return make_vulkan_backend(index, options);
    }
    return usage_error(fmt::format("\"{}\" is not a compute device", choice), "--backend",
                       "Use auto, cpu, cpu:bf16, vulkan or vulkan:INDEX (rankscope-cli devices lists them), with :half for "
                       "rounded products");
}

} // namespace rankscope
