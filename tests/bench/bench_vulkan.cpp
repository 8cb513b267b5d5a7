// SPDX-License-Identifier: GPL-3.0-or-later
// Kernels of the first Vulkan device (RANKSCOPE_BENCH_DEVICE=vulkan:1 for another), by the device's own
// timestamps: GFLOP/s where arithmetic limits a kernel, GB/s where memory does, and peak%, the share of what
// the same device reached with a kernel that does nothing else. On a software device the sizes are those of
// the tests; a graphics card gets sizes that fill it.
#include "gpu/vulkan_backend.h"
#include "tests/support/numbers.h"

#include <benchmark/benchmark.h>

#include <cstdlib>

using namespace rankscope;
using namespace rankscope::test;

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

/// Runs an operation as often as the benchmark wants and sets the rates of the kernel that took longest.
template <class Operation>
void measure(benchmark::State& state, const Operation& operation)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const DevicePeak& most = peak(*backend);
    auto step = operation(*backend, Index{state.range(0)});
    (void)measure_kernels(*backend);
    for (auto _ : state) {
        step();
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

void sizes(benchmark::internal::Benchmark* benchmark)
{
    for (const std::int64_t size : {256, 512})
        benchmark->Arg(size);
    if (!software()) {
        for (const std::int64_t size : {2048, 4096})
            benchmark->Arg(size);
    }
    benchmark->UseRealTime()->Unit(benchmark::kMillisecond);
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

/// A square matrix on the device.
Buffer square(Backend& backend, Index n, std::uint64_t seed)
{
    return backend.upload(random_floats(n, n, seed));
}

void gemm(benchmark::State& state, Transpose ta, Transpose tb)
{
    measure(state, [=](Backend& backend, Index n) {
        return [=, &backend, a = square(backend, n, 1), b = square(backend, n, 2),
                c = backend.allocate(n, n)]() mutable { backend.gemm(1.0, a, ta, b, tb, 0.0, c); };
    });
}
BENCHMARK_CAPTURE(gemm, vulkan_nn, Transpose::No, Transpose::No)->Apply(sizes);
BENCHMARK_CAPTURE(gemm, vulkan_nt, Transpose::No, Transpose::Yes)->Apply(sizes);
BENCHMARK_CAPTURE(gemm, vulkan_tn, Transpose::Yes, Transpose::No)->Apply(sizes);

void vulkan_gram(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, x = square(backend, n, 1), c = backend.allocate(n, n)]() mutable {
            backend.gram(1.0, x, Transpose::Yes, 0.0, c);
        };
    });
}
BENCHMARK(vulkan_gram)->Apply(sizes);

void vulkan_hadamard(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, x = square(backend, n, 1)]() mutable { backend.hadamard(x, Transpose::No); };
    });
}
BENCHMARK(vulkan_hadamard)->Apply(sizes);

void vulkan_fit_grid(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, w = square(backend, n, 1)] { (void)backend.fit_grid(w, {.bits = 4, .group = 64}); };
    });
}
BENCHMARK(vulkan_fit_grid)->Apply(sizes);

void vulkan_round_nearest(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        const Buffer w = square(backend, n, 1);
        return [&backend, w, grid = backend.fit_grid(w, {.bits = 4, .group = 64})] {
            (void)backend.round_nearest(w, grid);
        };
    });
}
BENCHMARK(vulkan_round_nearest)->Apply(sizes);

void vulkan_round_with_feedback(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        const Buffer w = square(backend, n, 1);
        return [&backend, w, u = backend.upload(Matrix(Matrix::Identity(n, n))),
                grid = backend.fit_grid(w, {.bits = 2, .group = 64})] {
            (void)backend.round_with_feedback(w, u, grid, {});
        };
    });
}
BENCHMARK(vulkan_round_with_feedback)->Apply(sizes);

void vulkan_add_scaled(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, x = square(backend, n, 1), y = square(backend, n, 2)]() mutable {
            backend.add_scaled(0.5, x, 0.5, y);
        };
    });
}
BENCHMARK(vulkan_add_scaled)->Apply(sizes);

void vulkan_dot(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, x = square(backend, n, 1)] { (void)backend.dot(x, x); };
    });
}
BENCHMARK(vulkan_dot)->Apply(sizes);

void vulkan_rms_norm(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, x = square(backend, n, 1), gain = backend.upload(random_floats(1, n, 2))] {
            (void)backend.rms_norm(x, gain, 1e-5);
        };
    });
}
BENCHMARK(vulkan_rms_norm)->Apply(sizes);

void vulkan_silu_multiply(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, gate = square(backend, n, 1), up = square(backend, n, 2)]() mutable {
            backend.silu_multiply(gate, up);
        };
    });
}
BENCHMARK(vulkan_silu_multiply)->Apply(sizes);

void vulkan_attention(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        const AttentionShape shape{
            .heads = n / 64, .kv_heads = n / 64, .head_dim = 64, .sequence_length = n, .scale = 0.125};
        return [&backend, shape, q = square(backend, n, 1), k = square(backend, n, 2),
                v = square(backend, n, 3)] { (void)backend.attention(q, k, v, shape); };
    });
}
BENCHMARK(vulkan_attention)->Apply(sizes);

void vulkan_column_sums(benchmark::State& state)
{
    measure(state, [](Backend& backend, Index n) {
        return [&backend, n, x = square(backend, n, 1)] {
            backend.column_accumulator({n, {}, false})->add(x, {});
        };
    });
}
BENCHMARK(vulkan_column_sums)->Apply(sizes);

} // namespace
