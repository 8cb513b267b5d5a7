// SPDX-License-Identifier: GPL-3.0-or-later
// Kernels of the first Vulkan device (RANKSCOPE_BENCH_DEVICE=vulkan:1 for another). On a software device the
// sizes are those of the tests; a graphics card gets sizes that fill it.
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

/// Work is recorded and runs when a result is asked for.
void finish(Backend& backend, const Buffer& result) { backend.download(backend.rows_of(result, 0, 1)); }

void set_rate(benchmark::State& state, const char* unit, double per_iteration)
{
    state.counters[unit] = benchmark::Counter(per_iteration * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
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

void vulkan_gemm(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const Index n = state.range(0);
    const Buffer a = backend->upload(random_floats(n, n, 1));
    const Buffer b = backend->upload(random_floats(n, n, 2));
    Buffer c = backend->allocate(n, n);
    for (auto _ : state) {
        backend->gemm(1.0, a, Transpose::No, b, Transpose::Yes, 0.0, c);
        finish(*backend, c);
    }
    set_rate(state, "flop", 2.0 * static_cast<double>(n * n * n));
}
BENCHMARK(vulkan_gemm)->Apply(sizes);

void vulkan_gram(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const Index n = state.range(0);
    const Buffer x = backend->upload(random_floats(n, n, 1));
    Buffer c = backend->allocate(n, n);
    for (auto _ : state) {
        backend->gram(1.0, x, Transpose::Yes, 0.0, c);
        finish(*backend, c);
    }
    set_rate(state, "flop", static_cast<double>(n * n * (n + 1)));
}
BENCHMARK(vulkan_gram)->Apply(sizes);

void vulkan_hadamard(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const Index n = state.range(0);
    Buffer x = backend->upload(random_floats(n, n, 1));
    for (auto _ : state) {
        backend->hadamard(x, Transpose::No);
        finish(*backend, x);
    }
    set_rate(state, "weights", static_cast<double>(n * n));
}
BENCHMARK(vulkan_hadamard)->Apply(sizes);

void vulkan_round_nearest(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const Index n = state.range(0);
    const Buffer w = backend->upload(random_floats(n, n, 1));
    const GridBuffers grid = backend->fit_grid(w, {.bits = 4, .group = 64});
    for (auto _ : state)
        finish(*backend, backend->round_nearest(w, grid).codes);
    set_rate(state, "weights", static_cast<double>(n * n));
}
BENCHMARK(vulkan_round_nearest)->Apply(sizes);

void vulkan_round_with_feedback(benchmark::State& state)
{
    Backend* backend = device(state);
    if (backend == nullptr)
        return;
    const Index n = state.range(0);
    const Buffer w = backend->upload(random_floats(n, n, 1));
    const Buffer u = backend->upload(Matrix(Matrix::Identity(n, n)));
    const GridBuffers grid = backend->fit_grid(w, {.bits = 2, .group = 64});
    for (auto _ : state)
        finish(*backend, backend->round_with_feedback(w, u, grid, {}).codes);
    set_rate(state, "weights", static_cast<double>(n * n));
}
BENCHMARK(vulkan_round_with_feedback)->Apply(sizes);

} // namespace
