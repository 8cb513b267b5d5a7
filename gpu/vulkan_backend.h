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
    /// For tests, that they reach on any machine what other devices do: never map device memory, as on a card
    /// with memory of its own; bind at most so many bytes at a time, to work by tiles (0: what the device
    /// allows).
    bool force_staging = false;
    std::uint64_t binding_limit_bytes = 0;
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

/// Messages of the validation layers since the process started (also those at device destruction); tests
/// require none.
std::vector<std::string> validation_messages();

/// `auto` (a hardware Vulkan device if there is one, else the CPU), `cpu`, `vulkan`, `vulkan:INDEX`. When
/// `auto` finds no Vulkan at all that is logged once, as a sentence. Errors: Usage (other text), NoDevice.
Result<std::unique_ptr<Backend>> open_backend(const std::string& choice);

/// One operation checked against the CPU backend on a device, at odd sizes.
struct SelfTestRow {
    std::string operation; ///< "gemm 129x65x257 nt"
    double error = 0.0;    ///< normalised
    double tolerance = 0.0;
    bool passed = false;
};
Result<std::vector<SelfTestRow>> self_test(Backend& backend);

} // namespace rankscope
