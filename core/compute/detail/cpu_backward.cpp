// SPDX-License-Identifier: GPL-3.0-or-later
// Backward passes of a block's pieces (methods-learned §1.5). Sums over tokens are taken stretch by stretch,
// of a fixed size, and then over the stretches in order, so that the number of threads changes no byte.
#include "core/compute/detail/attention_parts.h"
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>
#include <numbers>

namespace rankscope::detail {
namespace {

constexpr Index k_query_tile = 64;
constexpr Index k_stretch = 16384;    // elements of an element-wise task
constexpr Index k_token_stretch = 64; // tokens of a task that sums over tokens

Index token_stretches(Index tokens) { return (tokens + k_token_stretch - 1) / k_token_stretch; }

void require_same(const Buffer& a, const Buffer& b, const char* operation)
{
    require(a.rows() == b.rows() && a.cols() == b.cols(), operation, "shapes differ");
    require(a.precision() == b.precision(), operation, "precisions differ");
}

/// Rows of partial sums become one row in the precision of the gradients.
template <class T>
Buffer summed(const MatrixD& partial)
{
    return make_buffer(RowMajor<T>(partial.colwise().sum().template cast<T>()));
}

/// One normalized stretch of one token: dx, and what it adds to the gain's gradient.
template <class T>
void rms_backward(const T* x, const T* gain, const T* dy, T* dx, double* dgain, Index width, double epsilon)
{
    double squares = 0.0;
    double product = 0.0; // Σ (dy ⊙ g) ⊙ x
    for (Index i = 0; i < width; ++i) {
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
        product += static_cast<double>(dy[i]) * static_cast<double>(gain[i]) * static_cast<double>(x[i]);
    }
    const double size = static_cast<double>(width);
    const double scale = 1.0 / std::sqrt(squares / size + epsilon);
    const T factor = static_cast<T>(scale);
    const T pull = static_cast<T>(scale * scale * scale * product / size);
    for (Index i = 0; i < width; ++i) {
        dx[i] = factor * dy[i] * gain[i] - pull * x[i];
        dgain[i] += static_cast<double>(dy[i]) * static_cast<double>(x[i]) * scale;
    }
}

template <class T>
struct NormRow {
    const T* x;
    const T* gain;
    const T* dy;
    T* dx;
    double* dgain;
    double* dbias;
    Index width;
};

template <class T>
void layer_backward(const NormRow<T>& row, double epsilon)
{
    const double size = static_cast<double>(row.width);
    const auto x =
        Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>>(row.x, row.width).template cast<double>();
    const double mean = x.sum() / size;
    const double scale = 1.0 / std::sqrt((x - mean).square().sum() / size + epsilon);
    double sum = 0.0;
    double product = 0.0;
    for (Index i = 0; i < row.width; ++i) {
        const double a = static_cast<double>(row.dy[i]) * static_cast<double>(row.gain[i]);
        sum += a;
        product += a * (static_cast<double>(row.x[i]) - mean) * scale;
    }
    for (Index i = 0; i < row.width; ++i) {
        const double normal = (static_cast<double>(row.x[i]) - mean) * scale;
        const double dy = static_cast<double>(row.dy[i]);
        row.dx[i] = static_cast<T>(
            scale * (dy * static_cast<double>(row.gain[i]) - sum / size - normal * product / size));
        row.dgain[i] += dy * normal;
        row.dbias[i] += dy;
    }
}

/// dS = P ⊙ (dP − Σ dP ⊙ P) · scale, in place of dP.
RANKSCOPE_MULTIARCH
void softmax_gradient_floats(const float* weights, float* gradient, Index count, float scale)
{
    double lanes[8] = {};
    Index i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; ++lane)
            lanes[lane] += static_cast<double>(weights[i + lane]) * static_cast<double>(gradient[i + lane]);
    }
    for (int lane = 0; i < count; ++i, ++lane)
        lanes[lane] += static_cast<double>(weights[i]) * static_cast<double>(gradient[i]);
    const double total =
        ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    const float mean = static_cast<float>(total);
    for (i = 0; i < count; ++i)
        gradient[i] = weights[i] * (gradient[i] - mean) * scale;
}

void softmax_gradient(const float* weights, float* gradient, Index count, float scale)
{
    softmax_gradient_floats(weights, gradient, count, scale);
}

void softmax_gradient(const double* weights, double* gradient, Index count, double scale)
{
    double total = 0.0;
    for (Index i = 0; i < count; ++i)
        total += weights[i] * gradient[i];
    for (Index i = 0; i < count; ++i)
        gradient[i] = weights[i] * (gradient[i] - total) * scale;
}

