// SPDX-License-Identifier: GPL-3.0-or-later
// Operations of the CPU backend. Where a benchmark has two arguments, the last is the number of threads.
#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "tests/support/numbers.h"

#include <benchmark/benchmark.h>

using namespace rankscope;
using namespace rankscope::test;

namespace {

Backend& cpu()
{
    static const std::unique_ptr<Backend> backend = make_cpu_backend();
    return *backend;
}

/// Work done so far over the elapsed time, shown as "1.5G/s".
void set_rate(benchmark::State& state, const char* unit, double per_iteration)
{
    state.counters[unit] = benchmark::Counter(per_iteration * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

void set_weights(benchmark::State& state, const Buffer& weights)
{
    set_rate(state, "weights", static_cast<double>(weights.size()));
}

void gemm(benchmark::State& state)
{
    const Index n = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer a = cpu().upload(random_floats(n, n, 1));
    const Buffer b = cpu().upload(random_floats(n, n, 2));
    Buffer c = cpu().allocate(n, n);
    for (auto _ : state)
        cpu().gemm(1.0, a, Transpose::No, b, Transpose::Yes, 0.0, c);
    set_rate(state, "flop", 2.0 * static_cast<double>(n * n * n));
}
BENCHMARK(gemm)->ArgsProduct({{512, 1024}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

void gram(benchmark::State& state)
{
    const Index n = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer x = cpu().upload(random_floats(2048, n, 1));
    Buffer c = cpu().allocate(n, n, Precision::Float64);
    for (auto _ : state)
        cpu().gram(1.0, x, Transpose::Yes, 1.0, c);
    set_rate(state, "flop", 2048.0 * static_cast<double>(n * (n + 1)));
}
BENCHMARK(gram)->ArgsProduct({{1024}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

UniformGrid grid_of(Index group, ClipSearch clip = ClipSearch::None)
{
    UniformGrid grid;
    grid.group = group;
    grid.clip = clip;
    return grid;
}

void fit_grid(benchmark::State& state)
{
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer w = cpu().upload(random_floats(256, 1024, 1));
    const UniformGrid grid = grid_of(64, static_cast<ClipSearch>(state.range(0)));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().fit_grid(w, grid).scales.storage());
    set_weights(state, w);
}
BENCHMARK(fit_grid)->ArgsProduct({{0, 1, 2}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

void round_nearest(benchmark::State& state)
{
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer w = cpu().upload(random_floats(2048, 2048, 1));
    const GridBuffers grid = cpu().fit_grid(w, grid_of(state.range(0)));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().round_nearest(w, grid).codes.storage());
    set_weights(state, w);
}
BENCHMARK(round_nearest)->ArgsProduct({{64, 0}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

void round_with_feedback(benchmark::State& state)
{
    const Index n = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer w = cpu().upload(random_floats(n, n, 1));
    const Buffer factor = cpu().upload(Matrix(0.01F * random_floats(n, n, 2)));
    const GridBuffers grid = cpu().fit_grid(w, grid_of(64));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().round_with_feedback(w, factor, grid, {}).codes.storage());
    set_weights(state, w);
}
BENCHMARK(round_with_feedback)
    ->ArgsProduct({{512, 1024}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void hadamard(benchmark::State& state)
{
    set_thread_count(static_cast<int>(state.range(1)));
    Buffer x = cpu().upload(random_floats(1024, state.range(0), 1));
    for (auto _ : state)
        cpu().hadamard(x, Transpose::No);
    set_weights(state, x);
}
BENCHMARK(hadamard)->ArgsProduct({{1024, 1536, 1376}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

void attention(benchmark::State& state)
{
    set_thread_count(static_cast<int>(state.range(1)));
    const Index length = state.range(0);
    const Buffer q = cpu().upload(random_floats(length, 512, 1));
    const Buffer k = cpu().upload(random_floats(length, 256, 2));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().attention(q, k, k, {8, 4, 64, length, 0.125, 0}).storage());
    set_rate(state, "tokens", static_cast<double>(length));
}
BENCHMARK(attention)->ArgsProduct({{512, 2048}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

void cholesky(benchmark::State& state)
{
    const Index n = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer h = cpu().upload(random_moments(n, 1));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().cholesky(h)->storage());
    set_rate(state, "flop", static_cast<double>(n * n * n) / 3.0);
}
BENCHMARK(cholesky)->ArgsProduct({{576, 2048}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);

} // namespace
