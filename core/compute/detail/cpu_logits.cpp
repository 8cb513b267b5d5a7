// SPDX-License-Identifier: GPL-3.0-or-later
// Figures of a row of logits: loss of a target, divergence from another row, the largest.
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>

namespace rankscope::detail {
namespace {

/// Terms first, then their sum: only a loop without an order becomes vector code.
constexpr Index k_block = 512;

/// Σ e^(x − most) in float64; NaN if any logit is.
RANKSCOPE_MULTIARCH
double exponential_sum_floats(const float* x, Index count, double most)
{
    double terms[k_block];
    double sum = 0.0;
    for (Index first = 0; first < count; first += k_block) {
        const Index length = count - first < k_block ? count - first : k_block;
        for (Index i = 0; i < length; ++i)
            terms[i] = exp_double(static_cast<double>(x[first + i]) - most);
        sum += lane_sum<double>(terms, length);
    }
    return sum;
}

double exponential_sum(const float* x, Index count, double most)
{
    return exponential_sum_floats(x, count, most);
}

double exponential_sum(const double* x, Index count, double most)
{
    double sum = 0.0;
    for (Index i = 0; i < count; ++i)
        sum += std::exp(x[i] - most);
    return sum;
}

/// Σ e^(x − most) · (x − y) in float64.
RANKSCOPE_MULTIARCH
double weighted_difference_floats(const float* x, const float* y, Index count, double most)
{
    double terms[k_block];
    double sum = 0.0;
    for (Index first = 0; first < count; first += k_block) {
        const Index length = count - first < k_block ? count - first : k_block;
        for (Index i = 0; i < length; ++i) {
            const double at = static_cast<double>(x[first + i]);
            terms[i] = exp_double(at - most) * (at - static_cast<double>(y[first + i]));
        }
        sum += lane_sum<double>(terms, length);
    }
    return sum;
}

double weighted_difference(const float* x, const float* y, Index count, double most)
{
    return weighted_difference_floats(x, y, count, most);
}

double weighted_difference(const double* x, const double* y, Index count, double most)
{
    double sum = 0.0;
    for (Index i = 0; i < count; ++i)
        sum += std::exp(x[i] - most) * (x[i] - y[i]);
    return sum;
}

/// Σ p·(ln p − ln q) of one row. Rounding must not make it negative.
template <class T>
double divergence(const T* reference, const T* logits, Index count)
{
    const double most = static_cast<double>(Eigen::Map<const RowMajor<T>>(reference, 1, count).maxCoeff());
    const double other = static_cast<double>(Eigen::Map<const RowMajor<T>>(logits, 1, count).maxCoeff());
    const double sum = exponential_sum(reference, count, most);
    const double mean_difference = weighted_difference(reference, logits, count, most) / sum;
    const double value =
        mean_difference - (most + std::log(sum)) + (other + std::log(exponential_sum(logits, count, other)));
    return value < 0.0 ? 0.0 : value;
}

} // namespace

VectorD CpuBackend::cross_entropy(const Buffer& logits, std::span<const Index> targets)
{
    require(static_cast<Index>(targets.size()) == logits.rows(), "cross_entropy",
            "one target per row is needed");
    for (const Index target : targets)
        require(target >= 0 && target < logits.cols(), "cross_entropy",
                "a target lies outside the vocabulary");
    VectorD losses(logits.rows());
    if (logits.empty())
        return losses;
    with_elements(logits, [&](const auto& matrix) {
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i) {
                const double most = static_cast<double>(matrix.row(i).maxCoeff());
                const double sum = exponential_sum(matrix.row(i).data(), matrix.cols(), most);
                const double target = static_cast<double>(matrix(i, targets[static_cast<std::size_t>(i)]));
                losses[i] = std::log(sum) - (target - most);
            }
        });
    });
    return losses;
}

VectorD CpuBackend::kl_divergence(const Buffer& reference, const Buffer& logits)
{
    require(reference.rows() == logits.rows() && reference.cols() == logits.cols(), "kl_divergence",
            "shapes differ");
    require(reference.precision() == logits.precision(), "kl_divergence", "precisions differ");
    VectorD result(logits.rows());
    if (logits.empty())
        return VectorD::Zero(logits.rows());
    with_elements(reference, [&](const auto& p) {
        using T = typename std::remove_cvref_t<decltype(p)>::Scalar;
        const auto& q = elements<T>(logits);
        for_stretches(p.rows(), rows_per_task(p.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                result[i] = divergence<T>(p.row(i).data(), q.row(i).data(), p.cols());
        });
    });
    return result;
}

std::vector<Index> CpuBackend::row_argmax(const Buffer& x)
{
    require(x.rows() == 0 || x.cols() > 0, "row_argmax", "an empty row has no largest element");
    std::vector<Index> result(static_cast<std::size_t>(x.rows()));
    if (x.empty())
        return result;
    with_elements(x, [&](const auto& matrix) {
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            for (Index i = first; i < first + count; ++i)
                matrix.row(i).maxCoeff(&result[static_cast<std::size_t>(i)]); // the first of equals
        });
    });
    return result;
}

} // namespace rankscope::detail
