// SPDX-License-Identifier: GPL-3.0-or-later
// Learning the rounding of a whole block: 100 steps on 2 sequences of 512 tokens, LRQ (0) or FlexRound (1), 3
// bits a weight, one scale an output. RANKSCOPE_BENCH_MODEL names the checkpoint whose first block it is
// (default: the sample); docs/figures/block_torch.py does the same with PyTorch. Counters: the loss of the
// first and the last step.
#include "core/base/thread_pool.h"
#include "tests/support/learning_case.h"

#include <benchmark/benchmark.h>

#include <cstdlib>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr Index k_sequences = 2;

void block_learning(benchmark::State& state)
{
    const auto backend = make_cpu_backend();
    set_thread_count(static_cast<int>(state.range(1)));
    const char* chosen = std::getenv("RANKSCOPE_BENCH_MODEL");
    auto given = learning_case(chosen != nullptr ? chosen : RANKSCOPE_SOURCE_DIR "/resources/sample",
                               k_sequences, 512, *backend);
    if (!given)
        return state.SkipWithError(given.error().sentence().c_str());
    const auto kind = state.range(0) == 0 ? LearnedKind::Lrq : LearnedKind::FlexRound;
    UniformGrid grid;
    grid.bits = 3;
    grid.group = 0;
    HiddenStates inputs = states_of(given->inputs);
    HiddenStates targets = states_of(given->targets);
    ReconstructionOptions options;
    options.steps = 100;
    options.checks = 1;
    options.batch = k_sequences;
    for (auto _ : state) {
        BlockProblem problem{&*given->block, {}, {}, {}, {&inputs, &targets, given->length, 0}};
        std::map<LinearRole, LearnedLinear> linears = learned_linears(*given, grid, kind, *backend);
        for (auto& [role, linear] : linears)
            problem.learned[role] = &linear;
        const ReconstructionReport report = reconstruct_block(problem, options, *backend, silent_monitor());
        state.counters["start"] = report.step_losses.front();
        state.counters["end"] = report.curve.back().training;
    }
}
BENCHMARK(block_learning)
    ->ArgsProduct({{0, 1}, {1, 2}})
    ->ArgNames({"flexround", "threads"})
    ->Iterations(1)
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kSecond);

} // namespace
