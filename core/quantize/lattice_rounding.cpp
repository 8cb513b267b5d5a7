// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/lattice_rounding.h"

#include "core/base/thread_pool.h"
#include "core/quantize/rounding.h"

#include <Eigen/Cholesky>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

constexpr Index k_width = 8;   ///< inputs of a lattice point
constexpr Index k_panel = 128; ///< columns whose feedback from earlier ones is one product
constexpr Index k_rows = 32;   ///< rows per tile, fixed so that threads change no byte

/// The blocks in the order of the sweep.
std::vector<Index> block_sequence(const MatrixD& hessian, bool by_diagonal)
{
    const Index n = hessian.rows();
    std::vector<Index> blocks(static_cast<std::size_t>((n + k_width - 1) / k_width));
    std::iota(blocks.begin(), blocks.end(), Index{0});
    if (!by_diagonal)
        return blocks;
    const auto mean = [&](Index block) {
        const Index first = block * k_width;
        return hessian.diagonal().segment(first, std::min(k_width, n - first)).mean();
    };
    std::stable_sort(blocks.begin(), blocks.end(), [&](Index a, Index b) { return mean(a) > mean(b); });
    return blocks;
}

struct LatticePoint {
    E8Point value;
    std::array<std::uint16_t, 2> codes;
};

LatticePoint nearest(const E8Point& x, int bits)
{
    if (bits == 4) {
        const E8Nearest4 point = e8p_nearest_4bit(x);
        return {point.value, point.codes};
    }
    const E8Nearest point = e8p_nearest(x);
    return {point.value, {point.code, 0}};
}

void store_codes(const LatticePoint& point, int bits, Index row, Index block, E8Matrix& target)
{
    const Index stages = bits == 4 ? 2 : 1;
    const Index per_row = (target.values.cols() + k_width - 1) / k_width * stages;
    for (Index stage = 0; stage < stages; ++stage)
        target.codes[static_cast<std::size_t>(row * per_row + block * stages + stage)] =
            point.codes[static_cast<std::size_t>(stage)];
}

} // namespace

struct LatticeFeedback::Task {
    const Matrix& weight;
    float scale;
    int bits;
    E8Matrix result;
    std::vector<double> losses; ///< by tile, in units of the scale squared
};

Result<LatticeFeedback> LatticeFeedback::make(const MatrixD& hessian, bool block_order, Backend& backend,
                                              Monitor& monitor)
{
    const Index n = hessian.rows();
    LatticeFeedback result;
    for (const Index block : block_sequence(hessian, block_order && hessian.cols() == n)) {
        result.starts_.push_back(static_cast<Index>(result.order_.size()));
        for (Index col = block * k_width; col < std::min(n, (block + 1) * k_width); ++col)
            result.order_.push_back(col);
    }
    result.starts_.push_back(n);
    auto factored = reversed_cholesky(hessian, result.order_, backend, monitor);
    if (!factored)
        return factored.error();
    result.damped_further_ = factored->damping > 0.0;
    MatrixD& upper = result.factor_;
    upper = factored->lower.reverse();
    const auto blocks = static_cast<Index>(result.starts_.size()) - 1;
    result.diagonal_.resize(static_cast<std::size_t>(blocks));
    parallel_for(0, blocks, [&](Index block) {
        const Index first = result.starts_[static_cast<std::size_t>(block)];
        const Index width = result.starts_[static_cast<std::size_t>(block) + 1] - first;
        const MatrixD corner = upper.block(first, first, width, width);
        result.diagonal_[static_cast<std::size_t>(block)] = corner * corner.transpose();
        if (first > 0) { // nothing stands above the first block
            MatrixD above = upper.block(0, first, first, width);
            corner.triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(above);
            upper.block(0, first, first, width) = above;
        }
        upper.block(first, first, width, width).setIdentity();
    });
    result.single_ = upper.cast<float>();
    return result;
}

