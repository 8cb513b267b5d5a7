// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/compute/buffer.h"
#include "core/compute/column_statistics.h"
#include "core/compute/lattice_sweep.h"
#include "core/compute/training.h"
#include "core/compute/uniform_grid.h"

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

enum class Transpose : bool { No = false, Yes = true };

/// What an MLP does between its products. GeluTanh is the approximation 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
enum class Activation : std::uint8_t { Silu, Gelu, GeluTanh, Relu };

/// A device failed in the middle of an operation (lost, out of memory). Thrown by Backend operations, caught where a
/// job starts; the run then redoes the layer on the CPU.
class BackendFailure : public std::exception {
public:
    explicit BackendFailure(Error error) : error_(std::move(error)), text_(error_.sentence()) {}
    const Error& error() const { return error_; }
    const char* what() const noexcept override { return text_.c_str(); }

private:
    Error error_;
    std::string text_;
};

/// Operations that a backend may compute on its device. What it does not support natively it computes on the host,
/// with the same meaning: callers never have to ask, reports and tests may.
enum class Op : std::uint8_t {
    Gemm, Gram, Hadamard, QuantizeGroups, RoundWithFeedback, Elementwise, Reduce,
    Cholesky, TriangularSolve, SymmetricEigen, Orthonormalize, RmsNorm, Rope, Attention, GatedActivation, ColumnStatistics,
};

/// Fitted grid of a matrix: one scale and zero point per row and group.
struct GridBuffers {
    UniformGrid grid;
    Buffer scales; ///< rows × groups, float32, > 0; symmetric K types: not 0
    Buffer zeros;  ///< rows × groups, float32 holding integers; 0 when symmetric; K types: what scale · code is lowered by
};

/// A matrix rounded to a grid. values = scales · level(codes), less the minimum of a K type.
struct RoundedBuffers {
    Buffer values; ///< rows × cols
    Buffer codes;  ///< rows × cols, float32 holding integers with the zero point subtracted
    /// Of round_with_feedback: Σ over rows of (target − value)² for each column, in the order of the sweep. With
    /// H = U·D·Uᵀ, Σ_k D_k · column_losses_k = tr((W − Q)·H·(W − Q)ᵀ). Empty where it is not measured.
    VectorD column_losses{};
};

struct SymmetricEigen {
    VectorD values; ///< falling
    Buffer vectors; ///< n × count, columns belong to values
};

/// Shape of causal attention over `rows` = sequences · sequence_length stacked tokens.
struct AttentionShape {
    Index heads = 0;
    Index kv_heads = 0;         ///< divides heads; query head h reads kv head h / (heads / kv_heads)
    Index head_dim = 0;
    Index sequence_length = 0;  ///< tokens per sequence; positions restart at 0
    double scale = 1.0;         ///< multiplies q·k
    Index window = 0;           ///< sliding window: a token sees itself and window − 1 before it; 0 = all
    double score_cap = 0.0;     ///< scores become cap · tanh(score / cap) before softmax; 0 = none
};

/// Rotary embedding: pairs (i, i + rotary/2) of each head turned by position · inverse_frequency[i].
struct RopeShape {
    Index heads = 0;
    Index head_dim = 0;
    Index sequence_length = 0;
    std::span<const double> inverse_frequency; ///< rotary/2 entries; the rest of the head passes through
    double attention_factor = 1.0;             ///< multiplies cos and sin (YaRN, long RoPE)
};

/// Writes row `row` of a matrix to `values`.
using RowDecoder = std::function<void(Index row, float* values)>;

/// Where the arithmetic happens. Buffers stay on the device, so that a method or a forward pass never bounces data;
/// the same algorithm text runs on every backend and the CPU is the reference. Thread-safe: several layer jobs may use
/// one backend at a time. Operations throw BackendFailure when the device fails and never return wrong numbers.
/// Outputs must not alias inputs unless said so. Float64 buffers may live on the host.
class Backend {
public:
    virtual ~Backend() = default;

    virtual std::string name() const = 0;            ///< "CPU (2 threads)", the device's own name
    virtual std::string id() const = 0;              ///< "cpu", "vulkan:0": what --backend takes
    virtual bool supports(Op op) const = 0;          ///< natively, not through the host

