// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/attention_parts.h"
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>
#include <limits>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_query_tile = 64; // queries whose scores are in memory at a time
constexpr int k_lanes = 8;

RANKSCOPE_MULTIARCH
double square_sum(const float* x, Index count)
{
    double sums[k_lanes] = {};
    Index i = 0;
    for (; i + k_lanes <= count; i += k_lanes) {
        for (int lane = 0; lane < k_lanes; ++lane)
            sums[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
    }
    for (int lane = 0; i < count; ++i, ++lane)
        sums[lane] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

double square_sum(const double* x, Index count)
{
    return Eigen::Map<const Eigen::ArrayXd>(x, count).square().sum();
}

RANKSCOPE_MULTIARCH
void silu_floats(float* gate, const float* up, Index count)
{
    for (Index i = 0; i < count; ++i)
        gate[i] = gate[i] / (1.0F + exp_float(-gate[i])) * up[i];
}

RANKSCOPE_MULTIARCH
void silu_doubles(double* gate, const double* up, Index count)
{
    for (Index i = 0; i < count; ++i)
        gate[i] = gate[i] / (1.0 + exp_double(-gate[i])) * up[i];
}

void silu(float* gate, const float* up, Index count) { silu_floats(gate, up, count); }
void silu(double* gate, const double* up, Index count) { silu_doubles(gate, up, count); }

/// Scores become weights that sum to 1.
RANKSCOPE_MULTIARCH
void softmax_floats(float* scores, Index count)
{
    const float most = lane_max(scores, count);
    for (Index i = 0; i < count; ++i)
        scores[i] = exp_float(scores[i] - most);
    const float total = static_cast<float>(lane_sum<double>(scores, count));
    for (Index i = 0; i < count; ++i)
        scores[i] /= total;
}

RANKSCOPE_MULTIARCH
void softmax_doubles(double* scores, Index count)
{
    const double most = lane_max(scores, count);
    for (Index i = 0; i < count; ++i)
        scores[i] = exp_double(scores[i] - most);
    const double total = lane_sum<double>(scores, count);
    for (Index i = 0; i < count; ++i)
        scores[i] /= total;
}

} // namespace

void softmax(float* scores, Index count) { softmax_floats(scores, count); }
void softmax(double* scores, Index count) { softmax_doubles(scores, count); }

namespace {

/// cos and sin of every position and pair, in the precision of the activations.
template <class T>
struct Rotation {
    RowMajor<T> cosine; ///< positions × pairs
    RowMajor<T> sine;
};

template <class T>
Rotation<T> rotation_table(const RopeShape& shape)
{
    const Index pairs = static_cast<Index>(shape.inverse_frequency.size());
    Rotation<T> table{RowMajor<T>(shape.sequence_length, pairs), RowMajor<T>(shape.sequence_length, pairs)};
    for (Index position = 0; position < shape.sequence_length; ++position) {
        for (Index i = 0; i < pairs; ++i) {
            const double angle =
                static_cast<double>(position) * shape.inverse_frequency[static_cast<std::size_t>(i)];
            table.cosine(position, i) = static_cast<T>(shape.attention_factor * std::cos(angle));
            table.sine(position, i) = static_cast<T>(shape.attention_factor * std::sin(angle));
        }
    }
    return table;
}

/// One token: every head's pairs (i, i + pairs) turned.
template <class T>
void rotate_token(T* x, const RopeShape& shape, const T* cosine, const T* sine, Index pairs)
{
    for (Index head = 0; head < shape.heads; ++head) {
        T* first = x + head * shape.head_dim;
        T* second = first + pairs;
        for (Index i = 0; i < pairs; ++i) {
            const T a = first[i];
            const T b = second[i];
            first[i] = a * cosine[i] - b * sine[i];
            second[i] = b * cosine[i] + a * sine[i];
        }
    }
}

template <class T>
void cap_scores(T* scores, Index count, T cap)
{
    for (Index i = 0; i < count; ++i)
        scores[i] = cap * std::tanh(scores[i] / cap);
}

template <class T>
struct AttentionJob {
    const RowMajor<T>& q;
    const RowMajor<T>& k;
    const RowMajor<T>& v;
    RowMajor<T>& out;
    const AttentionShape& shape;
};

/// Queries [first, first + count) of one head of one sequence. Only the keys they may see are touched.
template <class T>
void attend(const AttentionJob<T>& job, Index sequence, Index head, Index first, Index count)
{
    const AttentionShape& shape = job.shape;
    const Index row = sequence * shape.sequence_length;
    const Index column = head * shape.head_dim;
    const Index kv_column = head / (shape.heads / shape.kv_heads) * shape.head_dim;
    const Index oldest = shape.window > 0 ? std::max<Index>(0, first - shape.window + 1) : 0;
    const Index keys = first + count - oldest;

    RowMajor<T> scores(count, keys);
    blas_gemm(Transpose::No, Transpose::Yes, count, keys, shape.head_dim, static_cast<T>(shape.scale),
              job.q.data() + (row + first) * job.q.cols() + column, job.q.cols(),
              job.k.data() + (row + oldest) * job.k.cols() + kv_column, job.k.cols(), T(0), scores.data(),
              keys);
    for (Index i = 0; i < count; ++i) {
        const Index position = first + i;
        const Index begin = shape.window > 0 ? std::max<Index>(0, position - shape.window + 1) - oldest : 0;
        const Index end = position + 1 - oldest;
        auto line = scores.row(i);
        line.head(begin).setZero();
        line.tail(keys - end).setZero();
        if (shape.score_cap > 0.0)
            cap_scores(line.data() + begin, end - begin, static_cast<T>(shape.score_cap));
        softmax(line.data() + begin, end - begin);
    }
    blas_gemm(Transpose::No, Transpose::No, count, shape.head_dim, keys, T(1), scores.data(), keys,
              job.v.data() + (row + oldest) * job.v.cols() + kv_column, job.v.cols(), T(0),
              job.out.data() + (row + first) * job.out.cols() + column, job.out.cols());
}

} // namespace

void require_attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape)
{
    const char* operation = "attention";
    require(shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 && shape.sequence_length > 0,
            operation, "the shape has an empty dimension");
    require(shape.heads % shape.kv_heads == 0, operation, "kv heads do not divide the heads");
    require(q.cols() == shape.heads * shape.head_dim, operation, "queries have another width than the heads");
    require(k.cols() == shape.kv_heads * shape.head_dim && v.cols() == k.cols(), operation,
            "keys or values have another width than the kv heads");
    require(k.rows() == q.rows() && v.rows() == q.rows() && q.rows() % shape.sequence_length == 0, operation,
            "tokens are not whole sequences");
    require(k.precision() == q.precision() && v.precision() == q.precision(), operation, "precisions differ");
}

