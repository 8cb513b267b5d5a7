// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"

#include <cblas.h>
#include <fmt/format.h>
#include <lapacke.h>

#include <cmath>
#include <vector>

namespace rankscope::detail {
namespace {

using ColMajorD = Eigen::MatrixXd;

constexpr Index k_cholesky_block = 256;
constexpr Index k_cholesky_whole = 1024; // up to here one call of LAPACK is faster than blocks
constexpr Index k_solve_columns = 256;   // right-hand sides of a task
constexpr Index k_exact_singular_side =
    1024; // above, singular values of float32 matrices come from the Gram matrix

/// LAPACK answers info ≠ 0 only for non-finite input here, or when an iteration does not end.
void check(lapack_int info, const char* operation)
{
    if (info == 0)
        return;
    throw BackendFailure(bad_input(
        fmt::format("the factorization failed (LAPACK info {}); is every element of the matrix finite?",
                    info),
        std::string("CPU backend, ") + operation));
}

ColMajorD square_copy(const Buffer& symmetric, const char* operation)
{
    require(symmetric.rows() == symmetric.cols(), operation, "the matrix is not square");
    return double_copy(symmetric); // read as its transpose: the same
}

lapack_int leading(const ColMajorD& matrix) { return std::max(1, blas_int(matrix.rows())); }

/// All eigenvalues, rising; vectors replace `matrix` if asked for.
VectorD all_eigen(ColMajorD& matrix, bool vectors, const char* operation)
{
    VectorD values(matrix.rows());
    check(LAPACKE_dsyevd(LAPACK_COL_MAJOR, vectors ? 'V' : 'N', 'L', blas_int(matrix.rows()), matrix.data(),
                         leading(matrix), values.data()),
          operation);
    return values;
}

/// The largest `count` pairs by bisection and inverse iteration; false if that did not converge.
bool some_eigen(ColMajorD matrix, Index count, VectorD& values, ColMajorD& vectors)
{
    const lapack_int n = blas_int(matrix.rows());
    const lapack_int wanted = blas_int(count);
    lapack_int found = 0;
    values.resize(n);
    vectors.resize(n, count);
    std::vector<lapack_int> support(static_cast<std::size_t>(2 * n));
    const lapack_int info =
        LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'L', n, matrix.data(), n, 0.0, 0.0, n - wanted + 1, n, 0.0,
                       &found, values.data(), vectors.data(), n, support.data());
    if (info < 0)
        check(info, "top_eigen");
    return info == 0 && found == wanted;
}

/// The lower factor in place of a row-major matrix; returns LAPACK's info. Row-major memory read by columns
/// is the transpose: LAPACK's upper UᵀU is our lower C·Cᵀ, and nothing is copied.
lapack_int factor_block(double* block, Index size, Index stride)
{
    return LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', blas_int(size), block, blas_int(stride));
}

/// Right-looking by blocks, so that the products behind each block run in parallel. The strict upper triangle
/// is left with arbitrary numbers. Returns the 1-based column at which the matrix stops being positive
/// definite, 0 if none.
Index factor_in_place(MatrixD& h)
{
    const Index n = h.rows();
    const Index block = n <= k_cholesky_whole ? n : k_cholesky_block;
    const auto at = [&](Index i, Index j) { return h.data() + i * n + j; };
    for (Index k = 0; k < n; k += block) {
        const Index size = std::min(block, n - k);
        if (const lapack_int info = factor_block(at(k, k), size, n); info != 0)
            return k + std::abs(info);
        const Index next = k + size;
        for_stretches(n - next, block, [&](Index first, Index count) {
            cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, blas_int(count),
                        blas_int(size), 1.0, at(k, k), blas_int(n), at(next + first, k), blas_int(n));
        });
        const Index blocks = (n - next + block - 1) / block;
        for_stretches(blocks * (blocks + 1) / 2, 1, [&](Index tile, Index) {
            Index row = 0;
            while ((row + 1) * (row + 2) / 2 <= tile)
                ++row;
            const Index i = next + row * block;
            const Index j = next + (tile - row * (row + 1) / 2) * block;
            const Index rows = std::min(block, n - i);
            if (i == j)
                cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, blas_int(rows), blas_int(size), -1.0,
                            at(i, k), blas_int(n), 1.0, at(i, i), blas_int(n));
            else
                blas_gemm(Transpose::No, Transpose::Yes, rows, block, size, -1.0, at(i, k), n, at(j, k), n,
                          1.0, at(i, j), n);
        });
    }
    return 0;
}

Buffer with_precision(MatrixD matrix, Precision precision)
{
    if (precision == Precision::Float64)
        return make_buffer(std::move(matrix));
    return make_buffer(Matrix(matrix.cast<float>()));
}

void solve_triangle(CBLAS_TRANSPOSE transpose, int n, int count, const float* triangle, float* b)
{
    cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, transpose, CblasNonUnit, n, count, 1.0F, triangle, n, b,
                count);
}

void solve_triangle(CBLAS_TRANSPOSE transpose, int n, int count, const double* triangle, double* b)
{
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, transpose, CblasNonUnit, n, count, 1.0, triangle, n, b,
                count);
}

