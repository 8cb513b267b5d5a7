// SPDX-License-Identifier: GPL-3.0-or-later
// Factorizations are float64 work: the host's. What is tall, and solving with a factor in float32, stays on the device.
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

/// Rows [start, start + count) of b, which hold what is left of them when all panels before are subtracted.
void VulkanBackend::solve_panel(const Buffer& lower, Transpose transpose, Index start, Index count, Buffer& b)
{
    struct Push {
        std::uint32_t cols, first, count, end, order, base_b, base_lower, transposed;
    };
    const Index n = lower.cols();
    const double flops = static_cast<double>(count * count); // of a column
    const Index step =
        std::max<Index>(static_cast<Index>(recorder_->flops_per_submit() / flops) / k_panel_rows, 1)
        * k_panel_rows;
    const View rows = rows_view(b, start, count, Access::ReadWrite);
    const View triangle = view(range_of(lower), start * n + start, (count - 1) * n + count, Access::Read);
    for (Index first = 0; first < b.cols(); first += step) {
        const Index part = std::min(step, b.cols() - first);
        run(Kernel::SolvePanel, {k_panel_rows, u32(k_panel)}, {rows.binding, triangle.binding},
            Push{u32(b.cols()), u32(first), u32(count), u32(first + part), u32(n), rows.base, triangle.base,
                 transpose == Transpose::Yes ? 1U : 0U},
            static_cast<std::uint64_t>((part + k_panel_rows - 1) / k_panel_rows),
            flops * static_cast<double>(part));
    }
}

/// Panel by panel; each is subtracted from all rows that are still to come by one product.
void VulkanBackend::solve_lower(const Buffer& lower, Transpose transpose, Buffer& b)
{
    require(lower.rows() == lower.cols() && lower.rows() == b.rows(), "solve_lower", "shapes do not match");
    const bool panels_fit = rows_per_binding(std::max(lower.cols(), b.cols())) >= k_panel;
    if (!fits({&lower, &b}) || !panels_fit) {
        HostFallbackBackend::solve_lower(lower, transpose, b);
        return;
    }
    const Index n = lower.rows();
    const Index panels = (n + k_panel - 1) / k_panel;
    for (Index i = 0; i < panels; ++i) {
        const Index start = (transpose == Transpose::Yes ? panels - 1 - i : i) * k_panel;
        const Index count = std::min(k_panel, n - start);
        const Index end = start + count;
        solve_panel(lower, transpose, start, count, b);
        const bool up = transpose == Transpose::Yes;
        const Index left = up ? start : n - end;
        if (left == 0)
            continue;
        product({{range_of(lower), up ? start * n : end * n + start, n},
                 {range_of(b), start * b.cols(), b.cols()},
                 {range_of(b), up ? 0 : end * b.cols(), b.cols()},
                 transpose,
                 Transpose::No,
                 left,
                 b.cols(),
                 count,
                 -1.0F,
                 1.0F});
    }
}

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