/// Rows [first_row, first_row + count). Everything is in units of the scale. `error` holds W − Q of the
/// columns that are done; a panel's targets start with the feedback of all panels before it.
void LatticeFeedback::sweep(Task& task, Index first_row, Index count, Monitor& monitor) const
{
    const Index n = task.weight.cols();
    Matrix weight(count, n);
    for (Index row = 0; row < count; ++row)
        for (Index k = 0; k < n; ++k)
            weight(row, k) = task.weight(first_row + row, order_[static_cast<std::size_t>(k)]) / task.scale;
    Matrix error = Matrix::Zero(count, n);
    Index panel = 0;
    Matrix target;
    for (std::size_t block = 0; block + 1 < starts_.size(); ++block) {
        const Index start = starts_[block];
        const Index width = starts_[block + 1] - start;
        if (block == 0 || start + width - panel > k_panel) {
            monitor.throw_if_cancelled();
            panel = start;
            const Index columns = std::min(k_panel, n - panel);
            target = weight.middleCols(panel, columns);
            if (panel > 0)
                target.noalias() += error.leftCols(panel) * single_.block(0, panel, panel, columns);
        }
        Matrix goal = target.middleCols(start - panel, width);
        if (start > panel)
            goal.noalias() +=
                error.middleCols(panel, start - panel) * single_.block(panel, start, start - panel, width);
        const Matrix wanted = goal;
        round_rows(task, goal, first_row, order_[static_cast<std::size_t>(start)] / k_width);
        error.middleCols(start, width) = weight.middleCols(start, width) - goal;
        const MatrixD missed = (wanted - goal).cast<double>();
        task.losses[static_cast<std::size_t>(first_row / k_rows)] +=
            (missed * diagonal_[block]).cwiseProduct(missed).sum();
    }
}

/// Replaces the rows of one block's goals by their lattice points and stores those.
void LatticeFeedback::round_rows(Task& task, Matrix& goal, Index first_row, Index block)
{
    const Index stages = task.bits == 4 ? 2 : 1;
    const Index per_row = (task.weight.cols() + k_width - 1) / k_width * stages;
    for (Index first = 0; first < goal.rows(); first += k_e8_lanes) {
        const Index lanes = std::min<Index>(k_e8_lanes, goal.rows() - first);
        E8Lanes points{};
        for (Index lane = 0; lane < lanes; ++lane)
            for (Index i = 0; i < goal.cols(); ++i)
                points.coordinate[i][lane] = goal(first + lane, i);
        E8NearestLanes nearest;
        e8p_nearest_lanes(points, task.bits, nearest);
        for (Index lane = 0; lane < lanes; ++lane) {
            const Index row = first_row + first + lane;
            for (Index i = 0; i < goal.cols(); ++i) {
                const float value = nearest.values.coordinate[i][lane];
                goal(first + lane, i) = value;
                task.result.values(row, block * k_width + i) = task.scale * value;
            }
            for (Index stage = 0; stage < stages; ++stage)
                task.result.codes[static_cast<std::size_t>(row * per_row + block * stages + stage)] =
                    nearest.codes[stage][lane];
        }
    }
}

E8Matrix LatticeFeedback::round(const Matrix& w, int bits, Monitor& monitor) const
{
    monitor.throw_if_cancelled();
    const double rms =
        w.size() == 0 ? 0.0 : std::sqrt(w.cast<double>().squaredNorm() / static_cast<double>(w.size()));
    Task task{w, static_cast<float>(rms / k_e8p_scale), bits, {}, {}};
    task.losses.resize(static_cast<std::size_t>((w.rows() + k_rows - 1) / k_rows), 0.0);
    task.result.values = Matrix::Zero(w.rows(), w.cols());
    const Index per_row = (w.cols() + k_width - 1) / k_width * (bits == 4 ? 2 : 1);
    task.result.codes.resize(static_cast<std::size_t>(w.rows() * per_row), 0);
    task.result.scales = VectorD::Constant(1, static_cast<double>(task.scale));
    if (!(task.scale > 0.0F))
        return task.result;
    parallel_for(0, (w.rows() + k_rows - 1) / k_rows, [&](Index tile) {
        sweep(task, tile * k_rows, std::min(k_rows, w.rows() - tile * k_rows), monitor);
    });
    const double sum = std::accumulate(task.losses.begin(), task.losses.end(), 0.0);
    task.result.loss = sum * static_cast<double>(task.scale) * static_cast<double>(task.scale);
    return task.result;
}

