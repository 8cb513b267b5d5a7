// SPDX-License-Identifier: GPL-3.0-or-later
//
// Causal attention over tiles of keys (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135): each query keeps the largest score so far, the sum of its weights and its weighted values, and
// scales them down when a larger score comes. Memory does not grow with the square of the length. Scores
// stand keys × queries, so that a vector holds queries and the softmax needs no sums across a vector.
#include "core/compute/detail/attention_parts.h"

#include "core/compute/attention_check.h"
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/panels.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>
#include <limits>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_key_tile = 128;
constexpr Index k_query_tiles = 4; // of a task, which share a copy of the keys and values

void run_kernel(const FloatTile& tile) { micro_kernel().floats(tile); }
void run_kernel(const DoubleTile& tile) { micro_kernel().doubles(tile); }

RANKSCOPE_INLINE float exponential(float x) { return exp_float(x); }
RANKSCOPE_INLINE double exponential(double x) { return exp_double(x); }

/// Running softmax of a tile's queries.
template <class T>
struct Running {
    alignas(64) T most[k_panel_cols];   ///< largest score
    alignas(64) T total[k_panel_cols];  ///< Σ e^(score − most)
    alignas(64) T shrink[k_panel_cols]; ///< what sums so far are to be multiplied with
};

/// Scores (keys × cols, k_panel_cols apart) become e^(score − most); totals and largest scores go on.
template <class T>
RANKSCOPE_INLINE void weigh(T* scores, Index keys, Index cols, Running<T>& running)
{
    constexpr Index lanes = k_vector_cols;
    for (Index first = 0; first < cols; first += lanes) {
        T most[lanes];
        T total[lanes];
        for (Index i = 0; i < lanes; ++i)
            most[i] = running.most[first + i];
        for (Index key = 0; key < keys; ++key) {
            const T* line = scores + key * k_panel_cols + first;
            for (Index i = 0; i < lanes; ++i)
                most[i] = line[i] > most[i] ? line[i] : most[i];
        }
        for (Index i = 0; i < lanes; ++i) {
            running.shrink[first + i] = exponential(running.most[first + i] - most[i]);
            total[i] = running.total[first + i] * running.shrink[first + i];
        }
        for (Index key = 0; key < keys; ++key) {
            T* line = scores + key * k_panel_cols + first;
            for (Index i = 0; i < lanes; ++i) {
                const T weight = exponential(line[i] - most[i]);
                line[i] = weight;
                total[i] += weight;
            }
        }
        for (Index i = 0; i < lanes; ++i) {
            running.most[first + i] = most[i];
            running.total[first + i] = total[i];
        }
    }
}

RANKSCOPE_MULTIARCH
void weigh_scores(float* scores, Index keys, Index cols, Running<float>& running)
{
    weigh(scores, keys, cols, running);
}

RANKSCOPE_MULTIARCH
void weigh_scores(double* scores, Index keys, Index cols, Running<double>& running)
{
    weigh(scores, keys, cols, running);
}

template <class T>
struct AttentionJob {
    const RowMajor<T>& q;
    const RowMajor<T>& k;
    const RowMajor<T>& v;
    RowMajor<T>& out;
    const AttentionShape& shape;
};

/// Up to k_panel_cols neighboring queries of one head, as a right factor, and what they have gathered so far.
template <class T>
class QueryTile {
public:
    /// `queries` points at the first one's head; positions count from the sequence's start.
    QueryTile(const AttentionShape& shape, const T* queries, Index stride, Index position, Index count)
        : shape_(shape), position_(position), count_(count),
          cols_((count + k_vector_cols - 1) / k_vector_cols * k_vector_cols),
          queries_(shape.head_dim * k_panel_cols), values_(shape.head_dim * k_panel_cols),
          scores_(k_key_tile * k_panel_cols)
    {
        std::fill_n(values_.data(), shape.head_dim * k_panel_cols, T(0));
        std::fill(std::begin(running_.most), std::end(running_.most), std::numeric_limits<T>::lowest());
        std::fill(std::begin(running_.total), std::end(running_.total), T(0));
        for (Index d = 0; d < shape.head_dim; ++d) {
            for (Index i = 0; i < k_panel_cols; ++i)
                queries_.data()[d * k_panel_cols + i] = i < count ? queries[i * stride + d] : T(0);
        }
    }

    /// Position of the oldest key that any of the queries sees, and of the first that none does.
    Index first_key() const
    {
        return shape_.window > 0 ? std::max<Index>(0, position_ - shape_.window + 1) : 0;
    }
    Index end_key() const { return position_ + count_; }

    /// Keys and values of the positions [begin, begin + keys), contiguous rows.
    void see(Index begin, Index keys, const T* key_rows, const T* value_rows)
    {
        ProductTile<T> tile;
        tile.a_row = shape_.head_dim;
        tile.a_step = 1;
        tile.b = queries_.data();
        tile.b_step = k_panel_cols;
        tile.steps = shape_.head_dim;
        tile.c_row = k_panel_cols;
        tile.cols = cols_;
        tile.alpha = static_cast<T>(shape_.scale);
        for (Index key = 0; key < keys; key += k_tile_rows) {
            tile.a = key_rows + key * shape_.head_dim;
            tile.c = scores_.data() + key * k_panel_cols;
            tile.rows = std::min(k_tile_rows, keys - key);
            run_kernel(tile);
        }
        if (shape_.score_cap > 0.0)
            cap_scores(keys);
        hide_unseen(begin, keys);
        weigh_scores(scores_.data(), keys, cols_, running_);
        add_values(keys, value_rows);
    }

