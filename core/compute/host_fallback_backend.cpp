// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/host_fallback_backend.h"

#include <functional>
#include <utility>

namespace rankscope {
namespace {

bool lives_on_host(const Buffer& buffer) { return buffer.precision() == Precision::Float64; }

/// The host's accumulator, fed with what `to_host` brings.
class FetchingAccumulator final : public ColumnAccumulator {
public:
    using Fetch = std::function<Buffer(const Buffer&)>;

    FetchingAccumulator(std::unique_ptr<ColumnAccumulator> host, Fetch to_host)
        : host_(std::move(host)), to_host_(std::move(to_host))
    {}

    void add(const Buffer& x, std::span<const Index> apart) override { host_->add(to_host_(x), apart); }
    std::int64_t first_not_finite() override { return host_->first_not_finite(); }
    ColumnTotals totals() override { return host_->totals(); }

private:
    std::unique_ptr<ColumnAccumulator> host_;
    Fetch to_host_;
};

} // namespace

HostFallbackBackend::HostFallbackBackend() : host_(make_cpu_backend()) {}

Buffer HostFallbackBackend::to_host(const Buffer& buffer)
{
    if (!lives_on_host(buffer))
        return host_->upload(download(buffer));
    settle(buffer);
    return buffer;
}

Buffer HostFallbackBackend::from_host(const Buffer& buffer)
{
    return lives_on_host(buffer) ? buffer : upload(host_->download(buffer));
}

template <class Operation>
void HostFallbackBackend::change(Buffer& target, bool reads_target, const Operation& operation)
{
    if (lives_on_host(target)) {
        settle(target);
        operation(target);
        return;
    }
    Buffer on_host = reads_target ? to_host(target) : host_->allocate(target.rows(), target.cols());
    operation(on_host);
    assign(target, on_host);
}

Buffer HostFallbackBackend::rows_of(const Buffer& buffer, Index first, Index count)
{
    return from_host(host_->rows_of(to_host(buffer), first, count));
}

Buffer HostFallbackBackend::gather_columns(const Buffer& buffer, std::span<const Index> columns)
{
    return from_host(host_->gather_columns(to_host(buffer), columns));
}

Buffer HostFallbackBackend::gather_rows(const Buffer& buffer, std::span<const Index> rows)
{
    return from_host(host_->gather_rows(to_host(buffer), rows));
}

Buffer HostFallbackBackend::transposed(const Buffer& buffer)
{
    return from_host(host_->transposed(to_host(buffer)));
}

void HostFallbackBackend::gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb,
                               double beta, Buffer& c)
{
    change(c, beta != 0.0,
           [&](Buffer& on_host) { host_->gemm(alpha, to_host(a), ta, to_host(b), tb, beta, on_host); });
}

void HostFallbackBackend::gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c)
{
    change(c, beta != 0.0, [&](Buffer& on_host) { host_->gram(alpha, to_host(x), tx, beta, on_host); });
}

void HostFallbackBackend::add_scaled(double alpha, const Buffer& x, double beta, Buffer& y)
{
    change(y, beta != 0.0, [&](Buffer& on_host) { host_->add_scaled(alpha, to_host(x), beta, on_host); });
}

void HostFallbackBackend::scale_columns(Buffer& x, const VectorD& factors)
{
    change(x, true, [&](Buffer& on_host) { host_->scale_columns(on_host, factors); });
}

void HostFallbackBackend::scale_rows(Buffer& x, const VectorD& factors)
{
    change(x, true, [&](Buffer& on_host) { host_->scale_rows(on_host, factors); });
}

std::unique_ptr<ColumnAccumulator> HostFallbackBackend::column_accumulator(const ColumnOptions& options)
{
    return std::make_unique<FetchingAccumulator>(host_->column_accumulator(options),
                                                 [this](const Buffer& x) { return to_host(x); });
}

double HostFallbackBackend::dot(const Buffer& a, const Buffer& b)
{
    return host_->dot(to_host(a), to_host(b));
}

double HostFallbackBackend::max_abs(const Buffer& x) { return host_->max_abs(to_host(x)); }

Result<Buffer> HostFallbackBackend::cholesky(const Buffer& h)
{
    auto factor = host_->cholesky(to_host(h));
    if (!factor)
        return factor;
    return from_host(*factor);
}

void HostFallbackBackend::solve_lower(const Buffer& lower, Transpose transpose, Buffer& b)
{
    change(b, true, [&](Buffer& on_host) { host_->solve_lower(to_host(lower), transpose, on_host); });
}

