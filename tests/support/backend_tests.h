// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <functional>
#include <limits>

/// What tests of a backend's operations in both precisions share.
namespace rankscope::test {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();

inline Transpose flag(bool transposed) { return transposed ? Transpose::Yes : Transpose::No; }
inline Precision precision_of(bool twice) { return twice ? Precision::Float64 : Precision::Float32; }

inline Buffer upload(Backend& backend, const MatrixD& matrix, Precision precision)
{
    return precision == Precision::Float64 ? backend.upload(matrix)
                                           : backend.upload(Matrix(matrix.cast<float>()));
}

/// What the buffer of that precision holds: the reference must start from the same numbers.
inline MatrixD rounded(const MatrixD& matrix, Precision precision)
{
    return precision == Precision::Float64 ? matrix : MatrixD(matrix.cast<float>().cast<double>());
}

inline MatrixD turned(const MatrixD& matrix, Transpose transpose)
{
    return transpose == Transpose::Yes ? MatrixD(matrix.transpose()) : matrix;
}

inline bool is_failure(const std::function<void()>& body)
{
    try {
        body();
    } catch (const BackendFailure& failure) {
        return !failure.error().message.empty();
    }
    return false;
}

} // namespace rankscope::test
