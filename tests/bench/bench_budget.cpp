// SPDX-License-Identifier: GPL-3.0-or-later
// Allotting a budget: the exact answer for a 7B model's layers, and the rounded one behind a dragged slider.
#include "core/base/random.h"
#include "core/plan/budget.h"

#include <benchmark/benchmark.h>

#include <cmath>

using namespace rankscope;

namespace {

enum Shape { k_smooth, k_noisy, k_identical };

/// Layers of 7 shapes, 3 numbers of bits, ranks in steps of 16: errors fall with both.
std::vector<BudgetLayer> model_layers(std::size_t layers, std::size_t ranks, Shape shape)
{
    const RandomStream stream(1, "bench");
    std::uint64_t next = 0;
    std::vector<BudgetLayer> result(layers);
    for (std::size_t i = 0; i < layers; ++i) {
        const double out = i % 7 < 4 ? 4096.0 : 11008.0;
        const double in = 4096.0;
        const double scale = shape == k_identical ? 0.03 : std::pow(10.0, -1.0 - stream.uniform(next++));
        const double decay = shape == k_identical ? 0.02 : 0.01 + 0.02 * stream.uniform(next++);
        for (int bits = 2; bits <= 4; ++bits) {
            for (std::size_t r = 0; r < ranks; ++r) {
                const double rank = 16.0 * static_cast<double>(r);
                const double noise = shape == k_noisy ? 1.0 + 0.1 * stream.uniform(next++) : 1.0;
                result[i].options.push_back(
                    {static_cast<std::uint64_t>(out * in * bits / 8.0 + 2.0 * rank * (out + in)),
                     scale * std::pow(4.0, 2 - bits) * std::exp(-decay * rank / 4.0) * noise});
            }
        }
    }
    return result;
}

void allocate_exact(benchmark::State& state)
{
    const auto layers = model_layers(224, 33, static_cast<Shape>(state.range(0)));
    const std::uint64_t budget = *least_bytes(layers) / 20 * static_cast<std::uint64_t>(state.range(1));
    Allocation allocation;
    for (auto _ : state)
        allocation = *allocate(layers, budget);
    state.counters["proven"] = allocation.proven ? 1.0 : 0.0;
    state.counters["gap"] = allocation.error / allocation.lower_bound - 1.0;
}
BENCHMARK(allocate_exact)
    ->ArgsProduct({{k_smooth, k_noisy, k_identical}, {23, 30, 44}})
    ->ArgNames({"shape", "budget_bits_x10"})
    ->Unit(benchmark::kMillisecond);

void allocate_rounded(benchmark::State& state)
{
    const auto layers = model_layers(300, 10, k_noisy);
    const std::uint64_t budget = *least_bytes(layers) / 20 * 27;
    AllocationOptions quick;
    quick.exact = false;
    for (auto _ : state)
        benchmark::DoNotOptimize(allocate(layers, budget, quick)->error);
}
BENCHMARK(allocate_rounded)->Unit(benchmark::kMillisecond);

} // namespace
