// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/panels.h"

#include <cblas.h>

#include <variant>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_tile = 256;            // edge of a tile of the result
constexpr Index k_large_tile = 512;      // the same when there are enough of them: 5 % less packing
constexpr Index k_least_panel_edge = 64; // of a product that is worth packing its factors once for all tiles
constexpr Index k_block_terms = 256;     // terms that a float32 product sums before float64 takes over

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

/// Whether a float32 product, m × k times k × n, is worth packing both factors once instead of once a tile.
/// The portable kernel, the last one, is no match for BLAS.
bool deserves_panels(Index m, Index n, Index k)
{
    static const bool fast = micro_kernels().size() > 1;
    return fast && std::min({m, n, k}) >= k_least_panel_edge;
}

void gemm_panels(float alpha, const Matrix& a, Transpose ta, const Matrix& b, Transpose tb, float beta,
                 Matrix& c)
{
    const Panels<float> right =
        tb == Transpose::Yes ? panels_of_columns<float>(
            b.rows(), b.cols(),
            [&b](Index row, float* values) { std::copy_n(b.data() + row * b.cols(), b.cols(), values); })
                             : panels_of_rows<float>(b.data(), b.rows(), b.cols());
    AlignedArray<float> tiles;
    const LeftFactor<float> left = ta == Transpose::Yes ? turned_factor(a.data(), a.rows(), a.cols(), tiles)
                                                        : LeftFactor<float>{a.data(), a.cols(), 1, a.rows()};
    multiply_panels(left, right, alpha, beta, c.data(), c.cols());
}

/// Products of two float32 matrices summed in float64: cross moments.
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

void gram_tile(const GramTile& tile, double alpha, const MatrixD& x, Transpose tx, double beta, MatrixD& c)
{
    const Index k = tx == Transpose::No ? x.cols() : x.rows();
    const double* left = line(x.data(), x.cols(), tx, tile.i);
    double* out = c.data() + tile.i * c.cols() + tile.j;
    if (tile.i == tile.j)
        blas_syrk(tx, tile.rows, k, alpha, left, stride_of(x), beta, out, stride_of(c));
    else
        blas_gemm(tx, flipped(tx), tile.rows, tile.cols, k, alpha, left, stride_of(x),
                  line(x.data(), x.cols(), tx, tile.j), stride_of(x), beta, out, stride_of(c));
}

void mirror_tile(const GramTile& tile, MatrixD& c)
{
    for (Index i = tile.i; i < tile.i + tile.rows; ++i) {
        const Index end = std::min(tile.j + tile.cols, i);
        for (Index j = tile.j; j < end; ++j)
            c(j, i) = c(i, j);
    }
}

/// Computes tiles on and below the diagonal and copies each to its mirror image.
void gram_tiles(double alpha, const MatrixD& x, Transpose tx, double beta, MatrixD& c)
{
    std::vector<GramTile> tiles;
    for (Index i = 0; i < c.rows(); i += k_tile) {
        for (Index j = 0; j <= i; j += k_tile)
            tiles.push_back({i, j, std::min(k_tile, c.rows() - i), std::min(k_tile, c.cols() - j)});
    }
    for_stretches(static_cast<Index>(tiles.size()), 1, [&](Index index, Index) {
        const GramTile& tile = tiles[static_cast<std::size_t>(index)];
        gram_tile(tile, alpha, x, tx, beta, c);
        mirror_tile(tile, c);
    });
}

/// c = alpha · x·xᵀ (No) or alpha · xᵀ·x (Yes) + beta · c for a float32 x.
template <class Term, class T>
void gram_of_floats(double alpha, const Matrix& x, Transpose tx, double beta, RowMajor<T>& c)
{
    const auto line_at = [&x](Index row, float* values) {
        std::copy_n(x.data() + row * x.cols(), x.cols(), values);
    };
    const Panels<Term> factor = tx == Transpose::Yes ? panels_of_rows<Term>(x.data(), x.rows(), x.cols())
                                                     : panels_of_columns<Term>(x.rows(), x.cols(), line_at);
    gram_panels(alpha, factor, beta, c.data());
}

/// A prepared weight: Wᵀ as a right factor.
class PreparedWeight final : public BufferStorage {
public:
    explicit PreparedWeight(Panels<float> panels) : panels_(std::move(panels)) {}
    explicit PreparedWeight(Panels<BfloatPair> panels) : panels_(std::move(panels)) {}

