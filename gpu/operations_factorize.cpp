// SPDX-License-Identifier: GPL-3.0-or-later
// Factorizations are float64 work on small matrices: the host's. What is tall stays on the device.
#include "gpu/operations.h"

namespace rankscope::gpu {

namespace {

constexpr int k_most_passes = 6;
constexpr double k_orthonormal = 2e-6;    // the largest element of YᵀY − I that is left
constexpr double k_nearly = 0.1;          // of it, by the columns: YᵀY surely is positive definite
constexpr double k_weak_direction = 1e-2; // of a factor's diagonal: below it the factor needs a shift
constexpr double k_shift = 4e-6; // what float32 products leave uncertain of a Gram matrix of unit columns

/// D^-½·C^-ᵀ for YᵀY = D^½·C·Cᵀ·D^½: it makes the columns of Y orthonormal, or nearly so. Empty where Y has
/// not that many directions.
Matrix orthonormalizer(const MatrixD& gram, Backend& host)
{
    const Index n = gram.rows();
    const VectorD squares = gram.diagonal();
    if (!gram.allFinite() || !(squares.minCoeff() > 0.0))
        return {};
    const VectorD inverse = squares.cwiseSqrt().cwiseInverse();
    MatrixD unit = inverse.asDiagonal() * gram * inverse.asDiagonal();
    auto factor = host.cholesky(host.upload(unit));
    if (!factor || host.download_double(*factor).diagonal().minCoeff() < k_weak_direction) {
        unit.diagonal().array() += k_shift * static_cast<double>(n);
        factor = host.cholesky(host.upload(unit));
        if (!factor)
            return {};
    }
    Buffer solved = host.upload(MatrixD(MatrixD::Identity(n, n)));
    host.solve_lower(*factor, Transpose::Yes, solved);
    return (inverse.asDiagonal() * host.download_double(solved)).cast<float>();
}

} // namespace

/// CholeskyQR, repeated until the columns are orthonormal: twice where they were far from dependent, else
/// from a shifted factor a time or two more.
void VulkanBackend::orthonormalize(Buffer& y)
{
    require(y.rows() >= y.cols(), "orthonormalize", "more columns than rows");
    if (!fits({&y})) {
        HostFallbackBackend::orthonormalize(y);
        return;
    }
    const Index n = y.cols();
    const MatrixD unit = MatrixD::Identity(n, n);
    Buffer basis = y;
    bool done = false;
    for (int pass = 0; pass < k_most_passes && !done; ++pass) {
        Buffer gram = new_buffer(n, n);
        this->gram(1.0, basis, Transpose::Yes, 0.0, gram);
        const MatrixD products = download_double(gram);
        const double skew = (products - unit).cwiseAbs().maxCoeff();
        done =
            skew <= k_nearly / static_cast<double>(n); // what a plain factor then leaves are rounding errors
        if (skew <= k_orthonormal)
            break;
        const Matrix turn = orthonormalizer(products, host());
        if (turn.size() == 0)
            break;
        basis = multiply(basis, Transpose::No, upload(turn), Transpose::No);
    }
    if (done) {
        if (basis.storage() != y.storage())
            recorder_->copy(range_of(basis), range_of(y),
                            {{0, 0, static_cast<VkDeviceSize>(y.size()) * sizeof(float)}});
        return;
    }
    HostFallbackBackend::orthonormalize(y); // fewer directions than columns: Householder's way finds some
}

} // namespace rankscope::gpu