namespace {

/// What the descent needs of H beside H itself: each block on the diagonal, and its factor.
struct DiagonalBlock {
    MatrixD matrix;
    Eigen::LLT<MatrixD> factor;
    bool usable = false;
};

std::vector<DiagonalBlock> diagonal_blocks(const MatrixD& hessian)
{
    const Index n = hessian.rows();
    std::vector<DiagonalBlock> blocks(static_cast<std::size_t>((n + k_width - 1) / k_width));
    for (Index first = 0; first < n; first += k_width) {
        const Index width = std::min(k_width, n - first);
        DiagonalBlock& block = blocks[static_cast<std::size_t>(first / k_width)];
        block.matrix = hessian.block(first, first, width, width);
        block.factor.compute(block.matrix);
        block.usable = block.factor.info() == Eigen::Success;
    }
    return blocks;
}

/// One row's pass. `slope` holds (w − q)·H of the row and is kept up to date.
void tune_row(E8Matrix& q, int bits, Index row, const MatrixD& hessian,
              const std::vector<DiagonalBlock>& blocks, Eigen::Ref<Eigen::RowVectorXd> slope)
{
    const double scale = q.scales(0);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        if (!blocks[b].usable)
            continue;
        const Index first = static_cast<Index>(b) * k_width;
        const Index width = blocks[b].matrix.rows();
        const VectorD gradient = slope.segment(first, width).transpose();
        const VectorD step = blocks[b].factor.solve(gradient);
        E8Point x{};
        for (Index i = 0; i < width; ++i)
            x[static_cast<std::size_t>(i)] =
                static_cast<float>((static_cast<double>(q.values(row, first + i)) + step(i)) / scale);
        const LatticePoint point = nearest(x, bits);
        VectorD change(width);
        std::array<float, 8> next{};
        for (Index i = 0; i < width; ++i) {
            const auto place = static_cast<std::size_t>(i);
            next[place] = static_cast<float>(scale) * point.value[place];
            change(i) = static_cast<double>(next[place]) - static_cast<double>(q.values(row, first + i));
        }
        if (!(change.dot(blocks[b].matrix * change) - 2.0 * change.dot(gradient) < 0.0))
            continue;
        slope -= change.transpose() * hessian.middleRows(first, width);
        for (Index i = 0; i < width; ++i)
            q.values(row, first + i) = next[static_cast<std::size_t>(i)];
        store_codes(point, bits, row, static_cast<Index>(b), q);
    }
}

} // namespace

E8Matrix tune_lattice(const Matrix& w, E8Matrix start, int bits, const MatrixD& hessian, int passes,
                      Monitor& monitor)
{
    if (passes <= 0 || w.size() == 0 || !(start.scales(0) > 0.0))
        return start;
    const std::vector<DiagonalBlock> blocks = diagonal_blocks(hessian);
    parallel_for(0, (w.rows() + k_rows - 1) / k_rows, [&](Index tile) {
        const Index first = tile * k_rows;
        const Index count = std::min(k_rows, w.rows() - first);
        monitor.throw_if_cancelled();
        const MatrixD error =
            w.middleRows(first, count).cast<double>() - start.values.middleRows(first, count).cast<double>();
        MatrixD slope = error * hessian;
        for (int pass = 0; pass < passes; ++pass) {
            for (Index row = 0; row < count; ++row) {
                monitor.throw_if_cancelled();
                tune_row(start, bits, first + row, hessian, blocks, slope.row(row));
            }
        }
    });
    return start;
}

} // namespace rankscope
