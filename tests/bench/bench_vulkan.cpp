// SPDX-License-Identifier: GPL-3.0-or-later
// Kernels of the first Vulkan device (RANKSCOPE_BENCH_DEVICE=vulkan:1 for another), by the device's own
// timestamps: GFLOP/s where arithmetic limits a kernel, GB/s where memory does, and peak%, the share of what
// the same device reached with a kernel that does nothing else. The operations are those of the table that
// the test and `devices --self-test` check; a graphics card gets sizes that fill it.
#include "gpu/self_test_cases.h"
#include "gpu/vulkan_backend.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

using namespace rankscope;

namespace {

/// The device, or nullptr with the reason told to the benchmark.
Backend* device(benchmark::State& state)
{
    static const auto backend = [] {
        const char* choice = std::getenv("RANKSCOPE_BENCH_DEVICE");
        return open_backend(choice != nullptr ? choice : "vulkan");
    }();
    if (backend)
        return backend->get();
    state.SkipWithError(backend.error().sentence().c_str());
    return nullptr;
}

bool software()
{
    const auto devices = vulkan_devices();
    return !devices || devices->empty() || devices->front().type == DeviceType::Software;
}

/// What the device reaches at most, measured once.
const DevicePeak& peak(Backend& backend)
{
    static const DevicePeak measured = [&] {
        const auto found = measure_peak(backend);
        return found ? *found : DevicePeak{};
    }();
    return measured;
}

/// Runs a case of the self-test's table as often as the benchmark wants and sets the rates of the kernel that
/// took longest.
void vulkan(benchmark::State& state, const gpu::SelfTestCase& item)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const DevicePeak& most = peak(*backend);
    const gpu::SelfTestStep step = item.prepare(*backend);
    (void)measure_kernels(*backend);
    for (auto _ : state) {
        step.run();
        (void)kernel_times(*backend); // work is recorded and runs when a result is asked for
    }
    const KernelTimes times = kernel_times(*backend);
    if (times.kernels.empty())
        return;
    const KernelTime& kernel = times.kernels.front();
    const auto calls = static_cast<double>(state.iterations());
    state.counters["device_ms"] = 1e3 * times.busy_seconds / calls;
    if (kernel.flops > 0.0) {
        state.counters["GFLOP/s"] = kernel.flops_per_second() * 1e-9;
        state.counters["peak%"] = 100.0 * kernel.flops_per_second() / most.flops_per_second;
    } else if (kernel.bytes > 0.0) {
        state.counters["GB/s"] = kernel.bytes_per_second() * 1e-9;
        state.counters["peak%"] = 100.0 * kernel.bytes_per_second() / most.bytes_per_second;
    }
    state.SetLabel(kernel.kernel);
}

void vulkan_peak(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    for (auto _ : state)
        benchmark::DoNotOptimize(peak(*backend));
    state.counters["GFLOP/s"] = peak(*backend).flops_per_second * 1e-9;
    state.counters["GB/s"] = peak(*backend).bytes_per_second * 1e-9;
}
BENCHMARK(vulkan_peak)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

/// "vulkan/gemm nn 256x256" and the others, before main.
const bool k_registered = [] {
    std::vector<Index> sides{256, 512};
    if (!software())
        sides.insert(sides.end(), {2048, 4096});
    for (const Index side : sides) {
        for (const gpu::SelfTestCase& item : gpu::sized_self_test_cases(side))
            benchmark::RegisterBenchmark(("vulkan/" + item.name).c_str(), vulkan, item)
                ->UseRealTime()
                ->Unit(benchmark::kMillisecond);
    }
    return true;
}();

} // namespace