/// Columns in stretches, each in the triangle's precision.
template <class T, class B>
void solve_columns(const RowMajor<T>& triangle, Transpose transpose, RowMajor<B>& b)
{
    for_stretches(b.cols(), k_solve_columns, [&](Index first, Index count) {
        RowMajor<T> part = b.middleCols(first, count).template cast<T>();
        solve_triangle(transpose == Transpose::Yes ? CblasTrans : CblasNoTrans, blas_int(triangle.rows()),
                       blas_int(count), triangle.data(), part.data());
        b.middleCols(first, count) = part.template cast<B>();
    });
}

} // namespace

Result<Buffer> CpuBackend::cholesky(const Buffer& h)
{
    require(h.rows() == h.cols(), "cholesky", "the matrix is not square");
    MatrixD factor = double_copy(h);
    const Index n = factor.rows();
    if (n == 0)
        return with_precision(std::move(factor), h.precision());
    if (!factor.allFinite())
        return bad_input("the matrix is not positive definite: it has elements that are not finite");
    if (const Index column = factor_in_place(factor); column != 0)
        return bad_input(fmt::format("the matrix is not positive definite (column {})", column));
    if (!factor.diagonal().allFinite())
        return bad_input("the matrix is not positive definite: its factor overflows");
    factor.triangularView<Eigen::StrictlyUpper>().setZero();
    return with_precision(std::move(factor), h.precision());
}

void CpuBackend::solve_lower(const Buffer& lower, Transpose transpose, Buffer& b)
{
    require(lower.rows() == lower.cols() && lower.rows() == b.rows(), "solve_lower", "shapes do not match");
    if (b.empty())
        return;
    if (lower.precision() == Precision::Float32 && b.precision() == Precision::Float32) {
        solve_columns(elements<float>(lower), transpose, elements<float>(b));
        return;
    }
    MatrixD converted;
    const MatrixD* triangle = &converted;
    if (lower.precision() == Precision::Float64)
        triangle = &elements<double>(lower);
    else
        converted = double_copy(lower);
    with_elements(b, [&](auto& matrix) { solve_columns(*triangle, transpose, matrix); });
}

SymmetricEigen CpuBackend::top_eigen(const Buffer& symmetric, Index count)
{
    ColMajorD matrix = square_copy(symmetric, "top_eigen");
    const Index n = matrix.rows();
    require(count >= 0 && count <= n, "top_eigen", "more eigenpairs asked for than there are");
    if (count == 0)
        return {VectorD(0), make_buffer(MatrixD(n, 0))};
    VectorD values;
    ColMajorD vectors;
    if (count <= n / 2 && some_eigen(matrix, count, values, vectors))
        return {values.head(count).reverse(), make_buffer(MatrixD(vectors.rowwise().reverse()))};
    values = all_eigen(matrix, true, "top_eigen");
    return {values.tail(count).reverse(), make_buffer(MatrixD(matrix.rightCols(count).rowwise().reverse()))};
}

VectorD CpuBackend::symmetric_eigenvalues(const Buffer& symmetric)
{
    ColMajorD matrix = square_copy(symmetric, "symmetric_eigenvalues");
    if (matrix.size() == 0)
        return {};
    return all_eigen(matrix, false, "symmetric_eigenvalues").reverse();
}

VectorD CpuBackend::singular_values(const Buffer& a)
{
    const Index side = std::min(a.rows(), a.cols());
    if (side == 0)
        return {};
    if (a.precision() == Precision::Float32 && side > k_exact_singular_side) {
        // Half the work of a bidiagonalization. What squaring loses lies below 1e-8 of the largest value,
        // less than float32 elements know.
        const Buffer twice = convert(a, Precision::Float64);
        Buffer gram_matrix = allocate(side, side, Precision::Float64);
        gram(1.0, twice, a.rows() <= a.cols() ? Transpose::No : Transpose::Yes, 0.0, gram_matrix);
        return symmetric_eigenvalues(gram_matrix).cwiseMax(0.0).cwiseSqrt();
    }
    // Row-major memory read by columns is the transpose: the same singular values.
    MatrixD matrix = double_copy(a);
    VectorD values(side);
    const lapack_int m = blas_int(a.cols());
    const lapack_int n = blas_int(a.rows());
    check(
        LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'N', m, n, matrix.data(), m, values.data(), nullptr, 1, nullptr, 1),
        "singular_values");
    return values;
}

void CpuBackend::orthonormalize(Buffer& y)
{
    require(y.rows() >= y.cols(), "orthonormalize", "more columns than rows");
    if (y.empty())
        return;
    ColMajorD q = double_copy(y);
    const lapack_int m = blas_int(q.rows());
    const lapack_int n = blas_int(q.cols());
    VectorD reflectors(n);
    check(LAPACKE_dgeqrf(LAPACK_COL_MAJOR, m, n, q.data(), m, reflectors.data()), "orthonormalize");
    check(LAPACKE_dorgqr(LAPACK_COL_MAJOR, m, n, n, q.data(), m, reflectors.data()), "orthonormalize");
    with_elements(y, [&](auto& matrix) {
        using T = typename std::remove_cvref_t<decltype(matrix)>::Scalar;
        matrix = q.cast<T>();
    });
}

} // namespace rankscope::detail
