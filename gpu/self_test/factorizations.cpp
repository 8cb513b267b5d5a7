// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>

#include <cmath>

namespace rankscope::gpu::self_test {

namespace {

/// Bases of the same space differ by a rotation: compared are the projections onto it, and how far the basis
/// is from orthonormal.
void add_orthonormalize(Cases& cases)
{
    struct Shape {
        Index rows, cols;
        double decay; ///< the singular values fall from 1 to this
    };
    for (const Shape shape : {Shape{1, 1, 1.0}, Shape{97, 1, 1.0}, Shape{64, 64, 1e-1}, Shape{131, 17, 1e-1},
                              Shape{300, 47, 1e-3}}) {
        cases.push_back(
            {fmt::format("orthonormalize {}x{} down to {}", shape.rows, shape.cols, shape.decay), 2e-5,
             [shape](Backend& device, Backend& reference) {
                 Matrix y = normal_matrix(shape.rows, shape.cols, "y");
                 for (Index j = 0; j < shape.cols; ++j)
                     y.col(j) *= static_cast<float>(
                         std::pow(shape.decay, static_cast<double>(j) / static_cast<double>(shape.cols)));
                 y = (y * normal_matrix(shape.cols, shape.cols, "mix")).eval();
                 const auto basis_on = [&](Backend& backend) {
                     Buffer basis = backend.upload(y);
                     backend.orthonormalize(basis);
                     return backend.download_double(basis);
                 };
                 const MatrixD basis = basis_on(device);
                 const MatrixD expected = basis_on(reference);
                 if (basis.rows() != expected.rows() || basis.cols() != expected.cols() || !basis.allFinite())
                     return k_infinity;
                 const MatrixD unit = MatrixD::Identity(shape.cols, shape.cols);
                 const double skew = (basis.transpose() * basis - unit).cwiseAbs().maxCoeff();
                 if (skew > 4e-6)
                     return skew * 1e3;
                 // float32 itself spoils the weakest direction by its share of the strongest.
                 return shape.decay
                        * normalized_error(basis * basis.transpose(), expected * expected.transpose());
             }});
    }
}

/// The factor of a well-conditioned matrix; what lies above its diagonal must not matter.
Matrix factor_of(Index n)
{
    const Eigen::LLT<MatrixD> factored(moments_of(n));
    Matrix lower = MatrixD(factored.matrixL()).cast<float>();
    lower.triangularView<Eigen::StrictlyUpper>().setConstant(std::numeric_limits<float>::quiet_NaN());
    return lower;
}

void add_solve_lower(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {5, 33}, {64, 64}, {65, 31}, {131, 1}, {257, 67}};
    for (const auto& size : k_sizes) {
        for (const bool flip : {false, true}) {
            add(cases, fmt::format("solve_lower {}x{}{}", size[0], size[1], flip ? " t" : ""), k_float_tolerance,
                [n = size[0], count = size[1], flip](Backend& backend) {
                    Buffer b = backend.upload(normal_matrix(n, count, "b"));
                    backend.solve_lower(backend.upload(factor_of(n)), transpose_of(flip), b);
                    return backend.download_double(b);
                });
        }
    }
}

} // namespace

void add_factorizations(Cases& cases)
{
    add_orthonormalize(cases);
    add_solve_lower(cases);
}

} // namespace rankscope::gpu::self_test
