// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/panels.h"

#include "core/compute/detail/cpu_backend.h"
#include "core/base/multiarch.h"

#include <bit>
#include <type_traits>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_chunk_bytes = 768 * sizeof(float); // of a line: a tile's left rows stay in the first cache
constexpr Index k_group_bytes = 400 * 1024;          // of panels that a task keeps in the second cache
constexpr Index k_task_rows = 256; // whole tiles
constexpr Index k_block_terms = 256; // terms that a float32 product sums before float64 takes over

void run_kernel(const FloatTile& tile) { micro_kernel().floats(tile); }
void run_kernel(const BfloatTile& tile) { micro_kernel().bfloats(tile); }

constexpr Index whole_vectors(Index cols)
{
    return (cols + k_vector_cols - 1) / k_vector_cols * k_vector_cols;
}

/// A tile of any number of columns: what the kernel computes beyond them never reaches c.
template <class Term>
void tile_product(ProductTile<Term, float> tile, Index cols)
{
    tile.cols = whole_vectors(cols);
    if (tile.cols == cols)
        return run_kernel(tile);
    alignas(64) float scratch[k_tile_rows * k_panel_cols];
    ProductTile<Term, float> inner = tile;
    inner.c = scratch;
    inner.c_row = k_panel_cols;
    inner.beta = 0.0F;
    run_kernel(inner);
    for (Index r = 0; r < tile.rows; ++r) {
        for (Index j = 0; j < cols; ++j) {
            float& target = tile.c[r * tile.c_row + j];
            const float value = scratch[r * k_panel_cols + j];
            target = tile.beta == 0.0F ? value : value + tile.beta * target;
        }
    }
}

/// Steps of a line are cut into equal chunks, so that none is much shorter than the others.
template <class Term>
Index chunk_steps(Index steps)
{
    constexpr Index most = k_chunk_bytes / static_cast<Index>(sizeof(Term));
    const Index chunks = std::max<Index>(1, (steps + most - 1) / most);
    return std::max<Index>(1, (steps + chunks - 1) / chunks);
}

template <class Term>
void multiply(const LeftFactor<Term>& a, const Panels<Term>& b, float alpha, float beta, float* c,
              Index c_row)
{
    const Index chunk = chunk_steps<Term>(b.steps());
    const Index panel_bytes = chunk * k_panel_cols * static_cast<Index>(sizeof(Term));
    const Index group = std::max<Index>(1, k_group_bytes / panel_bytes);
    const Index groups = (b.count() + group - 1) / group;
    const Index row_tasks = (a.rows + k_task_rows - 1) / k_task_rows;
    const Index tile_stride = a.tile != 0 ? a.tile : k_tile_rows * a.row;
    for_stretches(row_tasks * groups, 1, [&](Index task, Index) {
        const Index row_begin = task / groups * k_task_rows;
        const Index row_end = std::min(a.rows, row_begin + k_task_rows);
        const Index panel_begin = task % groups * group;
        const Index panel_end = std::min(b.count(), panel_begin + group);
        for (Index first = 0; first < b.steps(); first += chunk) {
            ProductTile<Term, float> tile;
            tile.a_row = a.row;
            tile.a_step = a.step;
            tile.b_step = k_panel_cols;
            tile.steps = std::min(chunk, b.steps() - first);
            tile.c_row = c_row;
            tile.alpha = alpha;
            tile.beta = first == 0 ? beta : 1.0F;
            for (Index row = row_begin; row < row_end; row += k_tile_rows) {
                tile.rows = std::min(k_tile_rows, row_end - row);
                tile.a = a.data + row / k_tile_rows * tile_stride + first * a.step;
                for (Index panel = panel_begin; panel < panel_end; ++panel) {
                    tile.b = b.panel(panel) + first * k_panel_cols;
                    tile.c = c + row * c_row + panel * k_panel_cols;
                    tile_product(tile, b.cols_of(panel));
                }
            }
        }
    });
}

/// Turns lines (one a column, `stride` apart) into panel i.
template <class Term>
void fill_panel(const Term* lines, Index stride, Index i, Panels<Term>& panels)
{
    constexpr Index stretch = 16; // its target stays in the first cache
    Term* panel = panels.panel(i);
    const Index cols = panels.cols_of(i);
    for (Index first = 0; first < panels.steps(); first += stretch) {
        const Index end = std::min(first + stretch, panels.steps());
        for (Index j = 0; j < cols; ++j) {
            const Term* line = lines + j * stride;
            for (Index k = first; k < end; ++k)
                panel[k * k_panel_cols + j] = line[k];
        }
        for (Index j = cols; j < k_panel_cols; ++j) {
            for (Index k = first; k < end; ++k)
                panel[k * k_panel_cols + j] = Term{};
        }
    }
}

RANKSCOPE_MULTIARCH
void add_floats(const float* part, double* sum, Index count)
{
    for (Index i = 0; i < count; ++i)
        sum[i] += static_cast<double>(part[i]);
}

