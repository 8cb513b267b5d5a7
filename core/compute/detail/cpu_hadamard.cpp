// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/base/multiarch.h"
#include "core/compute/hadamard_matrix.h"

#include <cmath>
#include <vector>

namespace rankscope::detail {
namespace {

/// Butterflies of a power of two elements, natural order, then everything times `scale`.
template <class T>
RANKSCOPE_INLINE void sylvester(T* x, Index count, T scale)
{
    Index half = 1;
    if (count >= 8) {
        // The three narrow passes at once: in registers, not through memory.
        for (Index i = 0; i < count; i += 8) {
            T* e = x + i;
            const T a0 = e[0] + e[1], a1 = e[0] - e[1], a2 = e[2] + e[3], a3 = e[2] - e[3];
            const T a4 = e[4] + e[5], a5 = e[4] - e[5], a6 = e[6] + e[7], a7 = e[6] - e[7];
            const T b0 = a0 + a2, b1 = a1 + a3, b2 = a0 - a2, b3 = a1 - a3;
            const T b4 = a4 + a6, b5 = a5 + a7, b6 = a4 - a6, b7 = a5 - a7;
            e[0] = b0 + b4, e[1] = b1 + b5, e[2] = b2 + b6, e[3] = b3 + b7;
            e[4] = b0 - b4, e[5] = b1 - b5, e[6] = b2 - b6, e[7] = b3 - b7;
        }
        half = 8;
    }
    for (; half < count; half *= 2) {
        for (Index start = 0; start < count; start += 2 * half) {
            T* low = x + start;
            T* high = low + half;
            for (Index i = 0; i < half; ++i) {
                const T sum = low[i] + high[i];
                high[i] = low[i] - high[i];
                low[i] = sum;
            }
        }
    }
    for (Index i = 0; i < count; ++i)
        x[i] *= scale;
}

/// `segments` neighbouring stretches of `count` elements, each transformed.
RANKSCOPE_MULTIARCH
void sylvester_floats(float* x, Index segments, Index count, float scale)
{
    for (Index s = 0; s < segments; ++s)
        sylvester(x + s * count, count, scale);
}

RANKSCOPE_MULTIARCH
void sylvester_doubles(double* x, Index segments, Index count, double scale)
{
    for (Index s = 0; s < segments; ++s)
        sylvester(x + s * count, count, scale);
}

void sylvester_segments(float* x, Index segments, Index count, float scale)
{
    sylvester_floats(x, segments, count, scale);
}

void sylvester_segments(double* x, Index segments, Index count, double scale)
{
    sylvester_doubles(x, segments, count, scale);
}

/// x (p × q views, one per row) ← B · view. Without a power of two (q = 1) all rows go in one product.
template <class T>
void apply_base(T* x, Index rows, const RowMajor<T>& base, Index q, Transpose transpose)
{
    const Index p = base.rows();
    std::vector<T> out(static_cast<std::size_t>(p * q * (q == 1 ? rows : 1)));
    if (q == 1) {
        const Transpose flipped = transpose == Transpose::Yes ? Transpose::No : Transpose::Yes;
        blas_gemm(Transpose::No, flipped, rows, p, p, T(1), x, p, base.data(), p, T(0), out.data(), p);
        std::copy(out.begin(), out.end(), x);
        return;
    }
    for (Index row = 0; row < rows; ++row) {
        T* view = x + row * p * q;
        blas_gemm(transpose, Transpose::No, p, q, p, T(1), base.data(), p, view, q, T(0), out.data(), q);
        std::copy(out.begin(), out.end(), view);
    }
}

} // namespace

void CpuBackend::hadamard(Buffer& x, Transpose transpose)
{
    if (x.empty())
        return;
    const auto factor = hadamard_factor(x.cols());
    const Index p = factor->order;
    const Index q = x.cols() / p;
    with_elements(x, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        const RowMajor<T>* base = nullptr;
        if constexpr (std::is_same_v<T, float>)
            base = &factor->single;
        else
            base = &factor->matrix;
        const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(q)));
        for_stretches(matrix.rows(), rows_per_task(matrix.cols()), [&](Index first, Index count) {
            T* rows = matrix.data() + first * matrix.cols();
            if (q > 1)
                sylvester_segments(rows, count * p, q, scale); // symmetric: the same for both directions
            if (p > 1)
                apply_base<T>(rows, count, *base, q, transpose);
        });
    });
}

} // namespace rankscope::detail