    void write(T* out, Index stride) const
    {
        for (Index i = 0; i < count_; ++i) {
            for (Index d = 0; d < shape_.head_dim; ++d)
                out[i * stride + d] = values_.data()[d * k_panel_cols + i] / running_.total[i];
        }
    }

private:
    void cap_scores(Index keys)
    {
        const auto cap = static_cast<T>(shape_.score_cap);
        for (Index key = 0; key < keys; ++key) {
            T* line = scores_.data() + key * k_panel_cols;
            for (Index i = 0; i < count_; ++i)
                line[i] = cap * std::tanh(line[i] / cap);
        }
    }

    /// Keys after a query, or before its window.
    void hide_unseen(Index begin, Index keys)
    {
        for (Index key = 0; key < keys; ++key) {
            T* line = scores_.data() + key * k_panel_cols;
            const Index later =
                std::min(begin + key - position_, count_); // queries that stand before the key
            if (later > 0)
                std::fill_n(line, later, -std::numeric_limits<T>::infinity());
            const Index seen = begin + key - position_ + shape_.window; // queries whose window still has it
            if (shape_.window > 0 && seen < count_)
                std::fill(line + std::max<Index>(0, seen), line + count_,
                          -std::numeric_limits<T>::infinity());
        }
    }

    /// values (head_dim × queries) = shrink · values + value_rowsᵀ · weights.
    void add_values(Index keys, const T* value_rows)
    {
        for (Index d = 0; d < shape_.head_dim; ++d) {
            T* line = values_.data() + d * k_panel_cols;
            for (Index i = 0; i < k_panel_cols; ++i)
                line[i] *= running_.shrink[i];
        }
        ProductTile<T> tile;
        tile.a_row = 1;
        tile.a_step = shape_.head_dim;
        tile.b = scores_.data();
        tile.b_step = k_panel_cols;
        tile.steps = keys;
        tile.c_row = k_panel_cols;
        tile.cols = cols_;
        tile.beta = 1;
        for (Index d = 0; d < shape_.head_dim; d += k_tile_rows) {
            tile.a = value_rows + d;
            tile.c = values_.data() + d * k_panel_cols;
            tile.rows = std::min(k_tile_rows, shape_.head_dim - d);
            run_kernel(tile);
        }
    }

    const AttentionShape& shape_;
    Index position_;
    Index count_;
    Index cols_;              ///< the queries in whole vectors
    AlignedArray<T> queries_; ///< head_dim × k_panel_cols
    AlignedArray<T> values_;  ///< head_dim × k_panel_cols
    AlignedArray<T> scores_;  ///< keys × k_panel_cols
    Running<T> running_;
};

/// Some neighboring query tiles of one head of one sequence. Only the keys that they may see are touched.
template <class T>
void attend(const AttentionJob<T>& job, Index sequence, Index head, Index begin)
{
    const AttentionShape& shape = job.shape;
    const Index row = sequence * shape.sequence_length;
    const Index column = head * shape.head_dim;
    const Index kv_column = head / (shape.heads / shape.kv_heads) * shape.head_dim;
    const Index end = std::min(begin + k_query_tiles * k_panel_cols, shape.sequence_length);
    std::vector<QueryTile<T>> tiles;
    tiles.reserve(k_query_tiles);
    for (Index first = begin; first < end; first += k_panel_cols)
        tiles.emplace_back(shape, job.q.data() + (row + first) * job.q.cols() + column, job.q.cols(), first,
                           std::min(k_panel_cols, end - first));

    AlignedArray<T> keys(k_key_tile * shape.head_dim);
    AlignedArray<T> values(k_key_tile * shape.head_dim);
    for (Index key = tiles.front().first_key(); key < end; key += k_key_tile) {
        const Index count = std::min(k_key_tile, end - key);
        for (Index i = 0; i < count; ++i) {
            const Index source = (row + key + i) * job.k.cols() + kv_column;
            std::copy_n(job.k.data() + source, shape.head_dim, keys.data() + i * shape.head_dim);
            std::copy_n(job.v.data() + source, shape.head_dim, values.data() + i * shape.head_dim);
        }
        for (QueryTile<T>& tile : tiles) {
            if (key + count > tile.first_key() && key < tile.end_key())
                tile.see(key, std::min(count, tile.end_key() - key), keys.data(), values.data());
        }
    }
    T* out = job.out.data() + (row + begin) * job.out.cols() + column;
    for (const QueryTile<T>& tile : tiles) {
        tile.write(out, job.out.cols());
        out += k_panel_cols * job.out.cols();
    }
}

} // namespace

void require_attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape)
{
    const char* misfit = attention_misfit(q, k, v, shape);
    require(misfit == nullptr, "attention", misfit);
}

Buffer CpuBackend::attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape)
{
    require_attention(q, k, v, shape);
    if (q.empty())
        return allocate(q.rows(), q.cols(), q.precision());
    return with_elements(q, [&](const auto& queries) {
        using T = typename std::remove_cvref_t<decltype(queries)>::Scalar;
        RowMajor<T> out(queries.rows(), queries.cols());
        const AttentionJob<T> job{queries, elements<T>(k), elements<T>(v), out, shape};
        constexpr Index block = k_query_tiles * k_panel_cols;
        const Index blocks = (shape.sequence_length + block - 1) / block;
        for_stretches(queries.rows() / shape.sequence_length * shape.heads * blocks, 1,
                      [&](Index task, Index) {
                          const Index head = task / blocks;
                          attend<T>(job, head / shape.heads, head % shape.heads, task % blocks * block);
                      });
        return make_buffer(std::move(out));
    });
}

} // namespace rankscope::detail
