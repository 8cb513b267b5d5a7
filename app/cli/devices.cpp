// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "gpu/vulkan_backend.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

std::string_view type_name(DeviceType type)
{
    switch (type) {
    case DeviceType::Discrete:
        return "discrete";
    case DeviceType::Integrated:
        return "integrated";
    case DeviceType::Virtual:
        return "virtual";
    case DeviceType::Software:
        return "software";
    case DeviceType::Other:
        return "other";
    }
    return "other";
}

/// Runs the self-test of one device; the name of the first operation that failed, or nothing.
Result<std::string> test_device(const std::string& backend_id, bool large, Json& document, std::string& text)
{
    auto backend = open_backend(backend_id);
    if (!backend)
        return backend.error();
    auto rows = self_test(**backend, large);
    if (!rows)
        return rows.error();
    Json list(Json::Array{});
    Table table({"  operation", "error", "tolerance", "passed"});
    std::string failed;
    for (const SelfTestRow& row : *rows) {
        Json json;
        json.set("operation", row.operation);
        json.set("error", row.error);
        json.set("tolerance", row.tolerance);
        json.set("passed", row.passed);
        list.push_back(std::move(json));
        table.add(
            {"  " + row.operation, figure(row.error), figure(row.tolerance), row.passed ? "yes" : "NO"});
        if (failed.empty() && !row.passed)
            failed = fmt::format("{} (off by {}, {} is allowed)", row.operation, figure(row.error),
                                 figure(row.tolerance));
    }
    document.set("self_test", std::move(list));
    document.set("passed", failed.empty());
    text += table.text();
    return failed;
}

Json device_json(const VulkanDevice& device)
{
    Json json;
    json.set("id", fmt::format("vulkan:{}", device.index));
    json.set("name", device.name);
    json.set("type", type_name(device.type));
    json.set("driver", device.driver);
    json.set("api_version", device.api_version);
    json.set("memory_bytes", device.memory_bytes);
    json.set("max_storage_range_bytes", device.max_storage_range_bytes);
    json.set("max_workgroup_invocations", std::int64_t{device.max_workgroup_invocations});
    json.set("shared_memory_bytes", std::int64_t{device.shared_memory_bytes});
    json.set("subgroup_size", std::int64_t{device.subgroup_size});
    json.set("usable", device.usable);
    json.set("reason", device.reason);
    return json;
}

std::string device_text(const VulkanDevice& device)
{
    return fmt::format(
        "vulkan:{}  {} ({}, Vulkan {}, {}); {} of memory, {} a binding, {} invocations, {} shared, "
        "subgroups of {}{}\n",
        device.index, device.name, type_name(device.type), device.api_version, device.driver,
        format_byte_size(device.memory_bytes), format_byte_size(device.max_storage_range_bytes),
        device.max_workgroup_invocations, format_byte_size(device.shared_memory_bytes), device.subgroup_size,
        device.usable ? "" : "; not usable: " + device.reason);
}

/// Measures the tilings of products on one device.
Status tune_device(const std::string& backend_id, Json& document, std::string& text)
{
    auto backend = open_backend(backend_id);
    if (!backend)
        return backend.error();
    const auto rates = tune_products(**backend);
    if (!rates)
        return rates.error();
    Json list(Json::Array{});
    Table table({"  products by tiles of", "GFLOP/s", "peak %", "chosen"});
    for (const TilingRate& rate : *rates) {
        Json json;
        json.set("tiling", rate.tiling);
        json.set("flops_per_second", rate.flops_per_second);
        json.set("share_of_peak", rate.share_of_peak);
        json.set("chosen", rate.chosen);
        list.push_back(std::move(json));
        table.add({"  " + rate.tiling, figure(1e-9 * rate.flops_per_second),
                   fmt::format("{:.1f}", 100.0 * rate.share_of_peak), rate.chosen ? "yes" : ""});
    }
    document.set("tilings", std::move(list));
    text += table.text();
    return {};
}

Result<Output> list_devices(bool with_test, bool tune)
{
    Output output;
    Json list(Json::Array{});
    std::string failed;
    const auto add = [&](Json json, std::string text, const std::string& id, bool usable,
                         bool hardware = false) -> Status {
        if (with_test && usable) {
            auto operation = test_device(id, hardware, json, text);
            if (!operation)
                return operation.error();
            if (failed.empty() && !operation->empty())
                failed = id + ", " + *operation;
        }
        if (tune && usable && id.starts_with("vulkan:")) {
            if (auto tuned = tune_device(id, json, text); !tuned)
                return tuned;
        }
        list.push_back(std::move(json));
        output.text += text;
        return {};
    };
    const auto cpu = make_cpu_backend();
    Json cpu_json;
    cpu_json.set("id", cpu->id());
    cpu_json.set("name", cpu->name());
    cpu_json.set("type", "cpu");
    cpu_json.set("memory_bytes", available_memory_bytes());
    cpu_json.set("usable", true);
    const std::string cpu_text = fmt::format("cpu       {}; {} of memory free\n", cpu->name(),
                                             format_byte_size(available_memory_bytes()));
    if (auto added = add(std::move(cpu_json), cpu_text, "cpu", true); !added)
        return added.error();
    if (const auto rounding = make_bfloat_cpu_backend(); rounding) {
        Json json;
        json.set("id", (*rounding)->id());
        json.set("name", (*rounding)->name());
        json.set("type", "cpu");
        json.set("memory_bytes", available_memory_bytes());
        json.set("usable", true);
        // Its products are rounded on purpose: the self-test would call them wrong.
        const std::string text =
            fmt::format("cpu:bf16  {}: faster and rounded; only where asked for\n", (*rounding)->name());
        if (auto added = add(std::move(json), text, "cpu:bf16", false); !added)
            return added.error();
    }
    auto devices = vulkan_devices();
    output.document.set("vulkan", devices ? Json() : Json(devices.error().sentence()));
    if (devices) {
        for (const VulkanDevice& device : *devices) {
            if (auto added =
                    add(device_json(device), device_text(device), fmt::format("vulkan:{}", device.index),
                        device.usable, device.type != DeviceType::Software);
                !added)
                return added.error();
        }
    } else {
        output.text += devices.error().sentence() + "\n";
    }
    if (!failed.empty())
        return Error{ErrorKind::NoDevice, "the device computes wrong numbers: its self-test failed", failed,
                     "Update its driver, or compute with --backend cpu"};
    output.document.set("devices", std::move(list));
    return output;
}

} // namespace

void add_devices(Program& program)
{
    auto with_test = std::make_shared<bool>(false);
    auto tune = std::make_shared<bool>(false);
    CLI::App* command = program.add("devices", "Compute devices and their limits",
                                    [with_test, tune](Session&) { return list_devices(*with_test, *tune); });
    command->add_flag("--self-test", *with_test, "Compare every operation of every device with the CPU");
    command->add_flag("--tune", *tune,
                      "Measure which tiles products are fastest in on each Vulkan device, and keep that");
}

} // namespace rankscope::cli