template <class T>
struct BackwardJob {
    const RowMajor<T>& q;
    const RowMajor<T>& k;
    const RowMajor<T>& v;
    const RowMajor<T>& dy;
    RowMajor<T>& dq;
    RowMajor<T>& dk; ///< of each query head
    RowMajor<T>& dv;
    const AttentionShape& shape;
};

/// Where a tile of queries of one head stands, and the keys that it may see.
struct QueryTile {
    Index row = 0; ///< of the sequence's first token
    Index column = 0;
    Index kv_column = 0;
    Index first = 0;
    Index count = 0;
    Index oldest = 0;
    Index keys = 0;

    QueryTile(const AttentionShape& shape, Index task, Index first_query, Index queries)
        : row(task / shape.heads * shape.sequence_length), column(task % shape.heads * shape.head_dim),
          kv_column(task % shape.heads / (shape.heads / shape.kv_heads) * shape.head_dim), first(first_query),
          count(queries), oldest(shape.window > 0 ? std::max<Index>(0, first - shape.window + 1) : 0),
          keys(first + count - oldest)
    {}
    Index begin(Index i, Index window) const
    {
        return window > 0 ? std::max<Index>(0, first + i - window + 1) - oldest : 0;
    }
    Index end(Index i) const { return first + i + 1 - oldest; }
};

/// The attention weights P of a tile; `slopes` becomes the cap's derivative where there is one.
template <class T>
void attention_weights(const BackwardJob<T>& job, const QueryTile& tile, RowMajor<T>& weights,
                       RowMajor<T>& slopes)
{
    const AttentionShape& shape = job.shape;
    blas_gemm(Transpose::No, Transpose::Yes, tile.count, tile.keys, shape.head_dim,
              static_cast<T>(shape.scale),
              job.q.data() + (tile.row + tile.first) * job.q.cols() + tile.column, job.q.cols(),
              job.k.data() + (tile.row + tile.oldest) * job.k.cols() + tile.kv_column, job.k.cols(), T(0),
              weights.data(), tile.keys);
    const T cap = static_cast<T>(shape.score_cap);
    if (cap > T(0)) {
        slopes = (weights.array() / cap).tanh();
        weights = cap * slopes;
        slopes = (T(1) - slopes.array().square()).matrix().eval();
    }
    for (Index i = 0; i < tile.count; ++i) {
        const Index begin = tile.begin(i, shape.window);
        auto line = weights.row(i);
        line.head(begin).setZero();
        line.tail(tile.keys - tile.end(i)).setZero();
        softmax(line.data() + begin, tile.end(i) - begin);
    }
}

template <class T>
void attend_backward(const BackwardJob<T>& job, Index task, Index first, Index count)
{
    const AttentionShape& shape = job.shape;
    const QueryTile tile(shape, task, first, count);
    const Index width = shape.head_dim;
    RowMajor<T> weights(count, tile.keys);
    RowMajor<T> slopes;
    attention_weights(job, tile, weights, slopes);

    const T* dy = job.dy.data() + (tile.row + first) * job.dy.cols() + tile.column;
    const T* q = job.q.data() + (tile.row + first) * job.q.cols() + tile.column;
    const T* k = job.k.data() + (tile.row + tile.oldest) * job.k.cols() + tile.kv_column;
    const T* v = job.v.data() + (tile.row + tile.oldest) * job.v.cols() + tile.kv_column;
    T* dk = job.dk.data() + (tile.row + tile.oldest) * job.dk.cols() + tile.column;
    T* dv = job.dv.data() + (tile.row + tile.oldest) * job.dv.cols() + tile.column;
    T* dq = job.dq.data() + (tile.row + first) * job.dq.cols() + tile.column;

    blas_gemm(Transpose::Yes, Transpose::No, tile.keys, width, count, T(1), weights.data(), tile.keys, dy,
              job.dy.cols(), T(1), dv, job.dv.cols());
    RowMajor<T> gradient(count, tile.keys);
    blas_gemm(Transpose::No, Transpose::Yes, count, tile.keys, width, T(1), dy, job.dy.cols(), v,
              job.v.cols(), T(0), gradient.data(), tile.keys);
    for (Index i = 0; i < count; ++i) {
        const Index begin = tile.begin(i, shape.window);
        const Index end = tile.end(i);
        auto line = gradient.row(i);
        line.head(begin).setZero();
        line.tail(tile.keys - end).setZero();
        softmax_gradient(weights.row(i).data() + begin, line.data() + begin, end - begin,
                         static_cast<T>(shape.scale));
        if (slopes.size() > 0)
            line.segment(begin, end - begin).array() *= slopes.row(i).segment(begin, end - begin).array();
    }
    blas_gemm(Transpose::No, Transpose::No, count, width, tile.keys, T(1), gradient.data(), tile.keys, k,
              job.k.cols(), T(0), dq, job.dq.cols());
    blas_gemm(Transpose::Yes, Transpose::No, tile.keys, width, count, T(1), gradient.data(), tile.keys, q,
              job.q.cols(), T(1), dk, job.dk.cols());
}