Buffer CpuBackend::rms_norm(const Buffer& x, const Buffer& gain, double epsilon)
{
    const Index width = gain.cols();
    require(gain.rows() == 1 && width > 0 && x.cols() % width == 0, "rms_norm", "the gain has another width");
    require(gain.precision() == x.precision(), "rms_norm", "precisions differ");
    if (x.empty())
        return allocate(x.rows(), x.cols(), x.precision());
    return with_elements(x, [&](const auto& in) {
        using T = typename std::remove_cvref_t<decltype(in)>::Scalar;
        const auto& factors = elements<T>(gain);
        RowMajor<T> out(in.rows(), in.cols());
        for_stretches(in.rows(), rows_per_task(in.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i) {
                for (Index start = 0; start < in.cols(); start += width) {
                    const auto part = in.row(i).segment(start, width).array();
                    const double mean = square_sum(part.data(), width) / static_cast<double>(width);
                    const T scale = static_cast<T>(1.0 / std::sqrt(mean + epsilon));
                    out.row(i).segment(start, width).array() = part * scale * factors.row(0).array();
                }
            }
        });
        return make_buffer(std::move(out));
    });
}

void CpuBackend::add_bias(Buffer& x, const Buffer& bias)
{
    require(bias.rows() == 1 && bias.cols() == x.cols(), "add_bias", "the bias has another width");
    require(bias.precision() == x.precision(), "add_bias", "precisions differ");
    if (x.empty())
        return;
    with_elements(x, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const auto& row = elements<T>(bias);
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                matrix.row(i) += row;
        });
    });
}

void CpuBackend::rope(Buffer& x, const RopeShape& shape)
{
    const Index pairs = static_cast<Index>(shape.inverse_frequency.size());
    require(shape.heads > 0 && shape.sequence_length > 0 && x.cols() == shape.heads * shape.head_dim, "rope",
            "the matrix has another width than the heads");
    require(2 * pairs <= shape.head_dim, "rope", "more frequencies than half a head");
    require(x.rows() % shape.sequence_length == 0, "rope", "tokens are not whole sequences");
    if (x.empty())
        return;
    with_elements(x, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const auto table = rotation_table<T>(shape);
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i) {
                const Index position = i % shape.sequence_length;
                rotate_token<T>(matrix.row(i).data(), shape, table.cosine.row(position).data(),
                                table.sine.row(position).data(), pairs);
            }
        });
    });
}

Buffer CpuBackend::attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape)
{
    require_attention(q, k, v, shape);
    if (q.empty())
        return allocate(q.rows(), q.cols(), q.precision());
    return with_elements(q, [&](const auto& queries) {
        using T = typename std::remove_cvref_t<decltype(queries)>::Scalar;
        RowMajor<T> out(queries.rows(), queries.cols());
        const AttentionJob<T> job{queries, elements<T>(k), elements<T>(v), out, shape};
        for_stretches(queries.rows() / shape.sequence_length * shape.heads, 1, [&](Index task, Index) {
            for (Index first = 0; first < shape.sequence_length; first += k_query_tile)
                attend<T>(job, task / shape.heads, task % shape.heads, first,
                          std::min(k_query_tile, shape.sequence_length - first));
        });
        return make_buffer(std::move(out));
    });
}

void CpuBackend::silu_multiply(Buffer& gate, const Buffer& up)
{
    require(gate.rows() == up.rows() && gate.cols() == up.cols(), "silu_multiply", "shapes differ");
    require(gate.precision() == up.precision(), "silu_multiply", "precisions differ");
    if (gate.empty())
        return;
    with_elements(gate, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const auto& factors = elements<T>(up);
        for_stretches(matrix.size(), 16384, [&](Index first, Index count) {
            silu(matrix.data() + first, factors.data() + first, count);
        });
    });
}

} // namespace rankscope::detail
