// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"

#include <cblas.h>

#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_tile = 256;        // edge of a tile of the result
constexpr Index k_large_tile = 512;  // the same when there are enough of them: 5 % less packing
constexpr Index k_block_terms = 256; // terms that a float32 product sums before float64 takes over

CBLAS_TRANSPOSE blas_transpose(Transpose transpose)
{
    return transpose == Transpose::Yes ? CblasTrans : CblasNoTrans;
}

Transpose flipped(Transpose transpose)
{
    return transpose == Transpose::Yes ? Transpose::No : Transpose::Yes;
}

/// First element of row (No) or column (Yes) i of a matrix that is used as op(matrix).
template <class T>
const T* line(const T* data, Index stride, Transpose transpose, Index i)
{
    return transpose == Transpose::Yes ? data + i : data + i * stride;
}

/// Leading dimensions must be ≥ 1 even for empty matrices.
template <class M>
Index stride_of(const M& matrix)
{
    return std::max<Index>(1, matrix.cols());
}

/// Lower triangle of the square c = alpha · x·xᵀ + beta · c (x n × k), row-major.
void blas_syrk(Transpose tx, Index n, Index k, float alpha, const float* x, Index ldx, float beta, float* c,
               Index ldc)
{
    cblas_ssyrk(CblasRowMajor, CblasLower, blas_transpose(tx), blas_int(n), blas_int(k), alpha, x,
                blas_int(ldx), beta, c, blas_int(ldc));
}

void blas_syrk(Transpose tx, Index n, Index k, double alpha, const double* x, Index ldx, double beta,
               double* c, Index ldc)
{
    cblas_dsyrk(CblasRowMajor, CblasLower, blas_transpose(tx), blas_int(n), blas_int(k), alpha, x,
                blas_int(ldx), beta, c, blas_int(ldc));
}

template <class T>
void gemm_tiles(T alpha, const RowMajor<T>& a, Transpose ta, const RowMajor<T>& b, Transpose tb, T beta,
                RowMajor<T>& c)
{
    const Index k = ta == Transpose::No ? a.cols() : a.rows();
    const Index edge = c.size() >= 16 * k_large_tile * k_large_tile ? k_large_tile : k_tile;
    const Index row_tiles = (c.rows() + edge - 1) / edge;
    const Index col_tiles = (c.cols() + edge - 1) / edge;
    for_stretches(row_tiles * col_tiles, 1, [&](Index tile, Index) {
        const Index i = tile / col_tiles * edge;
        const Index j = tile % col_tiles * edge;
        blas_gemm(ta, tb, std::min(edge, c.rows() - i), std::min(edge, c.cols() - j), k, alpha,
                  line(a.data(), a.cols(), ta, i), stride_of(a), line(b.data(), b.cols(), flipped(tb), j),
                  stride_of(b), beta, c.data() + i * c.cols() + j, stride_of(c));
    });
}

/// The same for two matrices: cross moments.
void gemm_tiles_mixed(double alpha, const Matrix& a, Transpose ta, const Matrix& b, Transpose tb, double beta,
                      MatrixD& c)
{
    const Index k = ta == Transpose::No ? a.cols() : a.rows();
    const Index col_tiles = (c.cols() + k_tile - 1) / k_tile;
    const Index row_tiles = (c.rows() + k_tile - 1) / k_tile;
    for_stretches(row_tiles * col_tiles, 1, [&](Index tile, Index) {
        const Index i = tile / col_tiles * k_tile;
        const Index j = tile % col_tiles * k_tile;
        const Index rows = std::min(k_tile, c.rows() - i);
        const Index cols = std::min(k_tile, c.cols() - j);
        MatrixD sum = MatrixD::Zero(rows, cols);
        Matrix part = Matrix::Zero(rows, cols);
        for (Index first = 0; first < k; first += k_block_terms) {
            const float* left = line(line(a.data(), a.cols(), ta, i), a.cols(), flipped(ta), first);
            const float* right = line(line(b.data(), b.cols(), flipped(tb), j), b.cols(), tb, first);
            blas_gemm(ta, tb, rows, cols, std::min(k_block_terms, k - first), 1.0F, left, stride_of(a), right,
                      stride_of(b), 0.0F, part.data(), cols);
            sum += part.cast<double>();
        }
        auto out = c.block(i, j, rows, cols);
        if (beta == 0.0)
            out = alpha * sum;
        else
            out = alpha * sum + beta * out;
    });
}

/// A product without terms: c = beta · c, where 0 also clears NaN.
template <class M>
void scale_only(M& c, double beta)
{
    if (beta == 0.0)
        c.setZero();
    else
        c *= static_cast<typename M::Scalar>(beta);
}

/// One tile (i, j) of a Gram matrix, i ≥ j; on the diagonal its lower triangle only.
struct GramTile {
    Index i, j, rows, cols;
};

template <class T>
void gram_tile(const GramTile& tile, T alpha, const RowMajor<T>& x, Transpose tx, T beta, RowMajor<T>& c)
{
    const Index k = tx == Transpose::No ? x.cols() : x.rows();
    const T* left = line(x.data(), x.cols(), tx, tile.i);
    T* out = c.data() + tile.i * c.cols() + tile.j;
    if (tile.i == tile.j)
        blas_syrk(tx, tile.rows, k, alpha, left, stride_of(x), beta, out, stride_of(c));
    else
        blas_gemm(tx, flipped(tx), tile.rows, tile.cols, k, alpha, left, stride_of(x),
                  line(x.data(), x.cols(), tx, tile.j), stride_of(x), beta, out, stride_of(c));
}

