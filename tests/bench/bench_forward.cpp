// SPDX-License-Identifier: GPL-3.0-or-later
// What a pass over a text consists of. "share" is the rate over that of the inner loop alone, on operands in
// the first cache: what the CPU can reach with this instruction set. The last argument is the number of
// threads. RANKSCOPE_BENCH_MODEL names the checkpoint whose first block is run (default: the sample).
#include "core/base/thread_pool.h"
#include "core/calibration/streaming_pass.h"
#include "core/compute/detail/micro_kernel.h"
#include "core/compute/detail/panels.h"
#include "core/model/model.h"
#include "tests/support/numbers.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <ctime>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr Index k_tokens = 1024;

template <class Term>
void run_tile(const detail::ProductTile<Term, float>& tile)
{
    if constexpr (std::is_same_v<Term, float>)
        detail::micro_kernel().floats(tile);
    else
        detail::micro_kernel().bfloats(tile);
}

/// CPU time that this process has taken.
double cpu_seconds()
{
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Operations a second of the inner loop.
template <class Term>
double kernel_rate()
{
    constexpr Index steps = 64;
    constexpr int runs = 20000;
    constexpr double terms = std::is_same_v<Term, float> ? 1.0 : 2.0;
    static const double best = [] {
        detail::AlignedArray<Term> a(detail::k_tile_rows * steps);
        detail::AlignedArray<Term> b(detail::k_panel_cols * steps);
        detail::AlignedArray<float> c(detail::k_tile_rows * detail::k_panel_cols);
        std::fill_n(a.data(), detail::k_tile_rows * steps, Term{});
        std::fill_n(b.data(), detail::k_panel_cols * steps, Term{});
        detail::ProductTile<Term, float> tile;
        tile.a = a.data();
        tile.a_row = steps;
        tile.a_step = 1;
        tile.b = b.data();
        tile.b_step = detail::k_panel_cols;
        tile.steps = steps;
        tile.c = c.data();
        tile.c_row = detail::k_panel_cols;
        tile.rows = detail::k_tile_rows;
        tile.cols = detail::k_panel_cols;
        double shortest = 1e9;
        for (int attempt = 0; attempt < 5; ++attempt) {
            const double start = cpu_seconds();
            for (int i = 0; i < runs; ++i)
                run_tile(tile);
            shortest = std::min(shortest, cpu_seconds() - start);
        }
        return 2.0 * terms * runs * static_cast<double>(steps * detail::k_tile_rows * detail::k_panel_cols)
               / shortest;
    }();
    return best;
}

/// Shows the rate of `flop` operations an iteration, and its share of `peak`.
void set_rate(benchmark::State& state, double flop, double peak = kernel_rate<float>())
{
    using benchmark::Counter;
    const double all = flop * static_cast<double>(state.iterations());
    state.counters["flop"] = Counter(all, Counter::kIsRate);
    state.counters["share"] = Counter(all / peak, Counter::kIsRate);
}

Backend& cpu()
{
    static const std::unique_ptr<Backend> backend = make_cpu_backend();
    return *backend;
}

/// Null, and the reason told, where this CPU has none.
Backend* bfloat_cpu(benchmark::State& state)
{
    static const auto backend = make_bfloat_cpu_backend();
    if (backend)
        return backend->get();
    state.SkipWithError(backend.error().sentence().c_str());
    return nullptr;
}

void kernel(benchmark::State& state)
{
    for (auto _ : state)
        benchmark::DoNotOptimize(kernel_rate<float>());
    state.counters["flop"] = kernel_rate<float>();
    if (detail::micro_kernel().bfloats != nullptr)
        state.counters["bfloat16"] = kernel_rate<detail::BfloatPair>();
    state.SetLabel(detail::micro_kernel().name);
}
BENCHMARK(kernel)->Iterations(1);

void product(benchmark::State& state, Backend& backend, double peak)
{
    const Index n = state.range(0);
    const Index k = state.range(1);
    set_thread_count(static_cast<int>(state.range(2)));
    const Buffer x = backend.upload(random_floats(k_tokens, k, 1));
    const Buffer weight = backend.prepare_weight(backend.upload(random_floats(n, k, 2)));
    Buffer y = backend.allocate(k_tokens, n);
    for (auto _ : state)
        backend.gemm(1.0, x, Transpose::No, weight, Transpose::Yes, 0.0, y);
    set_rate(state, 2.0 * static_cast<double>(k_tokens * n * k), peak);
}

void prepared_product(benchmark::State& state) { product(state, cpu(), kernel_rate<float>()); }

void prepared_product_bfloat(benchmark::State& state)
{
    if (Backend* backend = bfloat_cpu(state))
        product(state, *backend, kernel_rate<detail::BfloatPair>());
}

void product_sizes(benchmark::internal::Benchmark* benchmark)
{
    for (const auto& [n, k] : {std::pair{192, 576}, {576, 576}, {1536, 576}, {576, 1536}, {4096, 4096}}) {
        for (const int threads : {1, 2})
            benchmark->Args({n, k, threads});
    }
    benchmark->ArgNames({"n", "k", "threads"})->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK(prepared_product)->Apply(product_sizes);
BENCHMARK(prepared_product_bfloat)->Apply(product_sizes);

void prepare(benchmark::State& state)
{
    set_thread_count(1);
    const Buffer w = cpu().upload(random_floats(state.range(0), state.range(0), 1));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().prepare_weight(w).storage());
    state.counters["weights"] =
        benchmark::Counter(static_cast<double>(w.size() * state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(prepare)->Arg(576)->Arg(2048)->Unit(benchmark::kMillisecond);

void moments(benchmark::State& state, Backend& backend, double peak)
{
    const Index n = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer x = backend.upload(random_floats(k_tokens, n, 1));
    Buffer h = backend.allocate(n, n, Precision::Float64);
    for (auto _ : state)
        backend.gram(1.0, x, Transpose::Yes, 1.0, h);
    set_rate(state, static_cast<double>(k_tokens * n * (n + 1)), peak);
}

void gram_moments(benchmark::State& state) { moments(state, cpu(), kernel_rate<float>()); }

void gram_moments_bfloat(benchmark::State& state)
{
    if (Backend* backend = bfloat_cpu(state))
        moments(state, *backend, kernel_rate<detail::BfloatPair>());
}
BENCHMARK(gram_moments)
    ->ArgsProduct({{576, 1536, 4096}, {1, 2}})
    ->ArgNames({"n", "threads"})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(gram_moments_bfloat)
    ->ArgsProduct({{576, 1536, 4096}, {1, 2}})
    ->ArgNames({"n", "threads"})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

void causal_attention(benchmark::State& state)
{
    const Index length = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const Buffer q = cpu().upload(random_floats(length, 9 * 64, 1));
    const Buffer k = cpu().upload(random_floats(length, 3 * 64, 2));
    for (auto _ : state)
        benchmark::DoNotOptimize(cpu().attention(q, k, k, {9, 3, 64, length, 0.125}).storage());
    set_rate(state, 9.0 * 2.0 * 64.0 * static_cast<double>(length * (length + 1)));
}
BENCHMARK(causal_attention)
    ->ArgsProduct({{512, 2048, 8192}, {1, 2}})
    ->ArgNames({"tokens", "threads"})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

std::shared_ptr<const Model> bench_model(benchmark::State& state)
{
    const char* chosen = std::getenv("RANKSCOPE_BENCH_MODEL");
    auto model = Model::open(chosen != nullptr ? chosen : RANKSCOPE_SOURCE_DIR "/resources/sample");
    if (model)
        return *model;
    state.SkipWithError(model.error().sentence().c_str());
    return nullptr;
}

void block_forward(benchmark::State& state)
{
    const auto model = bench_model(state);
    if (!model)
        return;
    const Index length = state.range(0);
    set_thread_count(static_cast<int>(state.range(1)));
    const auto weights = checkpoint_weights(model);
    const auto block = TransformerBlock::load(*model, *weights, 0, cpu());
    if (!block) {
        state.SkipWithError(block.error().sentence().c_str());
        return;
    }
    const Matrix start = 0.02F * random_floats(k_tokens, model->config().hidden, 1);
    for (auto _ : state) {
        Buffer hidden = cpu().upload(start);
        block->forward(hidden, length, cpu());
        benchmark::DoNotOptimize(hidden.storage());
    }
    double weight_count = 0.0;
    for (const LinearLayer& layer : model->linears())
        weight_count += layer.block == 0 ? static_cast<double>(layer.out * layer.in) : 0.0;
    const ModelConfig& config = model->config();
    const auto tokens = static_cast<double>(k_tokens);
    set_rate(state, 2.0 * tokens * weight_count
                        + 2.0 * tokens * static_cast<double>(config.heads * config.head_dim * (length + 1)));
    state.counters["tokens"] =
        benchmark::Counter(tokens * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(block_forward)
    ->ArgsProduct({{128, 512}, {1, 2}})
    ->ArgNames({"length", "threads"})
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

/// All blocks on text, as an evaluation or a calibration sends it through: tokens per second of CPU time.
void pass(benchmark::State& state, Backend& backend, bool logits)
{
    const auto model = bench_model(state);
    if (!model)
        return;
    set_thread_count(static_cast<int>(state.range(1)));
    TokenWindows windows{state.range(0), {}};
    for (Index i = 0; i < 2048; ++i)
        windows.tokens.push_back(static_cast<TokenId>(i * 7919 % model->config().vocabulary));
    const auto weights = checkpoint_weights(model);
    for (auto _ : state) {
        auto states = HiddenStates::in_memory(2048, model->config().hidden);
        const auto done = stream_blocks(*model, *weights, windows, *states, {}, backend, silent_monitor());
        const auto head = OutputHead::load(*model, backend);
        if (!done || !head)
            return state.SkipWithError("the pass failed");
        for (Index first = 0; logits && first < 2048; first += 256)
            benchmark::DoNotOptimize(
                head->logits(backend.upload(states->rows(first, 256)), backend).storage());
    }
    state.counters["tokens"] =
        benchmark::Counter(2048.0 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void pass_hidden(benchmark::State& state) { pass(state, cpu(), false); }
void pass_logits(benchmark::State& state) { pass(state, cpu(), true); }
void pass_hidden_bfloat(benchmark::State& state)
{
    if (Backend* backend = bfloat_cpu(state))
        pass(state, *backend, false);
}
void pass_sizes(benchmark::internal::Benchmark* benchmark)
{
    benchmark->Args({512, 1})->Args({512, 2})->ArgNames({"length", "threads"});
    benchmark->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK(pass_hidden)->Apply(pass_sizes);
BENCHMARK(pass_logits)->Apply(pass_sizes);
BENCHMARK(pass_hidden_bfloat)->Apply(pass_sizes);

} // namespace
