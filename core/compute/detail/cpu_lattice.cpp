// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/e8p.h"

#include <Eigen/Cholesky>

#include <algorithm>
#include <numeric>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr Index k_panel = 128; ///< columns whose feedback from earlier ones is one product
constexpr Index k_rows = 32;   ///< rows per tile, fixed so that threads change no byte

/// One sweep over all rows; everything is in units of the scale.
class Sweep {
public:
    Sweep(const Matrix& weight, const LatticeSweep& sweep, Matrix& values, Matrix& codes)
        : weight_(weight), feedback_(elements<float>(sweep.feedback)), sweep_(sweep), values_(values),
          codes_(codes)
    {}

    /// Rows [first_row, first_row + count). `error` holds W − Q of the columns that are done; a panel's
    /// targets start with the feedback of all panels before it. The loss, in units of the scale squared.
    double run(Index first_row, Index count)
    {
        const Index n = weight_.cols();
        const Matrix weight = weight_.middleRows(first_row, count) / sweep_.scale;
        Matrix error = Matrix::Zero(count, n);
        Index panel = 0;
        Matrix target;
        double loss = 0.0;
        for (std::size_t block = 0; block + 1 < sweep_.starts.size(); ++block) {
            const Index start = sweep_.starts[block];
            const Index width = sweep_.starts[block + 1] - start;
            if (block == 0 || start + width - panel > k_panel) {
                panel = start;
                const Index columns = std::min(k_panel, n - panel);
                target = weight.middleCols(panel, columns);
                if (panel > 0)
                    target.noalias() += error.leftCols(panel) * feedback_.block(0, panel, panel, columns);
            }
            Matrix goal = target.middleCols(start - panel, width);
            if (start > panel)
                goal.noalias() += error.middleCols(panel, start - panel)
                                  * feedback_.block(panel, start, start - panel, width);
            const Matrix wanted = goal;
            round_rows(goal, first_row, start, static_cast<Index>(block));
            error.middleCols(start, width) = weight.middleCols(start, width) - goal;
            const MatrixD missed = (wanted - goal).cast<double>();
            loss += (missed * sweep_.diagonal[block]).cwiseProduct(missed).sum();
        }
        return loss;
    }

private:
    /// Replaces the rows of one block's goals by their lattice points and stores those.
    void round_rows(Matrix& goal, Index first_row, Index start, Index block)
    {
        const Index stages = lattice_stages(sweep_.bits);
        for (Index first = 0; first < goal.rows(); first += k_e8_lanes) {
            const Index lanes = std::min<Index>(k_e8_lanes, goal.rows() - first);
            E8Lanes points{};
            for (Index lane = 0; lane < lanes; ++lane)
                for (Index i = 0; i < goal.cols(); ++i)
                    points.coordinate[i][lane] = goal(first + lane, i);
            E8NearestLanes nearest;
            e8p_nearest_lanes(points, sweep_.bits, nearest);
            for (Index lane = 0; lane < lanes; ++lane) {
                const Index row = first_row + first + lane;
                for (Index i = 0; i < goal.cols(); ++i) {
                    const float value = nearest.values.coordinate[i][lane];
                    goal(first + lane, i) = value;
                    values_(row, start + i) = sweep_.scale * value;
                }
                for (Index stage = 0; stage < stages; ++stage)
                    codes_(row, block * stages + stage) = static_cast<float>(nearest.codes[stage][lane]);
            }
        }
    }

    const Matrix& weight_;
    const Matrix& feedback_;
    const LatticeSweep& sweep_;
    Matrix& values_;
    Matrix& codes_;
};

/// What the descent needs of H beside H itself: each block on the diagonal, and its factor.
struct DiagonalBlock {
    MatrixD matrix;
    Eigen::LLT<MatrixD> factor;
    bool usable = false;
};

std::vector<DiagonalBlock> diagonal_blocks(const MatrixD& hessian)
{
    const Index n = hessian.rows();
    std::vector<DiagonalBlock> blocks(static_cast<std::size_t>((n + k_lattice_width - 1) / k_lattice_width));
    for (Index first = 0; first < n; first += k_lattice_width) {
        const Index width = std::min(k_lattice_width, n - first);
        DiagonalBlock& block = blocks[static_cast<std::size_t>(first / k_lattice_width)];
        block.matrix = hessian.block(first, first, width, width);
        block.factor.compute(block.matrix);
        block.usable = block.factor.info() == Eigen::Success;
    }
    return blocks;
}

/// Values and codes on their way down.
struct Descent {
    const MatrixD& hessian;
    const std::vector<DiagonalBlock>& blocks;
    int bits;
    double scale;
    Matrix& values;
    Matrix& codes;
};

