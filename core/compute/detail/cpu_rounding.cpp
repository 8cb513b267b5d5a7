// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/grid_fit.h"
#include "core/compute/detail/vector_math.h"

namespace rankscope::detail {
namespace {

constexpr Index k_feedback_rows = 64;   // rows of a task; also the vector length of its inner loops
constexpr Index k_feedback_panel = 128; // columns between two products with the feedback matrix

/// A matrix in float32: the buffer's own or a converted copy.
class SingleView {
public:
    explicit SingleView(const Buffer& buffer)
    {
        if (buffer.precision() == Precision::Float32 && buffer.storage() != nullptr)
            matrix_ = &elements<float>(buffer);
        else
            owned_ = single_copy(buffer);
    }
    SingleView(const SingleView&) = delete;
    SingleView& operator=(const SingleView&) = delete;
    const Matrix& matrix() const { return matrix_ != nullptr ? *matrix_ : owned_; }

private:
    const Matrix* matrix_ = nullptr;
    Matrix owned_;
};

void require_grid(const UniformGrid& grid, const char* operation)
{
    require(has_bits(grid.levels, grid.bits), operation,
            "a grid has 2 to 8 bits, NormalFloat 2 to 4, K types 2 to 6");
}

void require_fitted(const Buffer& w, const GridBuffers& grid, const char* operation)
{
    require_grid(grid.grid, operation);
    const Index groups = grid.grid.groups(w.cols());
    require(grid.scales.rows() == w.rows() && grid.scales.cols() == groups, operation,
            "scales have another shape");
    require(grid.zeros.rows() == w.rows() && grid.zeros.cols() == groups, operation,
            "zero points have another shape");
}

/// Raw memory of a stretch of rows for the vector loop.
struct RoundTask {
    const float* weights;
    const float* scales;
    const float* lowest;
    const float* minima; ///< subtracted from scale · code
    float* codes;
    float* values;
    Index rows, cols, width, groups;
    float span;
};

RANKSCOPE_MULTIARCH
void round_rows(const RoundTask& task)
{
    for (Index row = 0; row < task.rows; ++row) {
        for (Index group = 0; group < task.groups; ++group) {
            const Index first = group * task.width;
            const Index count = std::min(task.width, task.cols - first);
            const float scale = task.scales[row * task.groups + group];
            const float low = task.lowest[row * task.groups + group];
            const float high = low + task.span;
            const float minimum = task.minima[row * task.groups + group];
            const float* w = task.weights + row * task.cols + first;
            float* codes = task.codes + row * task.cols + first;
            float* values = task.values + row * task.cols + first;
            for (Index i = 0; i < count; ++i) {
                const float code = grid_code((w[i] + minimum) / scale, low, high);
                codes[i] = code;
                values[i] = scale * code - minimum;
            }
        }
    }
}

/// Levels of NormalFloat and what lies midway between neighbors; none for other grids.
struct LevelTable {
    explicit LevelTable(const ScalarGrid& grid)
    {
        if (grid.levels != GridLevels::NormalFloat)
            return;
        const auto all = normal_float_levels(grid.bits);
        zero = static_cast<float>(normal_float_zero(grid.bits));
        for (; count < static_cast<int>(all.size()); ++count) {
            levels[count] = all[static_cast<std::size_t>(count)];
            if (count > 0)
                middles[count - 1] = 0.5F * (levels[count - 1] + levels[count]);
        }
    }
    int count = 0;
    float zero = 0.0F;
    float levels[1 << k_most_normal_float_bits] = {};
    float middles[1 << k_most_normal_float_bits] = {};
};

/// Nearest levels of `count` weights with their scales: codes and values.
RANKSCOPE_MULTIARCH
void round_to_levels(const float* __restrict weights, const float* __restrict scales, Index count,
                     const LevelTable& table, float* __restrict codes, float* __restrict values)
{
    for (Index i = 0; i < count; ++i) {
        const float x = weights[i] / scales[i];
        int place = 0;
        for (int middle = 0; middle + 1 < table.count; ++middle)
            place += x > table.middles[middle] ? 1 : 0;
        codes[i] = static_cast<float>(place) - table.zero;
        values[i] = scales[i] * table.levels[place];
    }
}

/// One column of a row tile: its codes and their values.
RANKSCOPE_MULTIARCH
void round_column(const float* __restrict wanted, const float* __restrict scales,
                  const float* __restrict lowest, const float* __restrict minima, float span,
                  float* __restrict codes, float* __restrict values)
{
    for (Index r = 0; r < k_feedback_rows; ++r) {
        const float scale = scales[r];
        const float low = lowest[r];
        const float minimum = minima[r];
        const float code = grid_code((wanted[r] + minimum) / scale, low, low + span);
        codes[r] = code;
        values[r] = scale * code - minimum;
    }
}

/// What a column's values miss of the weights; returns what they miss of the targets, squared.
RANKSCOPE_MULTIARCH
float column_errors(const float* __restrict wanted, const float* __restrict weight,
                    const float* __restrict values, float* __restrict errors)
{
    constexpr Index lanes = 16;
    float squares[lanes] = {};
    for (Index first = 0; first < k_feedback_rows; first += lanes) {
        for (Index lane = 0; lane < lanes; ++lane) {
            const Index r = first + lane;
            errors[r] = weight[r] - values[r];
            const float missed = wanted[r] - values[r];
            squares[lane] += missed * missed;
        }
    }
    return lane_sum<float>(squares, lanes);
}

/// What a column's errors add to the targets of the `count` columns after it.
RANKSCOPE_MULTIARCH
void spread_errors(const float* __restrict errors, const float* __restrict factors, Index count,
                   float* __restrict targets)
{
    for (Index j = 0; j < count; ++j) {
        const float factor = factors[j];
        float* target = targets + j * k_feedback_rows;
        for (Index r = 0; r < k_feedback_rows; ++r)
            target[r] += factor * errors[r];
    }
}

/// out (cols × rows) = transpose of the rows × cols block at `in`; small blocks keep both sides in the cache.
void transpose_block(const float* in, Index in_stride, Index rows, Index cols, float* out, Index out_stride)
{
    constexpr Index edge = 16;
    for (Index i = 0; i < rows; i += edge) {
        for (Index j = 0; j < cols; j += edge) {
            const Index i_end = std::min(rows, i + edge);
            const Index j_end = std::min(cols, j + edge);
            for (Index c = j; c < j_end; ++c) {
                for (Index r = i; r < i_end; ++r)
                    out[c * out_stride + r] = in[r * in_stride + c];
            }
        }
    }
}

/// What every row tile of one call reads and where it writes.
struct FeedbackJob {
    const Matrix& weights;
    const Matrix& feedback;
    const Matrix& scales;
    const Matrix& lowest;
    const Matrix& minima;
    std::span<const Index> group_column;
    Index width;
    float span;
    const LevelTable& levels;
    Matrix& codes;
    Matrix& values;
    MatrixD& losses; ///< tiles × columns
};

/// Rows [first, first + rows) through all columns. Panels look left: one product brings in all earlier
/// errors.
class FeedbackTile {
public:
    FeedbackTile(const FeedbackJob& job, Index first, Index rows)
        : job_(job), first_(first), rows_(rows), scales_(transposed(job.scales, 1.0F)),
          lowest_(transposed(job.lowest, 0.0F)), minima_(transposed(job.minima, 0.0F)),
          errors_(Matrix::Zero(job.weights.cols(), k_feedback_rows))
    {}

