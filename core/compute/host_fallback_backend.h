// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

namespace rankscope {

/// Base of device backends: every operation downloads its inputs, computes on the CPU backend and uploads the result,
/// so that a device backend overrides only what it has a kernel for. Float64 buffers stay in host memory: they are
/// buffers of the CPU backend, and operations on them run there. Memory operations on float32 are the device's own.
class HostFallbackBackend : public Backend {
public:
    HostFallbackBackend();

    Buffer rows_of(const Buffer& buffer, Index first, Index count) override;
    Buffer gather_columns(const Buffer& buffer, std::span<const Index> columns) override;
    Buffer gather_rows(const Buffer& buffer, std::span<const Index> rows) override;
    Buffer transposed(const Buffer& buffer) override;
    void gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb, double beta,
              Buffer& c) override;
    void gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c) override;
    void add_scaled(double alpha, const Buffer& x, double beta, Buffer& y) override;
    void scale_columns(Buffer& x, const VectorD& factors) override;
    void scale_rows(Buffer& x, const VectorD& factors) override;
    double dot(const Buffer& a, const Buffer& b) override;
    double max_abs(const Buffer& x) override;
    std::unique_ptr<ColumnAccumulator> column_accumulator(const ColumnOptions& options) override;
    Result<Buffer> cholesky(const Buffer& h) override;
    void solve_lower(const Buffer& lower, Transpose transpose, Buffer& b) override;
    SymmetricEigen top_eigen(const Buffer& symmetric, Index count) override;
    VectorD symmetric_eigenvalues(const Buffer& symmetric) override;
    VectorD singular_values(const Buffer& a) override;
    void orthonormalize(Buffer& y) override;
    void hadamard(Buffer& x, Transpose transpose) override;
    GridBuffers fit_grid(const Buffer& w, const UniformGrid& grid) override;
    RoundedBuffers round_nearest(const Buffer& w, const GridBuffers& grid) override;
    RoundedBuffers round_with_feedback(const Buffer& w, const Buffer& feedback, const GridBuffers& grid,
                                       std::span<const Index> group_column) override;
    RoundedBuffers tune_codes(const Buffer& w, const RoundedBuffers& start, const GridBuffers& grid,
                              const Buffer& hessian, int passes) override;
    LatticeBuffers round_lattice(const Buffer& w, const LatticeSweep& sweep) override;
    LatticeBuffers tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                const LatticeDescent& descent) override;
    Buffer rms_norm(const Buffer& x, const Buffer& gain, double epsilon) override;
    Buffer layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias, double epsilon) override;
    void add_bias(Buffer& x, const Buffer& bias) override;
    void rope(Buffer& x, const RopeShape& shape) override;
    Buffer attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape) override;
    void silu_multiply(Buffer& gate, const Buffer& up) override;
    void activate(Buffer& x, Activation activation) override;
    void activate_multiply(Buffer& gate, const Buffer& up, Activation activation) override;
    void soft_cap(Buffer& x, double cap) override;
    VectorD cross_entropy(const Buffer& logits, std::span<const Index> targets) override;
    VectorD kl_divergence(const Buffer& reference, const Buffer& logits) override;
    std::vector<Index> row_argmax(const Buffer& x) override;
    NormGradient rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                   const Buffer& dy) override;
    NormGradient layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                     const Buffer& dy) override;
    Buffer column_sums(const Buffer& x) override;
    AttentionGradient attention_backward(const Buffer& q, const Buffer& k, const Buffer& v, const Buffer& dy,
                                         const AttentionShape& shape) override;
    void activate_backward(const Buffer& x, Activation activation, Buffer& dy) override;
    GateGradient activate_multiply_backward(const Buffer& gate, const Buffer& up, Activation activation,
                                            const Buffer& dy) override;
    LearnedRounding round_learned(const Buffer& w, const LearnedGrid& grid) override;
    LearnedGradient round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                           const LearnedGrid& grid) override;
    void adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                   const AdamStep& step) override;

protected:
    Backend& host() { return *host_; }
    /// The buffer as one of the host backend: itself if it lives there already (float64), else a download.
    Buffer to_host(const Buffer& buffer);
    LearnedGrid to_host(const LearnedGrid& grid);
    /// A host buffer as one of this backend: float64 stays, float32 is uploaded.
    Buffer from_host(const Buffer& buffer);
    /// Called before a float64 matrix is read or changed here: a device that holds a part of its sum adds it now.
    virtual void settle(const Buffer&) {}
    /// Overwrites the content of `target` with a host buffer of the same shape.
    virtual void assign(Buffer& target, const Buffer& host_buffer) = 0;

private:
    /// Runs an operation that changes `target` on the host's copy of it and brings the result back.
    template <class Operation>
    void change(Buffer& target, bool reads_target, const Operation& operation);

    std::unique_ptr<Backend> host_;
};

} // namespace rankscope