SymmetricEigen HostFallbackBackend::top_eigen(const Buffer& symmetric, Index count)
{
    return host_->top_eigen(to_host(symmetric), count); // the vectors are float64: host memory
}

VectorD HostFallbackBackend::symmetric_eigenvalues(const Buffer& symmetric)
{
    return host_->symmetric_eigenvalues(to_host(symmetric));
}

VectorD HostFallbackBackend::singular_values(const Buffer& a) { return host_->singular_values(to_host(a)); }

void HostFallbackBackend::orthonormalize(Buffer& y)
{
    change(y, true, [&](Buffer& on_host) { host_->orthonormalize(on_host); });
}

void HostFallbackBackend::hadamard(Buffer& x, Transpose transpose)
{
    change(x, true, [&](Buffer& on_host) { host_->hadamard(on_host, transpose); });
}

GridBuffers HostFallbackBackend::fit_grid(const Buffer& w, const UniformGrid& grid)
{
    const GridBuffers fitted = host_->fit_grid(to_host(w), grid);
    return {fitted.grid, from_host(fitted.scales), from_host(fitted.zeros)};
}

RoundedBuffers HostFallbackBackend::round_nearest(const Buffer& w, const GridBuffers& grid)
{
    const RoundedBuffers rounded =
        host_->round_nearest(to_host(w), {grid.grid, to_host(grid.scales), to_host(grid.zeros)});
    return {from_host(rounded.values), from_host(rounded.codes), rounded.column_losses};
}

RoundedBuffers HostFallbackBackend::round_with_feedback(const Buffer& w, const Buffer& feedback,
                                                        const GridBuffers& grid,
                                                        std::span<const Index> group_column)
{
    const RoundedBuffers rounded = host_->round_with_feedback(
        to_host(w), to_host(feedback), {grid.grid, to_host(grid.scales), to_host(grid.zeros)}, group_column);
    return {from_host(rounded.values), from_host(rounded.codes), rounded.column_losses};
}

RoundedBuffers HostFallbackBackend::tune_codes(const Buffer& w, const RoundedBuffers& start,
                                               const GridBuffers& grid, const Buffer& hessian, int passes)
{
    const RoundedBuffers rounded =
        host_->tune_codes(to_host(w), {to_host(start.values), to_host(start.codes)},
                          {grid.grid, to_host(grid.scales), to_host(grid.zeros)}, to_host(hessian), passes);
    return {from_host(rounded.values), from_host(rounded.codes)};
}

LatticeBuffers HostFallbackBackend::round_lattice(const Buffer& w, const LatticeSweep& sweep)
{
    const Buffer feedback = to_host(sweep.feedback);
    const LatticeBuffers rounded = host_->round_lattice(
        to_host(w), {feedback, sweep.starts, sweep.diagonal, sweep.bits, sweep.scale});
    return {from_host(rounded.values), from_host(rounded.codes), rounded.loss};
}

LatticeBuffers HostFallbackBackend::tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                                 const LatticeDescent& descent)
{
    const Buffer hessian = to_host(descent.hessian);
    const LatticeBuffers tuned = host_->tune_lattice(to_host(w), {to_host(start.values), to_host(start.codes)},
                                                     {hessian, descent.bits, descent.scale, descent.passes});
    return {from_host(tuned.values), from_host(tuned.codes)};
}

Buffer HostFallbackBackend::rms_norm(const Buffer& x, const Buffer& gain, double epsilon)
{
    return from_host(host_->rms_norm(to_host(x), to_host(gain), epsilon));
}

Buffer HostFallbackBackend::layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias,
                                       double epsilon)
{
    return from_host(host_->layer_norm(to_host(x), to_host(gain), to_host(bias), epsilon));
}

void HostFallbackBackend::add_bias(Buffer& x, const Buffer& bias)
{
    change(x, true, [&](Buffer& on_host) { host_->add_bias(on_host, to_host(bias)); });
}

void HostFallbackBackend::rope(Buffer& x, const RopeShape& shape)
{
    change(x, true, [&](Buffer& on_host) { host_->rope(on_host, shape); });
}

Buffer HostFallbackBackend::attention(const Buffer& q, const Buffer& k, const Buffer& v,
                                      const AttentionShape& shape)
{
    return from_host(host_->attention(to_host(q), to_host(k), to_host(v), shape));
}