/// float32 products, float64 sums: moments of long texts lose nothing to the length.
void gram_tile_mixed(const GramTile& tile, double alpha, const Matrix& x, Transpose tx, double beta,
                     MatrixD& c)
{
    const Index k = tx == Transpose::No ? x.cols() : x.rows();
    MatrixD sum = MatrixD::Zero(tile.rows, tile.cols);
    Matrix part = Matrix::Zero(tile.rows, tile.cols);
    for (Index first = 0; first < k; first += k_block_terms) {
        const Index terms = std::min(k_block_terms, k - first);
        const float* block = tx == Transpose::Yes ? x.data() + first * x.cols() : x.data() + first;
        const float* left = line(block, x.cols(), tx, tile.i);
        if (tile.i == tile.j)
            blas_syrk(tx, tile.rows, terms, 1.0F, left, stride_of(x), 0.0F, part.data(), tile.cols);
        else
            blas_gemm(tx, flipped(tx), tile.rows, tile.cols, terms, 1.0F, left, stride_of(x),
                      line(block, x.cols(), tx, tile.j), stride_of(x), 0.0F, part.data(), tile.cols);
        sum += part.cast<double>();
    }
    auto out = c.block(tile.i, tile.j, tile.rows, tile.cols);
    if (beta == 0.0)
        out = alpha * sum;
    else
        out = alpha * sum + beta * out;
}

template <class T>
void mirror_tile(const GramTile& tile, RowMajor<T>& c)
{
    for (Index i = tile.i; i < tile.i + tile.rows; ++i) {
        const Index end = std::min(tile.j + tile.cols, i);
        for (Index j = tile.j; j < end; ++j)
            c(j, i) = c(i, j);
    }
}

/// Computes tiles on and below the diagonal and copies each to its mirror image.
template <class T, class Compute>
void gram_tiles(RowMajor<T>& c, const Compute& compute)
{
    std::vector<GramTile> tiles;
    for (Index i = 0; i < c.rows(); i += k_tile) {
        for (Index j = 0; j <= i; j += k_tile)
            tiles.push_back({i, j, std::min(k_tile, c.rows() - i), std::min(k_tile, c.cols() - j)});
    }
    for_stretches(static_cast<Index>(tiles.size()), 1, [&](Index index, Index) {
        const GramTile& tile = tiles[static_cast<std::size_t>(index)];
        compute(tile);
        mirror_tile(tile, c);
    });
}

} // namespace

void blas_gemm(Transpose ta, Transpose tb, Index m, Index n, Index k, float alpha, const float* a, Index lda,
               const float* b, Index ldb, float beta, float* c, Index ldc)
{
    cblas_sgemm(CblasRowMajor, blas_transpose(ta), blas_transpose(tb), blas_int(m), blas_int(n), blas_int(k),
                alpha, a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void blas_gemm(Transpose ta, Transpose tb, Index m, Index n, Index k, double alpha, const double* a,
               Index lda, const double* b, Index ldb, double beta, double* c, Index ldc)
{
    cblas_dgemm(CblasRowMajor, blas_transpose(ta), blas_transpose(tb), blas_int(m), blas_int(n), blas_int(k),
                alpha, a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void CpuBackend::gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb, double beta,
                      Buffer& c)
{
    const Index m = ta == Transpose::No ? a.rows() : a.cols();
    const Index k = ta == Transpose::No ? a.cols() : a.rows();
    const Index n = tb == Transpose::No ? b.cols() : b.rows();
    require(k == (tb == Transpose::No ? b.rows() : b.cols()), "gemm", "inner dimensions differ");
    require(c.rows() == m && c.cols() == n, "gemm", "the result has another shape than the product");
    require(a.precision() == b.precision()
                && (a.precision() == c.precision() || a.precision() == Precision::Float32),
            "gemm", "precisions differ");
    if (c.empty())
        return;
    if (a.precision() != c.precision() && k > 0) {
        gemm_tiles_mixed(alpha, elements<float>(a), ta, elements<float>(b), tb, beta, elements<double>(c));
        return;
    }
    with_elements(c, [&](auto& out) {
        using T = typename std::remove_cvref_t<decltype(out)>::Scalar;
        if (k > 0)
            gemm_tiles<T>(static_cast<T>(alpha), elements<T>(a), ta, elements<T>(b), tb, static_cast<T>(beta),
                          out);
        else
            scale_only(out, beta);
    });
}

void CpuBackend::gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c)
{
    const Index n = tx == Transpose::No ? x.rows() : x.cols();
    const Index k = tx == Transpose::No ? x.cols() : x.rows();
    require(c.rows() == n && c.cols() == n, "gram", "the result has another shape than the product");
    require(x.precision() == c.precision() || x.precision() == Precision::Float32, "gram",
            "a float64 matrix needs a float64 result");
    if (n == 0)
        return;
    if (k == 0) {
        with_elements(c, [&](auto& out) { scale_only(out, beta); });
        return;
    }
    if (x.precision() != c.precision()) {
        const auto& in = elements<float>(x);
        auto& out = elements<double>(c);
        gram_tiles<double>(out,
                           [&](const GramTile& tile) { gram_tile_mixed(tile, alpha, in, tx, beta, out); });
        return;
    }
    with_elements(c, [&](auto& out) {
        using T = typename std::remove_cvref_t<decltype(out)>::Scalar;
        gram_tiles<T>(out, [&](const GramTile& tile) {
            gram_tile<T>(tile, static_cast<T>(alpha), elements<T>(x), tx, static_cast<T>(beta), out);
        });
    });
}

} // namespace rankscope::detail