/// The point nearest to x, in the lanes' first place.
E8NearestLanes nearest_point(const E8Point& x, int bits)
{
    E8Lanes points{};
    for (std::size_t i = 0; i < x.size(); ++i)
        points.coordinate[i][0] = x[i];
    E8NearestLanes nearest{};
    e8p_nearest_lanes(points, bits, nearest);
    return nearest;
}

/// One row's pass. `slope` holds (w − q)·H of the row and is kept up to date.
void tune_row(const Descent& task, Index row, Eigen::Ref<Eigen::RowVectorXd> slope)
{
    for (std::size_t b = 0; b < task.blocks.size(); ++b) {
        const DiagonalBlock& block = task.blocks[b];
        if (!block.usable)
            continue;
        const Index first = static_cast<Index>(b) * k_lattice_width;
        const Index width = block.matrix.rows();
        const VectorD gradient = slope.segment(first, width).transpose();
        const VectorD step = block.factor.solve(gradient);
        E8Point x{};
        for (Index i = 0; i < width; ++i)
            x[static_cast<std::size_t>(i)] =
                static_cast<float>((static_cast<double>(task.values(row, first + i)) + step(i)) / task.scale);
        const E8NearestLanes point = nearest_point(x, task.bits);
        VectorD change(width);
        std::array<float, 8> next{};
        for (Index i = 0; i < width; ++i) {
            const auto place = static_cast<std::size_t>(i);
            next[place] = static_cast<float>(task.scale) * point.values.coordinate[place][0];
            change(i) = static_cast<double>(next[place]) - static_cast<double>(task.values(row, first + i));
        }
        if (!(change.dot(block.matrix * change) - 2.0 * change.dot(gradient) < 0.0))
            continue;
        slope -= change.transpose() * task.hessian.middleRows(first, width);
        for (Index i = 0; i < width; ++i)
            task.values(row, first + i) = next[static_cast<std::size_t>(i)];
        const Index stages = lattice_stages(task.bits);
        for (Index stage = 0; stage < stages; ++stage)
            task.codes(row, static_cast<Index>(b) * stages + stage) =
                static_cast<float>(point.codes[stage][0]);
    }
}

} // namespace

LatticeBuffers CpuBackend::round_lattice(const Buffer& w, const LatticeSweep& sweep)
{
    if (const char* broken = broken_contract(w, sweep))
        contract_broken("round_lattice", broken);
    const Index groups = static_cast<Index>(sweep.starts.size()) - 1;
    Matrix values(w.rows(), w.cols());
    Matrix codes(w.rows(), groups * lattice_stages(sweep.bits));
    std::vector<double> losses(static_cast<std::size_t>((w.rows() + k_rows - 1) / k_rows), 0.0);
    if (!w.empty())
        for_stretches(w.rows(), k_rows, [&](Index first, Index count) {
            losses[static_cast<std::size_t>(first / k_rows)] =
                Sweep(elements<float>(w), sweep, values, codes).run(first, count);
        });
    const auto scale = static_cast<double>(sweep.scale);
    const double loss = std::accumulate(losses.begin(), losses.end(), 0.0) * scale * scale;
    return {make_buffer(std::move(values)), make_buffer(std::move(codes)), loss};
}

LatticeBuffers CpuBackend::tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                        const LatticeDescent& descent)
{
    if (const char* broken = broken_contract(w, start, descent))
        contract_broken("tune_lattice", broken);
    Matrix values = single_copy(start.values);
    Matrix codes = single_copy(start.codes);
    if (!w.empty()) {
        const Matrix weight = single_copy(w);
        const bool twice = descent.hessian.precision() == Precision::Float64;
        const MatrixD widened = twice ? MatrixD() : double_copy(descent.hessian);
        const MatrixD& hessian = twice ? elements<double>(descent.hessian) : widened;
        const std::vector<DiagonalBlock> blocks = diagonal_blocks(hessian);
        const Descent task{hessian, blocks, descent.bits, static_cast<double>(descent.scale), values, codes};
        for_stretches(w.rows(), k_rows, [&](Index first, Index count) {
            for (int pass = 0; pass < descent.passes; ++pass) {
                MatrixD slope = (weight.middleRows(first, count).cast<double>()
                                 - values.middleRows(first, count).cast<double>())
                                * hessian;
                for (Index row = 0; row < count; ++row)
                    tune_row(task, first + row, slope.row(row));
            }
        });
    }
    return {make_buffer(std::move(values)), make_buffer(std::move(codes))};
}

} // namespace rankscope::detail
