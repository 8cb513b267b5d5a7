// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/random.h"
#include "core/compute/buffer.h"
#include "core/tensor/matrix.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace rankscope::test {

/// Standard normal numbers that depend on the seed and their place only.
inline MatrixD random_matrix(Index rows, Index cols, std::uint64_t seed, std::string_view purpose = "test")
{
    const RandomStream stream(seed, purpose);
    MatrixD matrix(rows, cols);
    for (Index i = 0; i < matrix.size(); ++i)
        matrix.data()[i] = stream.normal(static_cast<std::uint64_t>(i));
    return matrix;
}

inline Matrix random_floats(Index rows, Index cols, std::uint64_t seed)
{
    return random_matrix(rows, cols, seed).cast<float>();
}

/// Positive definite, condition about 1/ridge: X·Xᵀ/n with n columns, a ridge on the diagonal.
inline MatrixD random_moments(Index n, std::uint64_t seed, double ridge = 0.05)
{
    const MatrixD x = random_matrix(n, n + 3, seed, "moments");
    return x * x.transpose() / static_cast<double>(n + 3) + ridge * MatrixD::Identity(n, n);
}

/// ‖a − b‖_F relative to ‖b‖_F; infinite for other shapes.
template <class A, class B>
double relative_difference(const A& a, const B& b)
{
    if (a.rows() != b.rows() || a.cols() != b.cols())
        return std::numeric_limits<double>::infinity();
    const double distance = (a.template cast<double>() - b.template cast<double>()).norm();
    return distance == 0.0 ? 0.0 : distance / std::max(b.template cast<double>().norm(), 1e-300);
}

template <class M>
bool same_bytes(const M& a, const M& b)
{
    return a.rows() == b.rows() && a.cols() == b.cols()
           && std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(typename M::Scalar))
                  == 0;
}

} // namespace rankscope::test
