// SPDX-License-Identifier: GPL-3.0-or-later
// Every operation once, on square matrices of one side: what is timed, and checked before it is.
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <memory>

namespace rankscope::gpu::self_test {

namespace {

// One code on a tie that falls the other way is one step off.
constexpr double k_tie_tolerance = 2e-2;

/// A step is a call; `result` downloads what the last one left.
using Prepare = std::function<SelfTestStep(Backend&, Index side)>;

struct SizedOperation {
    const char* name;
    double tolerance;
    Prepare prepare;
};

Buffer square(Backend& backend, Index n, const char* what)
{
    return backend.upload(normal_matrix(n, n, what));
}

/// A step that makes a matrix.
template <class Make>
SelfTestStep making(Backend& backend, Make make)
{
    const auto made = std::make_shared<Buffer>();
    return {[made, make]() mutable { *made = make(); },
            [made, &backend] { return backend.download_double(*made); }};
}

/// A step that changes a matrix.
template <class Change>
SelfTestStep changing(Backend& backend, Buffer start, Change change)
{
    const auto changed = std::make_shared<Buffer>(std::move(start));
    return {[changed, change]() mutable { change(*changed); },
            [changed, &backend] { return backend.download_double(*changed); }};
}

SizedOperation product(const char* name, Transpose ta, Transpose tb)
{
    return {name, k_float_tolerance, [ta, tb](Backend& backend, Index n) {
                return changing(backend, backend.allocate(n, n),
                                [&backend, ta, tb, a = square(backend, n, "a"), b = square(backend, n, "b")](
                                    Buffer& c) { backend.gemm(1.0, a, ta, b, tb, 0.0, c); });
            }};
}

AttentionShape heads_of(Index n)
{
    const Index width = n % 64 == 0 ? 64 : n;
    return {
        .heads = n / width, .kv_heads = n / width, .head_dim = width, .sequence_length = n, .scale = 0.125};
}

LearnedGrid unlearned(Backend& backend, const Buffer& w)
{
    const GridBuffers fitted = backend.fit_grid(w, {.bits = 4, .group = 64});
    const auto zeros = [&](Index rows, Index cols) { return backend.allocate(rows, cols); };
    return {fitted.grid,
            fitted.scales,
            fitted.zeros,
            zeros(w.rows(), fitted.scales.cols()),
            zeros(w.rows(), w.cols()),
            zeros(w.rows(), 1),
            zeros(1, w.cols())};
}

void add_sized_products(std::vector<SizedOperation>& table)
{
    table.push_back(product("gemm nn", Transpose::No, Transpose::No));
    table.push_back(product("gemm nt", Transpose::No, Transpose::Yes));
    table.push_back(product("gemm tn", Transpose::Yes, Transpose::No));
    table.push_back({"gram", k_float_tolerance, [](Backend& backend, Index n) {
                         return changing(backend, backend.allocate(n, n),
                                         [&backend, x = square(backend, n, "x")](Buffer& c) {
                                             backend.gram(1.0, x, Transpose::Yes, 0.0, c);
                                         });
                     }});
    table.push_back({"solve_lower", k_float_tolerance, [](Backend& backend, Index n) {
                         Matrix lower = normal_matrix(n, n, "lower") / static_cast<float>(n);
                         lower.diagonal().setConstant(2.0F);
                         return making(backend, [&backend, lower = backend.upload(lower),
                                                 b = square(backend, n, "b")] {
                             Buffer x = backend.copy(b);
                             backend.solve_lower(lower, Transpose::No, x);
                             return x;
                         });
                     }});
    table.push_back({"hadamard", k_float_tolerance, [](Backend& backend, Index n) {
                         return changing(backend, square(backend, n, "x"),
                                         [&backend](Buffer& x) { backend.hadamard(x, Transpose::No); });
                     }});
}

void add_sized_rounding(std::vector<SizedOperation>& table)
{
    table.push_back({"fit_grid", k_float_tolerance, [](Backend& backend, Index n) {
                         return making(backend, [&backend, w = square(backend, n, "w")] {
                             return backend.fit_grid(w, {.bits = 4, .group = 64}).scales;
                         });
                     }});
    table.push_back({"round_nearest", k_tie_tolerance, [](Backend& backend, Index n) {
                         const Buffer w = square(backend, n, "w");
                         const GridBuffers grid = backend.fit_grid(w, {.bits = 4, .group = 64});
                         return making(backend,
                                       [&backend, w, grid] { return backend.round_nearest(w, grid).values; });
                     }});
    table.push_back({"round_with_feedback", k_tie_tolerance, [](Backend& backend, Index n) {
                         const Buffer w = square(backend, n, "w");
                         const GridBuffers grid = backend.fit_grid(w, {.bits = 2, .group = 64});
                         const Buffer u = backend.upload(Matrix(Matrix::Identity(n, n)));
                         return making(backend, [&backend, w, u, grid] {
                             return backend.round_with_feedback(w, u, grid, {}).values;
                         });
                     }});
    table.push_back({"round_learned", k_tie_tolerance, [](Backend& backend, Index n) {
                         const Buffer w = square(backend, n, "w");
                         const LearnedGrid grid = unlearned(backend, w);
                         return making(backend,
                                       [&backend, w, grid] { return backend.round_learned(w, grid).values; });
                     }});
    table.push_back({"round_learned_backward", k_tie_tolerance, [](Backend& backend, Index n) {
                         const Buffer w = square(backend, n, "w");
                         const LearnedGrid grid = unlearned(backend, w);
                         const Buffer ratio = backend.round_learned(w, grid).ratio;
                         return making(backend, [&backend, grid, ratio, slope = square(backend, n, "slope")] {
                             return backend.round_learned_backward(slope, ratio, grid).dexponent;
                         });
                     }});
}

void add_sized_rows(std::vector<SizedOperation>& table)
{
    table.push_back({"add_scaled", k_float_tolerance, [](Backend& backend, Index n) {
                         return changing(backend, square(backend, n, "y"),
                                         [&backend, x = square(backend, n, "x")](Buffer& y) {
                                             backend.add_scaled(0.5, x, 0.5, y);
                                         });
                     }});
    table.push_back({"dot", 1e-9, [](Backend& backend, Index n) {
                         const auto sum = std::make_shared<double>(0.0);
                         return SelfTestStep{
                             [&backend, sum, x = square(backend, n, "x")] { *sum = backend.dot(x, x); },
                             [sum] { return MatrixD(MatrixD::Constant(1, 1, *sum)); }};
                     }});
    table.push_back({"rms_norm", k_float_tolerance, [](Backend& backend, Index n) {
                         const Buffer gain = backend.upload(normal_matrix(1, n, "gain"));
                         return making(backend, [&backend, gain, x = square(backend, n, "x")] {
                             return backend.rms_norm(x, gain, 1e-5);
                         });
                     }});
    table.push_back({"rms_norm_backward", 2e-6, [](Backend& backend, Index n) {
                         const Buffer gain = backend.upload(normal_matrix(1, n, "gain"));
                         return making(backend, [&backend, gain, x = square(backend, n, "x"),
                                                 dy = square(backend, n, "dy")] {
                             return backend.rms_norm_backward(x, gain, 1e-5, dy).dx;
                         });
                     }});
    table.push_back({"silu_multiply", 2e-6, [](Backend& backend, Index n) {
                         return changing(backend, square(backend, n, "gate"),
                                         [&backend, up = square(backend, n, "up")](Buffer& gate) {
                                             backend.silu_multiply(gate, up);
                                         });
                     }});
    table.push_back({"adam_step", 4e-6, [](Backend& backend, Index n) {
                         return changing(backend, square(backend, n, "parameter"),
                                         [&backend, gradient = square(backend, n, "gradient"),
                                          first = backend.allocate(n, n),
                                          second = backend.allocate(n, n)](Buffer& parameter) mutable {
                                             backend.adam_step(parameter, gradient, first, second, {});
                                         });
                     }});
    table.push_back({"kl_divergence", 1e-5, [](Backend& backend, Index n) {
                         const auto found = std::make_shared<VectorD>();
                         return SelfTestStep{
                             [&backend, found, p = square(backend, n, "p"), q = square(backend, n, "q")] {
                                 *found = backend.kl_divergence(p, q);
                             },
                             [found] { return MatrixD(*found); }};
                     }});
    table.push_back({"column_sums", k_float_tolerance, [](Backend& backend, Index n) {
                         return making(backend, [&backend, x = square(backend, n, "x")] {
                             return backend.column_sums(x);
                         });
                     }});
    table.push_back({"column_accumulator", 2e-6, [](Backend& backend, Index n) {
                         const auto found = std::make_shared<VectorD>();
                         return SelfTestStep{[&backend, found, n, x = square(backend, n, "x")] {
                                                 const auto sums = backend.column_accumulator({n, {}, false});
                                                 sums->add(x, {});
                                                 *found = sums->totals().others.m2;
                                             },
                                             [found] { return MatrixD(*found); }};
                     }});
}

void add_sized_attention(std::vector<SizedOperation>& table)
{
    table.push_back({"attention", 4e-6, [](Backend& backend, Index n) {
                         return making(backend, [&backend, n, q = square(backend, n, "q"),
                                                 k = square(backend, n, "k"), v = square(backend, n, "v")] {
                             return backend.attention(q, k, v, heads_of(n));
                         });
                     }});
    table.push_back({"attention_backward", 4e-6, [](Backend& backend, Index n) {
                         return making(backend,
                                       [&backend, n, q = square(backend, n, "q"), k = square(backend, n, "k"),
                                        v = square(backend, n, "v"), dy = square(backend, n, "dy")] {
                                           return backend.attention_backward(q, k, v, dy, heads_of(n)).dq;
                                       });
                     }});
}

} // namespace

void add_sized(Cases& cases, Index side)
{
    std::vector<SizedOperation> table;
    add_sized_products(table);
    add_sized_rounding(table);
    add_sized_rows(table);
    add_sized_attention(table);
    for (const SizedOperation& operation : table) {
        const auto prepare = [side, make = operation.prepare](Backend& backend) {
            return make(backend, side);
        };
        cases.push_back({fmt::format("{} {}x{}", operation.name, side, side), operation.tolerance,
                         [prepare](Backend& device, Backend& reference) {
                             const SelfTestStep found = prepare(device);
                             const SelfTestStep expected = prepare(reference);
                             found.run();
                             expected.run();
                             return normalized_error(found.result(), expected.result());
                         },
                         prepare});
    }
}

} // namespace rankscope::gpu::self_test