/// Columns of query heads that share a kv head, added up.
template <class T>
RowMajor<T> summed_heads(const RowMajor<T>& each, const AttentionShape& shape)
{
    if (shape.heads == shape.kv_heads)
        return each;
    const Index shared = shape.heads / shape.kv_heads;
    RowMajor<T> sums = RowMajor<T>::Zero(each.rows(), shape.kv_heads * shape.head_dim);
    for_stretches(each.rows(), rows_per_task(each.cols()), [&](Index first, Index count) {
        for (Index head = 0; head < shape.heads; ++head)
            sums.block(first, head / shared * shape.head_dim, count, shape.head_dim) +=
                each.block(first, head * shape.head_dim, count, shape.head_dim);
    });
    return sums;
}

RANKSCOPE_MULTIARCH
void silu_gate_floats(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                      Index count)
{
    for (Index i = 0; i < count; ++i) {
        const float sigmoid = 1.0F / (1.0F + exp_float(-gate[i]));
        const float silu = gate[i] * sigmoid;
        dup[i] = dy[i] * silu;
        dgate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0F - sigmoid));
    }
}

template <class T>
struct Activated {
    T value;
    T slope;
};

/// f(x) and f'(x).
template <class T>
Activated<T> activated_with_slope(T x, Activation activation)
{
    switch (activation) {
    case Activation::Silu: {
        const T sigmoid = T(1) / (T(1) + std::exp(-x));
        return {x * sigmoid, sigmoid * (T(1) + x * (T(1) - sigmoid))};
    }
    case Activation::Gelu: {
        const T share = T(0.5) * (T(1) + std::erf(x / std::numbers::sqrt2_v<T>));
        const T density =
            std::exp(T(-0.5) * x * x) * std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
        return {x * share, share + x * density};
    }
    case Activation::GeluTanh: {
        const T rise = std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;
        const T bend = T(0.044715);
        const T t = std::tanh(rise * (x + bend * x * x * x));
        const T slope = rise * (T(1) + T(3) * bend * x * x);
        return {T(0.5) * x * (T(1) + t), T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * slope};
    }
    case Activation::Relu:
        return x > T(0) ? Activated<T>{x, T(1)} : Activated<T>{T(0), T(0)};
    }
    return {x, T(1)};
}

template <class T>
void gate_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, Index count,
                   Activation activation)
{
    if constexpr (std::is_same_v<T, float>) {
        if (activation == Activation::Silu)
            return silu_gate_floats(gate, up, dy, dgate, dup, count);
    }
    for (Index i = 0; i < count; ++i) {
        const Activated<T> at = activated_with_slope(gate[i], activation);
        dup[i] = dy[i] * at.value;
        dgate[i] = dy[i] * up[i] * at.slope;
    }
}

} // namespace

NormGradient CpuBackend::rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                           const Buffer& dy)
{
    const char* operation = "rms_norm_backward";
    const Index width = gain.cols();
    require(gain.rows() == 1 && width > 0 && x.cols() % width == 0, operation, "the gain has another width");
    require(gain.precision() == x.precision(), operation, "precisions differ");
    require_same(x, dy, operation);
    return with_elements(x, [&](const auto& in) -> NormGradient {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        const auto& factors = elements<T>(gain);
        const auto& slope = elements<T>(dy);
        RowMajor<T> dx(in.rows(), in.cols());
        MatrixD partial = MatrixD::Zero(token_stretches(in.rows()), width);
        for_stretches(in.rows(), k_token_stretch, [&](Index first, Index count) {
            double* sums = partial.row(first / k_token_stretch).data();
            for (Index i = first; i < first + count; ++i)
                for (Index start = 0; start < in.cols(); start += width)
                    rms_backward<T>(in.row(i).data() + start, factors.data(), slope.row(i).data() + start,
                                    dx.row(i).data() + start, sums, width, epsilon);
        });
        return {make_buffer(std::move(dx)), summed<T>(partial), {}};
    });
}

