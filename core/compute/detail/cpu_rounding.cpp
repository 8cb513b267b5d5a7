// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/grid_fit.h"
#include "core/compute/detail/vector_math.h"

#include <vector>

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
    require(grid.bits >= 2 && grid.bits <= 8, operation, "a grid has 2 to 8 bits");
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
            const float* w = task.weights + row * task.cols + first;
            float* codes = task.codes + row * task.cols + first;
            float* values = task.values + row * task.cols + first;
            for (Index i = 0; i < count; ++i) {
                const float code = grid_code(w[i] / scale, low, high);
                codes[i] = code;
                values[i] = scale * code;
            }
        }
    }
}

/// One panel of a row tile, stored column after column with the tile's rows side by side.
struct PanelTask {
    Index columns;
    const float* feedback; ///< U at (first column, first column)
    Index feedback_stride;
    const float* const* scales; ///< per column: the tile's scales
    const float* const* lowest;
    const float* weights;
    float* targets; ///< W + E·U over the columns before the panel; changed
    float* errors;  ///< W − Q
    float* codes;
    float* values;
    float span;
};

RANKSCOPE_MULTIARCH
void feedback_panel(const PanelTask& task)
{
    constexpr Index rows = k_feedback_rows;
    for (Index k = 0; k < task.columns; ++k) {
        const float* scale = task.scales[k];
        const float* low = task.lowest[k];
        float* error = task.errors + k * rows;
        for (Index r = 0; r < rows; ++r) {
            const float code = grid_code(task.targets[k * rows + r] / scale[r], low[r], low[r] + task.span);
            const float value = scale[r] * code;
            task.codes[k * rows + r] = code;
            task.values[k * rows + r] = value;
            error[r] = task.weights[k * rows + r] - value;
        }
        const float* factors = task.feedback + k * task.feedback_stride;
        for (Index j = k + 1; j < task.columns; ++j) {
            const float factor = factors[j];
            float* target = task.targets + j * rows;
            for (Index r = 0; r < rows; ++r)
                target[r] += factor * error[r];
        }
    }
}

/// What every row tile of one call reads and where it writes.
struct FeedbackJob {
    const Matrix& weights;
    const Matrix& feedback;
    const Matrix& scales;
    const Matrix& lowest;
    std::span<const Index> group_column;
    Index width;
    float span;
    Matrix& codes;
    Matrix& values;
};

/// Rows [first, first + rows) through all columns. Panels look left: one product brings in all earlier
/// errors.
class FeedbackTile {
public:
    FeedbackTile(const FeedbackJob& job, Index first, Index rows)
        : job_(job), first_(first), rows_(rows), scales_(transposed(job.scales, 1.0F)),
          lowest_(transposed(job.lowest, 0.0F)), errors_(Matrix::Zero(job.weights.cols(), k_feedback_rows))
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
        out.leftCols(rows_) = source.middleRows(first_, rows_).transpose();
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
        weights.leftCols(rows_) = job_.weights.block(first_, start, rows_, count).transpose();
        Matrix targets = weights;
        const Index n = job_.weights.cols();
        if (start > 0)
            blas_gemm(Transpose::Yes, Transpose::No, count, k_feedback_rows, start, 1.0F,
                      job_.feedback.data() + start, n, errors_.data(), k_feedback_rows, 1.0F, targets.data(),
                      k_feedback_rows);
        std::vector<const float*> scales(static_cast<std::size_t>(count));
        std::vector<const float*> lowest(static_cast<std::size_t>(count));
        for (Index k = 0; k < count; ++k) {
            scales[static_cast<std::size_t>(k)] = scales_.row(group_of(start + k)).data();
            lowest[static_cast<std::size_t>(k)] = lowest_.row(group_of(start + k)).data();
        }
        Matrix codes(count, k_feedback_rows);
        Matrix values(count, k_feedback_rows);
        feedback_panel({count, job_.feedback.data() + start * n + start, n, scales.data(), lowest.data(),
                        weights.data(), targets.data(), errors_.row(start).data(), codes.data(),
                        values.data(), job_.span});
        job_.codes.block(first_, start, rows_, count) = codes.leftCols(rows_).transpose();
        job_.values.block(first_, start, rows_, count) = values.leftCols(rows_).transpose();
    }

    const FeedbackJob& job_;
    Index first_;
    Index rows_;
    Matrix scales_; // groups × tile rows
    Matrix lowest_;
    Matrix errors_; // columns × tile rows
};

/// Lowest code of every row and group.
Matrix lowest_codes(const GridBuffers& grid)
{
    return single_copy(grid.zeros).unaryExpr([&](float zero) { return lowest_code(grid.grid, zero); });
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
        if (grid.group < 0) {
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
        const Index groups = lowest.cols();
        for_stretches(w.rows(), rows_per_task(w.cols()), [&](Index first, Index count) {
            round_rows({weights.matrix().row(first).data(), scales.matrix().row(first).data(),
                        lowest.row(first).data(), codes.row(first).data(), values.row(first).data(), count,
                        w.cols(), grid.grid.group_width(w.cols()), groups, code_span(grid.grid)});
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
    if (!w.empty()) {
        const SingleView weights(w);
        const SingleView factors(feedback);
        const SingleView scales(grid.scales);
        const Matrix lowest = lowest_codes(grid);
        const FeedbackJob job{weights.matrix(),
                              factors.matrix(),
                              scales.matrix(),
                              lowest,
                              group_column,
                              grid.grid.group_width(w.cols()),
                              code_span(grid.grid),
                              codes,
                              values};
        for_stretches(w.rows(), k_feedback_rows,
                      [&](Index first, Index count) { FeedbackTile(job, first, count).run(); });
    }
    return {make_buffer(std::move(values)), make_buffer(std::move(codes))};
}

} // namespace rankscope::detail