    void run()
    {
        for (Index start = 0; start < job_.weights.cols(); start += k_feedback_panel)
            panel(start, std::min(k_feedback_panel, job_.weights.cols() - start));
    }

private:
    /// The tile's rows of `source` as columns; rows beyond the matrix get `filler`.
    Matrix transposed(const Matrix& source, float filler) const
    {
        Matrix out = Matrix::Constant(source.cols(), k_feedback_rows, filler);
        transpose_block(source.data() + first_ * source.cols(), source.cols(), rows_, source.cols(),
                        out.data(), k_feedback_rows);
        return out;
    }

    Index group_of(Index column) const
    {
        return (job_.group_column.empty() ? column : job_.group_column[static_cast<std::size_t>(column)])
               / job_.width;
    }

    void panel(Index start, Index count)
    {
        Matrix weights = Matrix::Zero(count, k_feedback_rows);
        const Index n = job_.weights.cols();
        const Index corner = first_ * n + start;
        transpose_block(job_.weights.data() + corner, n, rows_, count, weights.data(), k_feedback_rows);
        Matrix targets = weights;
        if (start > 0)
            blas_gemm(Transpose::Yes, Transpose::No, count, k_feedback_rows, start, 1.0F,
                      job_.feedback.data() + start, n, errors_.data(), k_feedback_rows, 1.0F, targets.data(),
                      k_feedback_rows);
        Matrix codes(count, k_feedback_rows);
        Matrix values(count, k_feedback_rows);
        for (Index k = 0; k < count; ++k) {
            const Index group = group_of(start + k);
            float* errors = errors_.row(start + k).data();
            if (job_.levels.count > 0)
                round_to_levels(targets.row(k).data(), scales_.row(group).data(), k_feedback_rows,
                                job_.levels, codes.row(k).data(), values.row(k).data());
            else
                round_column(targets.row(k).data(), scales_.row(group).data(), lowest_.row(group).data(),
                             minima_.row(group).data(), job_.span, codes.row(k).data(), values.row(k).data());
            job_.losses(first_ / k_feedback_rows, start + k) = static_cast<double>(
                column_errors(targets.row(k).data(), weights.row(k).data(), values.row(k).data(), errors));
            spread_errors(errors, job_.feedback.data() + (start + k) * n + start + k + 1, count - k - 1,
                          targets.data() + (k + 1) * k_feedback_rows);
        }
        transpose_block(codes.data(), k_feedback_rows, count, rows_, job_.codes.data() + corner, n);
        transpose_block(values.data(), k_feedback_rows, count, rows_, job_.values.data() + corner, n);
    }