    // Memory -------------------------------------------------------------------------------------------------
    virtual Buffer allocate(Index rows, Index cols, Precision precision = Precision::Float32) = 0; ///< zeros
    virtual Buffer upload(const Eigen::Ref<const Matrix>& matrix) = 0;
    virtual Buffer upload(const Eigen::Ref<const MatrixD>& matrix) = 0;
    virtual Matrix download(const Buffer& buffer) = 0;
    virtual MatrixD download_double(const Buffer& buffer) = 0;
    /// The matrix behind a float32 buffer, to be read without a copy while the buffer lives; null when it is not in host
    /// memory.
    virtual const Matrix* host_matrix(const Buffer&) const { return nullptr; }
    virtual Buffer convert(const Buffer& buffer, Precision precision) = 0; ///< a copy in the other precision
    virtual Buffer copy(const Buffer& buffer) = 0;
    /// Rows [first, first + count) as a new buffer.
    virtual Buffer rows_of(const Buffer& buffer, Index first, Index count) = 0;
    /// Columns named by `columns`, in that order, as a new buffer (outlier selection, act-order).
    virtual Buffer gather_columns(const Buffer& buffer, std::span<const Index> columns) = 0;
    virtual Buffer gather_rows(const Buffer& buffer, std::span<const Index> rows) = 0;
    virtual Buffer transposed(const Buffer& buffer) = 0; ///< a new buffer, cols × rows