NormGradient CpuBackend::layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                             const Buffer& dy)
{
    const char* operation = "layer_norm_backward";
    require(gain.rows() == 1 && gain.cols() == x.cols(), operation, "the gain has another width");
    require(gain.precision() == x.precision(), operation, "precisions differ");
    require_same(x, dy, operation);
    return with_elements(x, [&](const auto& in) -> NormGradient {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        const auto& factors = elements<T>(gain);
        const auto& slope = elements<T>(dy);
        RowMajor<T> dx(in.rows(), in.cols());
        MatrixD gains = MatrixD::Zero(token_stretches(in.rows()), in.cols());
        MatrixD biases = gains;
        for_stretches(in.rows(), k_token_stretch, [&](Index first, Index count) {
            const Index stretch = first / k_token_stretch;
            for (Index i = first; i < first + count; ++i)
                layer_backward<T>({in.row(i).data(), factors.data(), slope.row(i).data(), dx.row(i).data(),
                                   gains.row(stretch).data(), biases.row(stretch).data(), in.cols()},
                                  epsilon);
        });
        return {make_buffer(std::move(dx)), summed<T>(gains), summed<T>(biases)};
    });
}

Buffer CpuBackend::column_sums(const Buffer& x)
{
    return with_elements(x, [&](const auto& in) {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        MatrixD partial = MatrixD::Zero(token_stretches(in.rows()), in.cols());
        for_stretches(in.rows(), k_token_stretch, [&](Index first, Index count) {
            auto sums = partial.row(first / k_token_stretch);
            for (Index i = first; i < first + count; ++i)
                sums += in.row(i).template cast<double>();
        });
        return summed<T>(partial);
    });
}

AttentionGradient CpuBackend::attention_backward(const Buffer& q, const Buffer& k, const Buffer& v,
                                                 const Buffer& dy, const AttentionShape& shape)
{
    require_attention(q, k, v, shape);
    require_same(q, dy, "attention_backward");
    return with_elements(q, [&](const auto& queries) -> AttentionGradient {
        using T = typename std::remove_cvref_t<decltype(queries)>::Scalar;
        RowMajor<T> dq(queries.rows(), queries.cols());
        RowMajor<T> dk = RowMajor<T>::Zero(queries.rows(), queries.cols());
        RowMajor<T> dv = dk;
        const BackwardJob<T> job{queries, elements<T>(k), elements<T>(v), elements<T>(dy), dq, dk, dv, shape};
        for_stretches(queries.rows() / shape.sequence_length * shape.heads, 1, [&](Index task, Index) {
            for (Index first = 0; first < shape.sequence_length; first += k_query_tile)
                attend_backward<T>(job, task, first, std::min(k_query_tile, shape.sequence_length - first));
        });
        return {make_buffer(std::move(dq)), make_buffer(summed_heads<T>(dk, shape)),
                make_buffer(summed_heads<T>(dv, shape))};
    });
}

void CpuBackend::activate_backward(const Buffer& x, Activation activation, Buffer& dy)
{
    require_same(x, dy, "activate_backward");
    if (x.empty())
        return;
    with_elements(dy, [&](auto& slope) {
        using T = typename std::remove_cvref_t<decltype(slope)>::Scalar;
        const T* in = elements<T>(x).data();
        for_stretches(slope.size(), k_stretch, [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                slope.data()[i] *= activated_with_slope(in[i], activation).slope;
        });
    });
}

GateGradient CpuBackend::activate_multiply_backward(const Buffer& gate, const Buffer& up,
                                                    Activation activation, const Buffer& dy)
{
    require_same(gate, up, "activate_multiply_backward");
    require_same(gate, dy, "activate_multiply_backward");
    return with_elements(gate, [&](const auto& in) -> GateGradient {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        const T* factors = elements<T>(up).data();
        const T* slope = elements<T>(dy).data();
        RowMajor<T> dgate(in.rows(), in.cols());
        RowMajor<T> dup(in.rows(), in.cols());
        for_stretches(in.size(), k_stretch, [&](Index first, Index count) {
            gate_backward<T>(in.data() + first, factors + first, slope + first, dgate.data() + first,
                             dup.data() + first, count, activation);
        });
        return {make_buffer(std::move(dgate)), make_buffer(std::move(dup))};
    });
}

} // namespace rankscope::detail
