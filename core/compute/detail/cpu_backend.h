// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "core/compute/detail/rotation_tables.h"

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

namespace rankscope::detail {

/// Host memory behind a buffer; which of the two is used follows from the buffer's precision.
class CpuStorage final : public BufferStorage {
public:
    explicit CpuStorage(Matrix matrix) : single(std::move(matrix)) {}
    explicit CpuStorage(MatrixD matrix) : twice(std::move(matrix)) {}
    Matrix single;
    MatrixD twice;
};

/// Throws BackendFailure(Internal): a caller broke the contract of `operation`.
[[noreturn]] void contract_broken(const char* operation, const std::string& what);
void require(bool fine, const char* operation, const char* what);

/// The storage of a buffer that this backend made; anything else is a broken contract.
CpuStorage& cpu_storage(const Buffer& buffer);

template <class T>
RowMajor<T>& elements(const Buffer& buffer)
{
    if constexpr (std::is_same_v<T, float>)
        return cpu_storage(buffer).single;
    else
        return cpu_storage(buffer).twice;
}

Buffer make_buffer(Matrix matrix);
Buffer make_buffer(MatrixD matrix);
/// A copy of the content in float64 or float32, whatever the buffer's precision.
MatrixD double_copy(const Buffer& buffer);
Matrix single_copy(const Buffer& buffer);

/// Calls f with the buffer's matrix, float or double.
template <class F>
decltype(auto) with_elements(const Buffer& buffer, F&& f)
{
    if (buffer.precision() == Precision::Float32)
        return f(elements<float>(buffer));
    return f(elements<double>(buffer));
}

/// body(first, count) for each stretch of at most `step` of `total` items, in parallel. The stretches do not
/// depend on the number of threads; a single one runs on the calling thread.
template <class Body>
void for_stretches(Index total, Index step, const Body& body)
{
    const Index stretches = (total + step - 1) / step;
    const auto run = [&](std::int64_t i) {
        const Index first = static_cast<Index>(i) * step;
        body(first, std::min(step, total - first));
    };
    if (stretches == 1)
        run(0);
    else
        parallel_for(0, stretches, run);
}

/// How many rows of `cols` elements make a stretch worth a task.
inline Index rows_per_task(Index cols) { return std::max<Index>(1, 65536 / std::max<Index>(1, cols)); }

/// OpenBLAS and LAPACK count in 32 bits.
int blas_int(Index value);

// Row-major products on raw memory, one thread (cpu_products.cpp).
void blas_gemm(Transpose ta, Transpose tb, Index m, Index n, Index k, float alpha, const float* a, Index lda,
               const float* b, Index ldb, float beta, float* c, Index ldc);
void blas_gemm(Transpose ta, Transpose tb, Index m, Index n, Index k, double alpha, const double* a,
               Index lda, const double* b, Index ldb, double beta, double* c, Index ldc);

/// In which precision prepared weights and the moments' products take their factors.
enum class Factors : std::uint8_t { Float32, Bfloat16 };

/// The reference backend: OpenBLAS and LAPACK on tiles of fixed size, our own vector loops for the rest. One
/// .cpp per group of operations.
class CpuBackend final : public Backend {
public:
    explicit CpuBackend(Factors factors);

    std::string name() const override;
    std::string id() const override { return factors_ == Factors::Float32 ? "cpu" : "cpu:bf16"; }
    bool supports(Op) const override { return true; }

    Buffer allocate(Index rows, Index cols, Precision precision) override;
    Buffer upload(const Eigen::Ref<const Matrix>& matrix) override;
    Buffer upload(const Eigen::Ref<const MatrixD>& matrix) override;
    Matrix download(const Buffer& buffer) override;
    MatrixD download_double(const Buffer& buffer) override;
    const Matrix* host_matrix(const Buffer& buffer) const override;
    Buffer convert(const Buffer& buffer, Precision precision) override;
    Buffer copy(const Buffer& buffer) override;
    Buffer rows_of(const Buffer& buffer, Index first, Index count) override;
    Buffer gather_columns(const Buffer& buffer, std::span<const Index> columns) override;
    Buffer gather_rows(const Buffer& buffer, std::span<const Index> rows) override;
    Buffer transposed(const Buffer& buffer) override;

    void gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb, double beta,
              Buffer& c) override;
    void gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c) override;
    Buffer multiply(const Buffer& a, Transpose ta, const Buffer& b, Transpose tb) override;
    Buffer prepare_weight(const Buffer& weight) override;
    Buffer prepare_weight(Index rows, Index cols, const RowDecoder& decode) override;

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

private:
    Factors factors_;
    RotationTables rotations_;
};

} // namespace rankscope::detail