/// The bits of x as bfloat16, in the low half.
RANKSCOPE_INLINE std::uint32_t bfloat_bits(float x)
{
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
    const std::uint32_t quiet = (bits >> 16) | 0x40U;
    return (bits & 0x7FFFFFFFU) > 0x7F800000U ? quiet : rounded;
}

RANKSCOPE_MULTIARCH
void pack_pairs(const float* low, const float* high, Index count, BfloatPair* pairs)
{
    for (Index i = 0; i < count; ++i)
        pairs[i] = BfloatPair{bfloat_bits(low[i]) | (bfloat_bits(high[i]) << 16)};
}

RANKSCOPE_MULTIARCH
void pack_neighbors(const float* x, Index count, BfloatPair* pairs)
{
    for (Index i = 0; i < count; ++i)
        pairs[i] = BfloatPair{bfloat_bits(x[2 * i]) | (bfloat_bits(x[2 * i + 1]) << 16)};
}

/// Where two panels meet in a Gram matrix: the tile (i, j), i ≥ j.
struct PanelPair {
    Index i, j;
};

std::vector<PanelPair> panel_pairs(Index panels)
{
    std::vector<PanelPair> pairs;
    for (Index i = 0; i < panels; ++i) {
        for (Index j = 0; j <= i; ++j)
            pairs.push_back({i, j});
    }
    return pairs;
}

/// Sums of products of panel i's columns with panel j's: on the diagonal, what is above it is left out.
template <class Term>
void sum_pair(const Panels<Term>& x, const PanelPair& pair, double* sums)
{
    constexpr Index block = std::is_same_v<Term, BfloatPair> ? k_block_terms / 2 : k_block_terms;
    alignas(64) float part[k_tile_rows * k_panel_cols] = {};
    ProductTile<Term, float> tile;
    tile.a_row = 1;
    tile.a_step = k_panel_cols;
    tile.b_step = k_panel_cols;
    tile.c = part;
    tile.c_row = k_panel_cols;
    for (Index first = 0; first < x.steps(); first += block) {
        tile.steps = std::min(block, x.steps() - first);
        tile.b = x.panel(pair.j) + first * k_panel_cols;
        for (Index row = 0; row < x.cols_of(pair.i); row += k_tile_rows) {
            tile.a = x.panel(pair.i) + first * k_panel_cols + row;
            tile.rows = k_tile_rows;
            tile.cols = whole_vectors(pair.i == pair.j ? row + k_tile_rows : x.cols_of(pair.j));
            run_kernel(tile);
            add_floats(part, sums + row * k_panel_cols, k_tile_rows * k_panel_cols);
        }
    }
}

/// target = sums = alpha · sums + beta · target, `cols` neighboring elements.
template <class T>
RANKSCOPE_INLINE void merge(double alpha, double* sums, double beta, T* target, Index cols)
{
    if (beta == 0.0) {
        for (Index j = 0; j < cols; ++j)
            target[j] = static_cast<T>(sums[j] = alpha * sums[j]);
    } else {
        for (Index j = 0; j < cols; ++j)
            target[j] = static_cast<T>(sums[j] = alpha * sums[j] + beta * static_cast<double>(target[j]));
    }
}

RANKSCOPE_MULTIARCH
void merge_row(double alpha, double* sums, double beta, float* target, Index cols)
{
    merge(alpha, sums, beta, target, cols);
}

RANKSCOPE_MULTIARCH
void merge_row(double alpha, double* sums, double beta, double* target, Index cols)
{
    merge(alpha, sums, beta, target, cols);
}

/// Where a pair's tile of the n × n result and its mirror image stand.
template <class T>
struct PairPlace {
    T* tile;
    T* mirror;
    Index n, rows, cols;
    bool diagonal;

    PairPlace(T* c, Index width, const PanelPair& pair)
        : tile(c + pair.i * k_panel_cols * width + pair.j * k_panel_cols),
          mirror(c + pair.j * k_panel_cols * width + pair.i * k_panel_cols), n(width),
          rows(std::min(k_panel_cols, width - pair.i * k_panel_cols)),
          cols(std::min(k_panel_cols, width - pair.j * k_panel_cols)), diagonal(pair.i == pair.j)
    {}

    /// The result's lines come while the products run.
    void fetch() const
    {
        constexpr Index line = 64 / static_cast<Index>(sizeof(T));
        for (Index r = 0; r < rows; ++r) {
            for (Index j = 0; j < cols; j += line)
                __builtin_prefetch(tile + r * n + j, 1, 2);
        }
        for (Index j = 0; j < cols && !diagonal; ++j) {
            for (Index r = 0; r < rows; r += line)
                __builtin_prefetch(mirror + j * n + r, 1, 2);
        }
    }