    // Products -----------------------------------------------------------------------------------------------
    /// c = alpha · op(a) · op(b) + beta · c. All three of one precision, or a and b float32 and c float64: products are
    /// then float32 per 256 terms and sums across them float64, as in gram. c must have the right shape.
    virtual void gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb, double beta,
                      Buffer& c) = 0;
    /// c = alpha · x·xᵀ (Transpose::No) or alpha · xᵀ·x (Yes) + beta · c; exactly symmetric. x float32 and c float64
    /// is allowed: products are float32 per tile of 256 terms, sums across tiles float64 (the moments' case).
    virtual void gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c) = 0;
    /// A new buffer op(a) · op(b).
    virtual Buffer multiply(const Buffer& a, Transpose ta, const Buffer& b, Transpose tb);
    Buffer multiply(const Buffer& a, const Buffer& b) { return multiply(a, Transpose::No, b, Transpose::No); }

    /// A float32 weight (out × in) in the form in which products x·Wᵀ run fastest, made once for many x. What comes back
    /// serves gemm as b with Transpose::Yes and nothing else; it may be `weight` itself.
    virtual Buffer prepare_weight(const Buffer& weight) { return weight; }
    /// The same from rows that are decoded when they are needed, on several threads: no plain copy of them exists.
    virtual Buffer prepare_weight(Index rows, Index cols, const RowDecoder& decode);

    // Element-wise and reductions ----------------------------------------------------------------------------
    virtual void add_scaled(double alpha, const Buffer& x, double beta, Buffer& y) = 0; ///< y = alpha·x + beta·y
    virtual void scale_columns(Buffer& x, const VectorD& factors) = 0;
    virtual void scale_rows(Buffer& x, const VectorD& factors) = 0;
    virtual double dot(const Buffer& a, const Buffer& b) = 0;   ///< Σ a ⊙ b, accumulated in float64
    virtual double max_abs(const Buffer& x) = 0;                ///< NaN if any element is not finite
    /// An accumulator for the columns of many float32 (on the host also float64) buffers of this backend.
    virtual std::unique_ptr<ColumnAccumulator> column_accumulator(const ColumnOptions& options) = 0;
    /// W − Q − L·R style differences stay readable: a new buffer a − b.
    Buffer difference(const Buffer& a, const Buffer& b);

    // Factorisations (computed in float64 whatever the buffer's precision) -------------------------------------
    /// Lower triangle of H = C·Cᵀ in h's precision; the upper one is zero. Errors: BadInput when H is not positive definite.
    virtual Result<Buffer> cholesky(const Buffer& h) = 0;
    /// Solves op(L)·X = B in place of b, L lower triangular; in float32 where both are.
    virtual void solve_lower(const Buffer& lower, Transpose transpose, Buffer& b) = 0;
    /// The `count` largest eigenpairs of a symmetric matrix; vectors in float64.
    virtual SymmetricEigen top_eigen(const Buffer& symmetric, Index count) = 0;
    /// All eigenvalues of a symmetric matrix, falling; cheaper than top_eigen when no vector is wanted.
    virtual VectorD symmetric_eigenvalues(const Buffer& symmetric) = 0;
    /// All singular values, falling, in float64.
    virtual VectorD singular_values(const Buffer& a) = 0;
    /// Replaces the columns of y (rows ≥ cols) by an orthonormal basis of their span.
    virtual void orthonormalize(Buffer& y) = 0;

    // Transforms and rounding ----------------------------------------------------------------------------------
    /// Applies T_n (methods-joint §3.2, any n), or its transpose, to every row of x in place.
    virtual void hadamard(Buffer& x, Transpose transpose) = 0;
    /// Scales and zero points of w's groups. Non-finite weights are the caller's to refuse.
    virtual GridBuffers fit_grid(const Buffer& w, const UniformGrid& grid) = 0;
    /// Nearest rounding of w to a fitted grid.
    virtual RoundedBuffers round_nearest(const Buffer& w, const GridBuffers& grid) = 0;
    /// LDLQ/GPTQ (methods-joint §2.2): Q_k = round(W_k + Σ_{j<k} (W − Q)_j · U_jk) with H = U·D·Uᵀ, U unit upper
    /// triangular (n × n). Columns are taken in their stored order; `group_column[k]` names the column whose group's
    /// scale column k uses (identity without act-order).
    virtual RoundedBuffers round_with_feedback(const Buffer& w, const Buffer& feedback, const GridBuffers& grid,
                                               std::span<const Index> group_column) = 0;
    /// Passes of coordinate descent over the columns with the grid frozen (methods-joint §2.3): each code becomes the
    /// conditional optimum given all others, so that tr((W−Q)·H·(W−Q)ᵀ) never rises. `start` holds codes of w on that
    /// grid, `hessian` is n × n and symmetric, float32 or float64.
    virtual RoundedBuffers tune_codes(const Buffer& w, const RoundedBuffers& start, const GridBuffers& grid,
                                      const Buffer& hessian, int passes) = 0;
    /// Rounds w (float32) to the E8P lattice with feedback.
    virtual LatticeBuffers round_lattice(const Buffer& w, const LatticeSweep& sweep) = 0;
    /// Passes of coordinate descent over the lattice's groups: a group takes the point nearest to its conditional
    /// optimum where that lowers tr((W−Q)·H·(W−Q)ᵀ), row by row. The loss of what comes back is not known.
    virtual LatticeBuffers tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                        const LatticeDescent& descent) = 0;

    // Forward pass: x is tokens × features ----------------------------------------------------------------------
    /// gain is 1 × width; width divides the features, and each stretch of that width is normalized alone (a norm of
    /// each head).
    virtual Buffer rms_norm(const Buffer& x, const Buffer& gain, double epsilon) = 0;
    /// Mean 0 and variance 1, then gain and bias, both 1 × features.
    virtual Buffer layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias, double epsilon) = 0;
    virtual void add_bias(Buffer& x, const Buffer& bias) = 0; ///< every row of x += bias (1 × features)
    virtual void rope(Buffer& x, const RopeShape& shape) = 0;                         ///< in place
    virtual Buffer attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape) = 0;
    virtual void silu_multiply(Buffer& gate, const Buffer& up) = 0;                   ///< gate = silu(gate) ⊙ up
    virtual void activate(Buffer& x, Activation activation) = 0;                      ///< in place
    virtual void activate_multiply(Buffer& gate, const Buffer& up, Activation activation) = 0; ///< gate = f(gate) ⊙ up
    virtual void soft_cap(Buffer& x, double cap) = 0;                                 ///< x = cap · tanh(x / cap)
    /// −ln p of `targets[i]` under softmax of row i, in float64.
    virtual VectorD cross_entropy(const Buffer& logits, std::span<const Index> targets) = 0;
    /// KL(p ‖ q) of each row in nats, in float64: p and q are the softmax of `reference` and of `logits`.
    virtual VectorD kl_divergence(const Buffer& reference, const Buffer& logits) = 0;
    /// Column of each row's largest element, the first of equals.
    virtual std::vector<Index> row_argmax(const Buffer& x) = 0;

    // Backward pass: dy is the gradient of the forward operation's result, everything else its own input. Float32
    // and float64 ------------------------------------------------------------------------------------------------
    virtual NormGradient rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon, const Buffer& dy) = 0;
    virtual NormGradient layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                             const Buffer& dy) = 0;
    virtual Buffer column_sums(const Buffer& x) = 0; ///< 1 × cols, in float64 inside: the gradient of a bias
    void rope_backward(Buffer& dy, const RopeShape& shape); ///< in place: turned back
    virtual AttentionGradient attention_backward(const Buffer& q, const Buffer& k, const Buffer& v, const Buffer& dy,
                                                 const AttentionShape& shape) = 0;
    virtual void activate_backward(const Buffer& x, Activation activation, Buffer& dy) = 0; ///< in place
    /// Of activate_multiply, whose `gate` is the one before it was overwritten.
    virtual GateGradient activate_multiply_backward(const Buffer& gate, const Buffer& up, Activation activation,
                                                    const Buffer& dy) = 0;

    // Learned rounding ---------------------------------------------------------------------------------------------
    virtual LearnedRounding round_learned(const Buffer& w, const LearnedGrid& grid) = 0;
    virtual LearnedGradient round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                                   const LearnedGrid& grid) = 0;
    /// Moves `parameter` and its two moments, all of one shape, in place.
    virtual void adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                           const AdamStep& step) = 0;
};

/// The reference backend: Eigen over OpenBLAS/LAPACK on core's thread pool. Always available.
std::unique_ptr<Backend> make_cpu_backend();
/// The same ("cpu:bf16") with the factors of two kinds of products rounded to bfloat16, sums float32 as before: those
/// with prepared weights, and Gram matrices of float32 into float64 (the moments). Errors: Usage, when this CPU has no
/// such instruction (AVX512-BF16).
Result<std::unique_ptr<Backend>> make_bfloat_cpu_backend();

} // namespace rankscope
