// SPDX-License-Identifier: GPL-3.0-or-later
// Learning the rounding of a whole block: 100 steps on 2 sequences of 512 tokens, LRQ (0) or FlexRound (1), 3
// bits a weight, one scale an output. RANKSCOPE_BENCH_MODEL names the checkpoint whose first block it is
// (default: the sample); docs/figures/block_torch.py does the same with PyTorch. Counters: the loss of the
// first and the last step.
#include "core/base/thread_pool.h"
#include "core/calibration/streaming_pass.h"
#include "core/methods/block_reconstruction.h"
#include "core/methods/learned_linear.h"
#include "core/model/differentiable_block.h"
#include "core/model/model.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>

using namespace rankscope;

namespace {

constexpr Index k_sequences = 2;

/// The block, its streams, and its linears before the first step.
struct LearningCase {
    std::shared_ptr<const Model> model;
    std::optional<DifferentiableBlock> block;
    BlockWeights weights;
    std::map<LinearRole, std::string> names;
    Index length = 0;
    Matrix inputs, targets;
};

Result<LearningCase> learning_case(Backend& backend)
{
    const char* chosen = std::getenv("RANKSCOPE_BENCH_MODEL");
    auto model = Model::open(chosen != nullptr ? chosen : RANKSCOPE_SOURCE_DIR "/resources/sample");
    if (!model)
        return model.error();
    auto block = DifferentiableBlock::load(**model, 0, backend);
    if (!block)
        return block.error();
    LearningCase result{
        *model, std::move(*block), {}, {}, std::min<Index>(512, (*model)->config().max_positions), {}, {}};
    for (const BlockPart& part : block_parts(**model, 0)) {
        auto weight = (*model)->weight(*part.layer);
        if (!weight)
            return weight.error();
        const Buffer whole = backend.upload(*weight);
        result.weights[part.role] = part.rows.empty() ? whole : backend.gather_rows(whole, part.rows);
        result.names[part.role] = part.layer->name;
    }
    std::vector<TokenId> ids;
    for (Index i = 0; i < k_sequences * result.length; ++i)
        ids.push_back(static_cast<TokenId>(i * 7919 % (*model)->config().vocabulary));
    auto x = embed(**model, ids, result.length, backend);
    if (!x)
        return x.error();
    result.inputs = backend.download(*x);
    result.targets =
        backend.download(result.block->forward(*x, result.length, result.weights, {}, nullptr, backend));
    return result;
}

HiddenStates states_of(const Matrix& rows)
{
    auto states = HiddenStates::in_memory(rows.rows(), rows.cols());
    states->rows(0, rows.rows()) = rows;
    return std::move(*states);
}

void block_learning(benchmark::State& state)
{
    const auto backend = make_cpu_backend();
    set_thread_count(static_cast<int>(state.range(1)));
    auto given = learning_case(*backend);
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
        std::map<LinearRole, LearnedLinear> linears;
        for (const auto& [role, weight] : given->weights) {
            const Index rank = default_learned_rank(weight.rows(), weight.cols());
            const RandomStream random(0, given->names.at(role));
            linears.emplace(
                role, LearnedLinear(weight, backend->fit_grid(weight, grid), kind, rank, random, *backend));
        }
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