    const FeedbackJob& job_;
    Index first_;
    Index rows_;
    Matrix scales_; // groups × tile rows
    Matrix lowest_;
    Matrix minima_;
    Matrix errors_; // columns × tile rows
};

/// Lowest code of every row and group.
Matrix lowest_codes(const GridBuffers& grid)
{
    return single_copy(grid.zeros).unaryExpr([&](float zero) { return lowest_code(grid.grid, zero); });
}

/// What every row and group subtracts from scale · code.
Matrix minima_of(const GridBuffers& grid)
{
    return has_minimum(grid.grid) ? single_copy(grid.zeros)
                                  : Matrix::Zero(grid.scales.rows(), grid.scales.cols());
}

void fit_kquant_rows(const Matrix& weights, const UniformGrid& grid, Matrix& scales, Matrix& minima)
{
    const Index groups_of_block = k_kquant_block / kquant_group(grid.bits);
    const auto part = [](auto* data, Index first, Index count) {
        return std::span(data + first, static_cast<std::size_t>(count));
    };
    for_stretches(weights.rows(), 1, [&](Index first, Index count) {
        for (Index row = first; row < first + count; ++row) {
            for (Index group = 0; group < scales.cols(); group += groups_of_block) {
                const Index start = group * kquant_group(grid.bits);
                const Index groups = std::min(groups_of_block, scales.cols() - group);
                fit_kquant(
                    part(weights.row(row).data(), start, std::min(k_kquant_block, weights.cols() - start)),
                    grid.bits, part(scales.row(row).data(), group, groups),
                    part(minima.row(row).data(), group, groups));
            }
        }
    });
}

} // namespace

GridBuffers CpuBackend::fit_grid(const Buffer& w, const UniformGrid& grid)
{
    require_grid(grid, "fit_grid");
    const Index groups = grid.groups(w.cols());
    Matrix scales = Matrix::Zero(w.rows(), groups);
    Matrix zeros = Matrix::Zero(w.rows(), groups);
    if (!w.empty()) {
        const SingleView view(w);
        const Matrix& weights = view.matrix();
        const auto stretch = [](const float* data, Index count) {
            return std::span<const float>(data, static_cast<std::size_t>(count));
        };
        if (grid.levels == GridLevels::Kquant) {
            fit_kquant_rows(weights, grid, scales, zeros);
        } else if (grid.group < 0) {
            const GroupScale whole = fit_whole(stretch(weights.data(), weights.size()), grid);
            scales.setConstant(whole.scale);
            zeros.setConstant(whole.zero);
        } else {
            const Index width = grid.group_width(w.cols());
            const Index rows = grid.clip == ClipSearch::None ? rows_per_task(w.cols()) : 1;
            for_stretches(w.rows(), rows, [&](Index first, Index count) {
                for (Index i = first; i < first + count; ++i) {
                    for (Index g = 0; g < groups; ++g) {
                        const Index start = g * width;
                        const GroupScale fitted = fit_group(
                            stretch(weights.row(i).data() + start, std::min(width, w.cols() - start)), grid);
                        scales(i, g) = fitted.scale;
                        zeros(i, g) = fitted.zero;
                    }
                }
            });
        }
    }
    return {grid, make_buffer(std::move(scales)), make_buffer(std::move(zeros))};
}

RoundedBuffers CpuBackend::round_nearest(const Buffer& w, const GridBuffers& grid)
{
    require_fitted(w, grid, "round_nearest");
    Matrix codes(w.rows(), w.cols());
    Matrix values(w.rows(), w.cols());
    if (!w.empty()) {
        const SingleView weights(w);
        const SingleView scales(grid.scales);
        const Matrix lowest = lowest_codes(grid);
        const Matrix minima = minima_of(grid);
        const Index groups = lowest.cols();
        const LevelTable levels(grid.grid);
        for_stretches(w.rows(), rows_per_task(w.cols()), [&](Index first, Index count) {
            if (levels.count > 0) {
                const Index width = grid.grid.group_width(w.cols());
                Vector spread(w.cols()); // each weight's scale
                for (Index row = first; row < first + count; ++row) {
                    for (Index col = 0; col < w.cols(); ++col)
                        spread[col] = scales.matrix()(row, col / width);
                    round_to_levels(weights.matrix().row(row).data(), spread.data(), w.cols(), levels,
                                    codes.row(row).data(), values.row(row).data());
                }
                return;
            }
            round_rows({weights.matrix().row(first).data(), scales.matrix().row(first).data(),
                        lowest.row(first).data(), minima.row(first).data(), codes.row(first).data(),
                        values.row(first).data(), count, w.cols(), grid.grid.group_width(w.cols()), groups,
                        code_span(grid.grid)});
        });
    }
    return {make_buffer(std::move(values)), make_buffer(std::move(codes))};
}

RoundedBuffers CpuBackend::round_with_feedback(const Buffer& w, const Buffer& feedback,
                                               const GridBuffers& grid, std::span<const Index> group_column)
{
    require_fitted(w, grid, "round_with_feedback");
    require(feedback.rows() == w.cols() && feedback.cols() == w.cols(), "round_with_feedback",
            "the feedback matrix has another size than the rows");
    require(group_column.empty() || static_cast<Index>(group_column.size()) == w.cols(),
            "round_with_feedback", "one group column per column is needed");
    for (const Index column : group_column)
        require(column >= 0 && column < w.cols(), "round_with_feedback",
                "a group column lies outside the matrix");
    Matrix codes(w.rows(), w.cols());
    Matrix values(w.rows(), w.cols());
    MatrixD losses = MatrixD::Zero(1, w.cols());
    if (!w.empty()) {
        const SingleView weights(w);
        const SingleView factors(feedback);
        const SingleView scales(grid.scales);
        const Matrix lowest = lowest_codes(grid);
        const Matrix minima = minima_of(grid);
        const LevelTable levels(grid.grid);
        losses.setZero((w.rows() + k_feedback_rows - 1) / k_feedback_rows, w.cols());
        const FeedbackJob job{weights.matrix(),
                              factors.matrix(),
                              scales.matrix(),
                              lowest,
                              minima,
                              group_column,
                              grid.grid.group_width(w.cols()),
                              code_span(grid.grid),
                              levels,
                              codes,
                              values,
                              losses};
        for_stretches(w.rows(), k_feedback_rows,
                      [&](Index first, Index count) { FeedbackTile(job, first, count).run(); });
    }
    return {make_buffer(std::move(values)), make_buffer(std::move(codes)),
            VectorD(losses.colwise().sum().transpose())};
}

} // namespace rankscope::detail
