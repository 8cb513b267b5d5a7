// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/compute/backend.h"

#include <memory>
#include <string>
#include <vector>

namespace rankscope {

enum class DeviceType { Discrete, Integrated, Virtual, Software, Other };

/// A Vulkan device as `devices` lists it.
struct VulkanDevice {
    int index = 0; ///< for --backend vulkan:INDEX
    std::string name;
    DeviceType type = DeviceType::Other;
    std::string driver;             ///< name and version
    std::string api_version;        ///< "1.3.230"
    std::uint64_t memory_bytes = 0; ///< largest device-local heap
    std::uint64_t max_storage_range_bytes = 0;
    std::uint32_t max_workgroup_invocations = 0;
    std::uint32_t shared_memory_bytes = 0;
    std::uint32_t subgroup_size = 0;
    bool usable = false; ///< Vulkan 1.2 with what the kernels rely on
    std::string reason;  ///< why not usable; empty otherwise
};

/// Lists devices. An Error (NoDevice) when there is no loader or no driver: the caller says so once and uses
/// the CPU.
Result<std::vector<VulkanDevice>> vulkan_devices();

struct VulkanOptions {
    bool validation = false; ///< validation layers with synchronisation validation, if installed
    bool gpu_assisted = false; ///< with checks inside the kernels too: several times as slow
    /// For tests, that they reach on any machine what other devices do: never map device memory, as on a card
    /// with memory of its own; bind at most so many bytes at a time, to work by tiles (0: what the device
    /// allows).
    bool force_staging = false;
    std::uint64_t binding_limit_bytes = 0;
    std::string tiling{}; ///< of products, by name (empty: the fastest, if that was measured)
    /// Products with prepared weights (the forward pass) take both factors in float16, sums stay float32. A backend of
    /// its own name, "vulkan:0:half", never a default.
    bool half_weights = false;
    std::uint64_t memory_limit_bytes = 0; ///< allocate at most so much (0: what the device has room for)
};

/// A backend on one device. Errors: NoDevice (no such index, not usable), NoSpace.
Result<std::unique_ptr<Backend>> make_vulkan_backend(int index, const VulkanOptions& options = {});

/// Matrices and tables that went over, and came back, since a backend was made.
struct TransferCounts {
    std::uint64_t uploads = 0, uploaded_bytes = 0;
    std::uint64_t downloads = 0, downloaded_bytes = 0;
};
/// Of a Vulkan backend; nothing of another one.
TransferCounts transfer_counts(const Backend& backend);

/// What a kernel (or the device's copies and fills) did since measuring began.
struct KernelTime {
    std::string kernel; ///< "gemm", "copy"
    std::uint64_t calls = 0;
    double seconds = 0.0; ///< of the device, by its own timestamps
    double share = 0.0;   ///< of all the time for which the device was busy
    double flops = 0.0;   ///< computed; 0 where memory is what limits the kernel
    double bytes = 0.0;   ///< read or written at least; 0 where arithmetic is what limits it
    double flops_per_second() const { return seconds > 0.0 ? flops / seconds : 0.0; }
    double bytes_per_second() const { return seconds > 0.0 ? bytes / seconds : 0.0; }
};
struct KernelTimes {
    std::vector<KernelTime> kernels; ///< the longest first
    double busy_seconds = 0.0;
    double wall_seconds = 0.0; ///< since measuring began
};
/// Measures from now on. False for a backend that has no timestamps.
bool measure_kernels(Backend& backend, bool on = true);
/// Of the work that is done; empty where nothing was measured. Waits for what is recorded.
KernelTimes kernel_times(Backend& backend);

/// What the device reaches with a kernel that does nothing else: multiply-adds in registers, reading and writing a
/// large matrix. float32.
struct DevicePeak {
    double flops_per_second = 0.0;
    double bytes_per_second = 0.0;
};
/// Takes about a second. Errors: NoDevice (not a Vulkan backend, no timestamps), NoSpace.
Result<DevicePeak> measure_peak(Backend& backend);

/// What products reach with one way to cut them into tiles.
struct TilingRate {
    std::string tiling; ///< "128x128, 8x8 a thread, 16 deep"
    double flops_per_second = 0.0;
    double share_of_peak = 0.0;
    bool chosen = false; ///< the fastest
};
/// Measures all tilings that fit the device, uses the fastest from now on and keeps its name for this device and driver.
/// Seconds; nobody else may use the backend meanwhile. Errors: NoDevice (as measure_peak), NoSpace, Io.
Result<std::vector<TilingRate>> tune_products(Backend& backend);
/// What products are cut into; empty for a backend that is no Vulkan device.
std::string product_tiling(const Backend& backend);
/// The names of all tilings, for VulkanOptions::tiling.
std::vector<std::string> product_tilings();

/// Messages of the validation layers since the process started (also those at device destruction); tests
/// require none.
std::vector<std::string> validation_messages();

/// `auto` (a hardware Vulkan device if there is one, else the CPU), `cpu`, `cpu:bf16`, `vulkan`, `vulkan:INDEX`, and both of
/// these with `:half`. When
/// `auto` finds no Vulkan at all that is logged once, as a sentence. Errors: Usage (other text), NoDevice.
Result<std::unique_ptr<Backend>> open_backend(const std::string& choice);

/// One operation checked against the CPU backend on a device, at odd sizes.
struct SelfTestRow {
    std::string operation; ///< "gemm 129x65x257 nt"
    double error = 0.0;    ///< normalised
    double tolerance = 0.0;
    bool passed = false;
};
/// `large`: also on matrices beyond one binding, which takes seconds on a graphics card and a minute on a software device.
Result<std::vector<SelfTestRow>> self_test(Backend& backend, bool large = false);

} // namespace rankscope
