// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/attention_parts.h"
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>
#include <limits>
#include <vector>

namespace rankscope::detail {
namespace {

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

/// out = x · factor ⊙ gain.
RANKSCOPE_MULTIARCH
void scale_row(const float* x, float factor, const float* gain, float* out, Index count)
{
    for (Index i = 0; i < count; ++i)
        out[i] = x[i] * factor * gain[i];
}

RANKSCOPE_MULTIARCH
void scale_row(const double* x, double factor, const double* gain, double* out, Index count)
{
    for (Index i = 0; i < count; ++i)
        out[i] = x[i] * factor * gain[i];
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

/// Pairs (first[i], second[i]) turned.
template <class T>
RANKSCOPE_INLINE void turn(T* first, T* second, const T* cosine, const T* sine, Index pairs)
{
    for (Index i = 0; i < pairs; ++i) {
        const T a = first[i];
        const T b = second[i];
        first[i] = a * cosine[i] - b * sine[i];
        second[i] = b * cosine[i] + a * sine[i];
    }
}

/// One token: every head's pairs (i, i + pairs) turned.
RANKSCOPE_MULTIARCH
void rotate_token(float* x, Index heads, Index head_dim, const float* cosine, const float* sine, Index pairs)
{
    for (Index head = 0; head < heads; ++head)
        turn(x + head * head_dim, x + head * head_dim + pairs, cosine, sine, pairs);
}

RANKSCOPE_MULTIARCH
void rotate_token(double* x, Index heads, Index head_dim, const double* cosine, const double* sine,
                  Index pairs)
{
    for (Index head = 0; head < heads; ++head)
        turn(x + head * head_dim, x + head * head_dim + pairs, cosine, sine, pairs);
}

} // namespace

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
                    const T* part = in.row(i).data() + start;
                    const double mean = square_sum(part, width) / static_cast<double>(width);
                    const T scale = static_cast<T>(1.0 / std::sqrt(mean + epsilon));
                    scale_row(part, scale, factors.data(), out.row(i).data() + start, width);
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
        const auto table = rotations_.of<T>(shape);
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i) {
                const Index position = i % shape.sequence_length;
                rotate_token(matrix.row(i).data(), shape.heads, shape.head_dim,
                             table->cosine.row(position).data(), table->sine.row(position).data(), pairs);
            }
        });
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
