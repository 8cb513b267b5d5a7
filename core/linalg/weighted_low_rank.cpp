// SPDX-License-Identifier: GPL-3.0-or-later
//
// Everything here works on Gram matrices in float64: squaring costs half the digits, and float64 has them to
// spare (methods-joint §4.2). H^(-1/2) is never formed, so a singular H needs no damping.
#include "core/linalg/weighted_low_rank.h"

#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

/// C with H = C·Cᵀ: the Cholesky factor, or V·Λ^½ when H is singular.
Buffer root_of(const Buffer& hessian, Backend& backend)
{
    if (auto factor = backend.cholesky(hessian))
        return *factor;
    const SymmetricEigen eigen = backend.top_eigen(hessian, hessian.rows());
    Buffer root = eigen.vectors;
    backend.scale_columns(root, eigen.values.cwiseMax(0.0).cwiseSqrt());
    return root;
}

/// A·C, or A itself for the identity.
Buffer whitened(const Buffer& a, const Buffer& hessian, Backend& backend)
{
    return hessian.empty() ? a : backend.multiply(a, root_of(hessian, backend));
}

/// A·H·Aᵀ (m × m).
Buffer left_gram(const Buffer& a, const Buffer& hessian, Backend& backend)
{
    Buffer gram = backend.allocate(a.rows(), a.rows(), Precision::Float64);
    if (hessian.empty())
        backend.gram(1.0, a, Transpose::No, 0.0, gram);
    else
        backend.gemm(1.0, backend.multiply(a, hessian), Transpose::No, a, Transpose::Yes, 0.0, gram);
    return gram;
}

Buffer right_gram(const Buffer& whitened_a, Backend& backend)
{
    Buffer gram = backend.allocate(whitened_a.cols(), whitened_a.cols(), Precision::Float64);
    backend.gram(1.0, whitened_a, Transpose::Yes, 0.0, gram);
    return gram;
}

double trace(const Buffer& square, Backend& backend) { return backend.download_double(square).trace(); }

} // namespace

LowRankBuffers weighted_low_rank(const Buffer& a, const Buffer& hessian, Index rank, Backend& backend)
{
    const Index r = std::clamp<Index>(rank, 0, std::min(a.rows(), a.cols()));
    const Buffer a_double = backend.convert(a, Precision::Float64);
    Buffer left;
    double total = 0.0;
    SymmetricEigen eigen;
    if (a.rows() <= a.cols()) {
        const Buffer gram = left_gram(a_double, hessian, backend);
        total = trace(gram, backend);
        eigen = backend.top_eigen(gram, r);
        left = eigen.vectors;
    } else {
        const Buffer b = whitened(a_double, hessian, backend);
        const Buffer gram = right_gram(b, backend);
        total = trace(gram, backend);
        eigen = backend.top_eigen(gram, r);
        // B·V_r spans the same space as the top left singular vectors. Orthonormalizing it instead of
        // dividing by Λ^½ also serves directions without weight, where any orthonormal column is as good.
        left = backend.multiply(b, eigen.vectors);
        if (r > 0)
            backend.orthonormalize(left);
    }
    const Buffer right = backend.multiply(left, Transpose::Yes, a_double, Transpose::No);
    return {backend.convert(left, Precision::Float32), backend.convert(right, Precision::Float32),
            std::max(0.0, total - eigen.values.sum())};
}

VectorD weighted_spectrum(const Buffer& a, const Buffer& hessian, Backend& backend)
{
    const Buffer a_double = backend.convert(a, Precision::Float64);
    const Buffer gram = a.rows() <= a.cols() ? left_gram(a_double, hessian, backend)
                                             : right_gram(whitened(a_double, hessian, backend), backend);
    return backend.symmetric_eigenvalues(gram).cwiseMax(0.0);
}

double weighted_squared_norm(const Buffer& e, const Buffer& hessian, Backend& backend)
{
    const Buffer e_double = backend.convert(e, Precision::Float64);
    if (hessian.empty())
        return backend.dot(e_double, e_double);
    return backend.dot(backend.multiply(e_double, hessian), e_double);
}

MatrixD downdated_hessian(const Buffer& hessian, const Buffer& right, Backend& backend)
{
    MatrixD result = backend.download_double(hessian);
    if (right.empty())
        return result;
    const Buffer r = backend.convert(right, Precision::Float64);
    const Buffer weighted = backend.multiply(r, hessian); // R·H
    const MatrixD gram =
        backend.download_double(backend.multiply(weighted, Transpose::No, r, Transpose::Yes));
    // R may have components without weight: the pseudoinverse leaves their directions alone.
    const MatrixD solved = gram.completeOrthogonalDecomposition().solve(backend.download_double(weighted));
    result -= backend.download_double(
        backend.multiply(weighted, Transpose::Yes, backend.upload(solved), Transpose::No));
    return 0.5 * (result + result.transpose());
}

void balance(Matrix& left, Matrix& right)
{
    for (Index i = 0; i < std::min(left.cols(), right.rows()); ++i) {
        const double left_norm = left.col(i).cast<double>().norm();
        const double right_norm = right.row(i).cast<double>().norm();
        if (left_norm == 0.0 || right_norm == 0.0 || !std::isfinite(left_norm * right_norm))
            continue;
        const double factor = std::sqrt(right_norm / left_norm);
        left.col(i) *= static_cast<float>(factor);
        right.row(i) *= static_cast<float>(1.0 / factor);
    }
}

} // namespace rankscope