    /// c = alpha · x·Wᵀ + beta · c.
    void multiply(double alpha, const Matrix& x, double beta, Matrix& c) const
    {
        if (const auto* floats = std::get_if<Panels<float>>(&panels_)) {
            multiply_panels({x.data(), x.cols(), 1, x.rows()}, *floats, static_cast<float>(alpha),
                            static_cast<float>(beta), c.data(), c.cols());
            return;
        }
        const Index pairs = pairs_of(x.cols());
        AlignedArray<BfloatPair> left(x.rows() * pairs);
        for_stretches(x.rows(), rows_per_task(x.cols()), [&](Index first, Index count) {
            for (Index row = first; row < first + count; ++row)
                to_bfloat_pairs(x.data() + row * x.cols(), x.cols(), left.data() + row * pairs);
        });
        multiply_panels({left.data(), pairs, 1, x.rows()}, std::get<Panels<BfloatPair>>(panels_),
                        static_cast<float>(alpha), static_cast<float>(beta), c.data(), c.cols());
    }

private:
    std::variant<Panels<float>, Panels<BfloatPair>> panels_;
};

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
    const auto* prepared = dynamic_cast<const PreparedWeight*>(b.storage());
    require(prepared == nullptr || (ta == Transpose::No && tb == Transpose::Yes), "gemm",
            "a prepared weight serves x·Wᵀ only");
    if (c.empty())
        return;
    if (a.precision() != c.precision() && k > 0) {
        gemm_tiles_mixed(alpha, elements<float>(a), ta, elements<float>(b), tb, beta, elements<double>(c));
        return;
    }
    with_elements(c, [&](auto& out) {
        using T = typename std::remove_cvref_t<decltype(out)>::Scalar;
        if (k == 0)
            return scale_only(out, beta);
        if constexpr (std::is_same_v<T, float>) {
            if (prepared != nullptr)
                return prepared->multiply(alpha, elements<float>(a), beta, out);
            if (deserves_panels(m, n, k))
                return gemm_panels(static_cast<float>(alpha), elements<float>(a), ta, elements<float>(b), tb,
                                   static_cast<float>(beta), out);
        }
        gemm_tiles<T>(static_cast<T>(alpha), elements<T>(a), ta, elements<T>(b), tb, static_cast<T>(beta),
                      out);
    });
}

Buffer CpuBackend::multiply(const Buffer& a, Transpose ta, const Buffer& b, Transpose tb)
{
    // Not zeroed first, as allocate() does it: gemm overwrites everything.
    const Index rows = ta == Transpose::No ? a.rows() : a.cols();
    const Index cols = tb == Transpose::No ? b.cols() : b.rows();
    Buffer product = a.precision() == Precision::Float32 ? make_buffer(Matrix(rows, cols))
                                                         : make_buffer(MatrixD(rows, cols));
    gemm(1.0, a, ta, b, tb, 0.0, product);
    return product;
}

Buffer CpuBackend::prepare_weight(const Buffer& weight)
{
    require(weight.precision() == Precision::Float32, "prepare_weight", "the weight is not float32");
    if (weight.empty() || dynamic_cast<const PreparedWeight*>(weight.storage()) != nullptr)
        return weight;
    const Matrix& matrix = elements<float>(weight);
    return prepare_weight(matrix.rows(), matrix.cols(), [&matrix](Index row, float* values) {
        std::copy_n(matrix.data() + row * matrix.cols(), matrix.cols(), values);
    });
}

Buffer CpuBackend::prepare_weight(Index rows, Index cols, const RowDecoder& decode)
{
    require(rows >= 0 && cols >= 0, "prepare_weight", "a dimension is negative");
    if (rows == 0 || cols == 0)
        return allocate(rows, cols, Precision::Float32);
    std::shared_ptr<BufferStorage> storage;
    if (factors_ == Factors::Float32)
        storage = std::make_shared<PreparedWeight>(panels_of_columns<float>(rows, cols, decode));
    else
        storage = std::make_shared<PreparedWeight>(panels_of_columns<BfloatPair>(rows, cols, decode));
    return {rows, cols, Precision::Float32, std::move(storage)};
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
    if (x.precision() == Precision::Float64)
        gram_tiles(alpha, elements<double>(x), tx, beta, elements<double>(c));
    else if (c.precision() == Precision::Float32)
        gram_of_floats<float>(alpha, elements<float>(x), tx, beta, elements<float>(c));
    else if (factors_ == Factors::Float32)
        gram_of_floats<float>(alpha, elements<float>(x), tx, beta, elements<double>(c));
    else
        gram_of_floats<BfloatPair>(alpha, elements<float>(x), tx, beta, elements<double>(c));
}

} // namespace rankscope::detail