    /// Elements on and below the diagonal, then their mirror images.
    void store(double alpha, double* sums, double beta) const
    {
        for (Index r = 0; r < rows; ++r)
            merge_row(alpha, sums + r * k_panel_cols, beta, tile + r * n, diagonal ? r + 1 : cols);
        for (Index j = 0; j < cols; ++j) {
            for (Index r = diagonal ? j + 1 : 0; r < rows; ++r)
                mirror[j * n + r] = static_cast<T>(sums[r * k_panel_cols + j]);
        }
    }
};

} // namespace

void multiply_panels(const LeftFactor<float>& a, const Panels<float>& b, float alpha, float beta, float* c,
                     Index c_row)
{
    multiply(a, b, alpha, beta, c, c_row);
}

void multiply_panels(const LeftFactor<BfloatPair>& a, const Panels<BfloatPair>& b, float alpha, float beta,
                     float* c, Index c_row)
{
    multiply(a, b, alpha, beta, c, c_row);
}

template <class Term, class T>
void gram_panels(double alpha, const Panels<Term>& x, double beta, T* c)
{
    const std::vector<PanelPair> pairs = panel_pairs(x.count());
    for_stretches(static_cast<Index>(pairs.size()), 1, [&](Index index, Index) {
        const PanelPair& pair = pairs[static_cast<std::size_t>(index)];
        const PairPlace<T> place(c, x.cols(), pair);
        place.fetch();
        alignas(64) double sums[k_panel_cols * k_panel_cols] = {};
        sum_pair(x, pair, sums);
        place.store(alpha, sums, beta);
    });
}

template void gram_panels(double, const Panels<float>&, double, float*);
template void gram_panels(double, const Panels<float>&, double, double*);
template void gram_panels(double, const Panels<BfloatPair>&, double, double*);

template <class Term>
Panels<Term> panels_of_columns(Index cols, Index terms, const RowDecoder& decode)
{
    constexpr bool paired = std::is_same_v<Term, BfloatPair>;
    Panels<Term> panels(paired ? pairs_of(terms) : terms, cols);
    for_stretches(panels.count(), 1, [&](Index i, Index) {
        const Index count = panels.cols_of(i);
        AlignedArray<Term> lines(count * panels.steps());
        AlignedArray<float> decoded(paired ? terms : 0);
        for (Index j = 0; j < count; ++j) {
            Term* line = lines.data() + j * panels.steps();
            if constexpr (paired) {
                decode(i * k_panel_cols + j, decoded.data());
                to_bfloat_pairs(decoded.data(), terms, line);
            } else {
                decode(i * k_panel_cols + j, line);
            }
        }
        fill_panel(lines.data(), panels.steps(), i, panels);
    });
    return panels;
}

template Panels<float> panels_of_columns(Index, Index, const RowDecoder&);
template Panels<BfloatPair> panels_of_columns(Index, Index, const RowDecoder&);

template <class Term>
Panels<Term> panels_of_rows(const float* x, Index terms, Index cols)
{
    constexpr bool paired = std::is_same_v<Term, BfloatPair>;
    [[maybe_unused]] constexpr float none[k_panel_cols] = {};
    Panels<Term> panels(paired ? pairs_of(terms) : terms, cols);
    for_stretches(panels.count(), 1, [&](Index i, Index) {
        const Index count = panels.cols_of(i);
        for (Index k = 0; k < panels.steps(); ++k) {
            Term* row = panels.panel(i) + k * k_panel_cols;
            const float* source = x + (paired ? 2 * k : k) * cols + i * k_panel_cols;
            if constexpr (paired)
                pack_pairs(source, 2 * k + 1 < terms ? source + cols : none, count, row);
            else
                std::copy_n(source, count, row);
            std::fill(row + count, row + k_panel_cols, Term{});
        }
    });
    return panels;
}

template Panels<float> panels_of_rows(const float*, Index, Index);
template Panels<BfloatPair> panels_of_rows(const float*, Index, Index);

LeftFactor<float> turned_factor(const float* x, Index terms, Index rows, AlignedArray<float>& tiles)
{
    const Index count = (rows + k_tile_rows - 1) / k_tile_rows;
    const Index size = terms * k_tile_rows;
    tiles = AlignedArray<float>(count * size);
    for_stretches(count, 8, [&](Index first, Index tiles_here) {
        for (Index k = 0; k < terms; ++k) {
            for (Index tile = first; tile < first + tiles_here; ++tile) {
                const float* source = x + k * rows + tile * k_tile_rows;
                float* target = tiles.data() + tile * size + k * k_tile_rows;
                const Index filled = std::min(k_tile_rows, rows - tile * k_tile_rows);
                if (filled == k_tile_rows)
                    std::copy_n(source, k_tile_rows, target);
                else
                    std::fill(std::copy_n(source, filled, target), target + k_tile_rows, 0.0F);
            }
        }
    });
    return {tiles.data(), 1, k_tile_rows, rows, size};
}

void to_bfloat_pairs(const float* x, Index count, BfloatPair* pairs)
{
    pack_neighbors(x, count / 2, pairs);
    if (count % 2 != 0)
        pairs[count / 2] = BfloatPair{bfloat_bits(x[count - 1])};
}

} // namespace rankscope::detail