void HostFallbackBackend::silu_multiply(Buffer& gate, const Buffer& up)
{
    change(gate, true, [&](Buffer& on_host) { host_->silu_multiply(on_host, to_host(up)); });
}

void HostFallbackBackend::activate(Buffer& x, Activation activation)
{
    change(x, true, [&](Buffer& on_host) { host_->activate(on_host, activation); });
}

void HostFallbackBackend::activate_multiply(Buffer& gate, const Buffer& up, Activation activation)
{
    if (activation == Activation::Silu) // devices have a kernel for it
        return silu_multiply(gate, up);
    change(gate, true, [&](Buffer& on_host) { host_->activate_multiply(on_host, to_host(up), activation); });
}

void HostFallbackBackend::soft_cap(Buffer& x, double cap)
{
    change(x, true, [&](Buffer& on_host) { host_->soft_cap(on_host, cap); });
}

VectorD HostFallbackBackend::cross_entropy(const Buffer& logits, std::span<const Index> targets)
{
    return host_->cross_entropy(to_host(logits), targets);
}

VectorD HostFallbackBackend::kl_divergence(const Buffer& reference, const Buffer& logits)
{
    return host_->kl_divergence(to_host(reference), to_host(logits));
}

std::vector<Index> HostFallbackBackend::row_argmax(const Buffer& x) { return host_->row_argmax(to_host(x)); }

NormGradient HostFallbackBackend::rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                                    const Buffer& dy)
{
    const NormGradient gradient = host_->rms_norm_backward(to_host(x), to_host(gain), epsilon, to_host(dy));
    return {from_host(gradient.dx), from_host(gradient.dgain), {}};
}

NormGradient HostFallbackBackend::layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                                      const Buffer& dy)
{
    const NormGradient gradient = host_->layer_norm_backward(to_host(x), to_host(gain), epsilon, to_host(dy));
    return {from_host(gradient.dx), from_host(gradient.dgain), from_host(gradient.dbias)};
}

Buffer HostFallbackBackend::column_sums(const Buffer& x) { return from_host(host_->column_sums(to_host(x))); }

AttentionGradient HostFallbackBackend::attention_backward(const Buffer& q, const Buffer& k, const Buffer& v,
                                                          const Buffer& dy, const AttentionShape& shape)
{
    const AttentionGradient gradient =
        host_->attention_backward(to_host(q), to_host(k), to_host(v), to_host(dy), shape);
    return {from_host(gradient.dq), from_host(gradient.dk), from_host(gradient.dv)};
}

void HostFallbackBackend::activate_backward(const Buffer& x, Activation activation, Buffer& dy)
{
    change(dy, true, [&](Buffer& on_host) { host_->activate_backward(to_host(x), activation, on_host); });
}

GateGradient HostFallbackBackend::activate_multiply_backward(const Buffer& gate, const Buffer& up,
                                                             Activation activation, const Buffer& dy)
{
    const GateGradient gradient =
        host_->activate_multiply_backward(to_host(gate), to_host(up), activation, to_host(dy));
    return {from_host(gradient.dgate), from_host(gradient.dup)};
}

LearnedGrid HostFallbackBackend::to_host(const LearnedGrid& grid)
{
    return {grid.grid,
            to_host(grid.scales),
            to_host(grid.zeros),
            to_host(grid.shift),
            to_host(grid.exponent),
            to_host(grid.rows),
            grid.columns.empty() ? Buffer{} : to_host(grid.columns)};
}

LearnedRounding HostFallbackBackend::round_learned(const Buffer& w, const LearnedGrid& grid)
{
    const LearnedRounding rounded = host_->round_learned(to_host(w), to_host(grid));
    return {from_host(rounded.values), from_host(rounded.ratio)};
}

LearnedGradient HostFallbackBackend::round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                                            const LearnedGrid& grid)
{
    const LearnedGradient gradient =
        host_->round_learned_backward(to_host(dvalues), to_host(ratio), to_host(grid));
    return {from_host(gradient.dexponent), from_host(gradient.dshift), from_host(gradient.drows),
            gradient.dcolumns.empty() ? Buffer{} : from_host(gradient.dcolumns)};
}

void HostFallbackBackend::adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                                    const AdamStep& step)
{
    change(parameter, true, [&](Buffer& on_host) {
        change(first, true, [&](Buffer& first_on_host) {
            change(second, true, [&](Buffer& second_on_host) {
                host_->adam_step(on_host, to_host(gradient), first_on_host, second_on_host, step);
            });
        });
    });
}

} // namespace rankscope
