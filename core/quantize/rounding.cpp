// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/rounding.h"

#include "core/base/thread_pool.h"
#include "core/compute/grid_levels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

/// Work of one uninterruptible call of round_with_feedback, in multiply-adds: some tens of milliseconds on
/// two cores.
constexpr Index k_block_work = Index{1} << 30;
/// The same for a clip search, in roundings (each takes a power): elements times candidates.
constexpr Index k_search_work = Index{1} << 23;
/// Both on a device, which does in a moment what takes the host a while: rows of one call stay there, those of several
/// have to come over to be joined.
constexpr Index k_device_block_work = Index{1} << 37;
constexpr Index k_device_search_work = Index{1} << 33;

bool is_identity(const std::vector<Index>& order)
{
    for (std::size_t i = 0; i < order.size(); ++i)
        if (order[i] != static_cast<Index>(i))
            return false;
    return true;
}

/// H ← ½(H + Hᵀ), by blocks that stay in the cache.
void symmetrize(MatrixD& h)
{
    constexpr Index edge = 64;
    const Index n = h.rows();
    parallel_for(0, (n + edge - 1) / edge, [&](Index tile) {
        const Index i = tile * edge;
        const Index rows = std::min(edge, n - i);
        for (Index j = 0; j <= i; j += edge) {
            const Index cols = std::min(edge, n - j);
            const MatrixD mean = 0.5 * (h.block(i, j, rows, cols) + h.block(j, i, cols, rows).transpose());
            h.block(i, j, rows, cols) = mean;
            h.block(j, i, cols, rows) = mean.transpose();
        }
    });
}

std::vector<Index> falling_diagonal(const MatrixD& hessian)
{
    std::vector<Index> order(static_cast<std::size_t>(hessian.rows()));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return hessian(a, a) > hessian(b, b); });
    return order;
}

/// The Hessian in sweep order, then reversed in rows and columns: its lower Cholesky factor reversed again is
/// upper.
MatrixD flipped(const MatrixD& hessian, const std::vector<Index>& order)
{
    const Index n = hessian.rows();
    MatrixD result(n, n);
    parallel_for(0, n, [&](Index row) {
        const Index from = order[static_cast<std::size_t>(n - 1 - row)];
        for (Index col = 0; col < n; ++col)
            result(row, col) = hessian(from, order[static_cast<std::size_t>(n - 1 - col)]);
    });
    return result;
}

bool on_host(const Buffer& buffer, Backend& backend) { return backend.host_matrix(buffer) != nullptr; }

Result<ReversedFactor> cholesky_with_retries(MatrixD hessian, Backend& backend, Monitor& monitor)
{
    double mean_diagonal = hessian.diagonal().mean();
    if (!(mean_diagonal > 0.0))
        mean_diagonal = 1.0;
    double added = 0.0;
    for (const double damping : {0.0, 0.01, 0.1, 1.0}) {
        monitor.throw_if_cancelled();
        hessian.diagonal().array() += (damping - added) * mean_diagonal;
        added = damping;
        if (damping > 0.0)
            monitor.warn(fmt::format(
                "The input moments are not positive definite; damping raised by {} of their mean diagonal.",
                damping));
        auto factor = backend.cholesky(backend.upload(hessian));
        if (factor)
            return ReversedFactor{backend.download_double(*factor), damping};
    }
    return bad_input("the input moments cannot be factorised even when damped by their whole mean diagonal",
                     "moments", "Calibrate again with more text.");
}

} // namespace

Index prepare_hessian(MatrixD& hessian, Matrix& weight, double rho)
{
    const Index n = hessian.rows();
    symmetrize(hessian);
    Index dead = 0;
    for (Index j = 0; j < n; ++j) {
        if (hessian(j, j) != 0.0)
            continue;
        hessian(j, j) = 1.0;
        weight.col(j).setZero();
        ++dead;
    }
    if (n > 0)
        hessian.diagonal().array() += rho * hessian.diagonal().mean();
    return dead;
}

Result<ReversedFactor> reversed_cholesky(const MatrixD& hessian, const std::vector<Index>& order,
                                         Backend& backend, Monitor& monitor)
{
    if (hessian.rows() != hessian.cols())
        return internal_error("the matrix of input moments is not square");
    if (!hessian.allFinite())
        return bad_input("the input moments hold a value that is not finite", "moments", "Calibrate again.");
    return cholesky_with_retries(flipped(hessian, order), backend, monitor);
}

GridBuffers fit_grid(const Buffer& w, const UniformGrid& grid, Backend& backend, Monitor& monitor)
{
    monitor.throw_if_cancelled();
    const Index candidates = grid.clip == ClipSearch::Grid && !grid.symmetric
                                 ? grid.clip_steps * (Index{1} << grid.bits)
                                 : grid.clip_steps;
    const Index work = on_host(w, backend) ? k_search_work : k_device_search_work;
    const Index block = std::max<Index>(1, work / std::max<Index>(1, w.cols() * candidates));
    if (grid.clip == ClipSearch::None || grid.group < 0 || block >= w.rows())
        return backend.fit_grid(w, grid);
    const Index groups = grid.groups(w.cols());
    Matrix scales(w.rows(), groups);
    Matrix zeros(w.rows(), groups);
    for (Index first = 0; first < w.rows(); first += block) {
        monitor.throw_if_cancelled();
        const Index count = std::min(block, w.rows() - first);
        const GridBuffers part = backend.fit_grid(backend.rows_of(w, first, count), grid);
        scales.middleRows(first, count) = backend.download(part.scales);
        zeros.middleRows(first, count) = backend.download(part.zeros);
    }
    return {grid, backend.upload(scales), backend.upload(zeros)};
}

Result<FeedbackFactor> FeedbackFactor::make(const MatrixD& hessian, bool act_order, Backend& backend,
                                            Monitor& monitor)
{
    std::vector<Index> order;
    if (act_order && hessian.rows() == hessian.cols()) {
        order = falling_diagonal(hessian);
    } else {
        order.resize(static_cast<std::size_t>(hessian.rows()));
        std::iota(order.begin(), order.end(), Index{0});
    }
    const auto factored = reversed_cholesky(hessian, order, backend, monitor);
    if (!factored)
        return factored.error();
    return from_reversed(*factored, std::move(order), backend);
}

FeedbackFactor FeedbackFactor::from_reversed(const ReversedFactor& factored, std::vector<Index> order,
                                             Backend& backend)
{
    FeedbackFactor result;
    result.order_ = std::move(order);
    if (!is_identity(result.order_)) {
        result.inverse_.resize(result.order_.size());
        for (std::size_t i = 0; i < result.order_.size(); ++i)
            result.inverse_[static_cast<std::size_t>(result.order_[i])] = static_cast<Index>(i);
    }
    result.damped_further_ = factored.damping > 0.0;
    const MatrixD& lower = factored.lower;
    const Index n = lower.rows();
    // Column k of the flipped factor divided by its diagonal is U; the diagonal squared is D.
    Matrix upper = Matrix::Zero(n, n);
    const VectorD corners = lower.diagonal().reverse();
    result.diagonal_ = corners.cwiseAbs2();
    parallel_for(0, n, [&](Index row) {
        for (Index col = row; col < n; ++col)
            upper(row, col) = static_cast<float>(lower(n - 1 - row, n - 1 - col) / corners(col));
    });
    result.factor_ = backend.upload(upper);
    return result;
}

RoundedBuffers FeedbackFactor::round(const Buffer& w, const GridBuffers& grid, Backend& backend,
                                     Monitor& monitor) const
{
    monitor.throw_if_cancelled();
    const Buffer ordered = inverse_.empty() ? w : backend.gather_columns(w, order_);
    const Index n = w.cols();
    const Index work = on_host(ordered, backend) ? k_block_work : k_device_block_work;
    const Index block = std::max<Index>(64, work / std::max<Index>(1, n * n));
    RoundedBuffers rounded;
    if (block >= w.rows()) {
        rounded = backend.round_with_feedback(ordered, factor_, grid, order_);
    } else {
        Matrix values(w.rows(), n);
        Matrix codes(w.rows(), n);
        VectorD losses;
        for (Index first = 0; first < w.rows(); first += block) {
            monitor.throw_if_cancelled();
            const Index count = std::min(block, w.rows() - first);
            const GridBuffers part_grid{grid.grid, backend.rows_of(grid.scales, first, count),
                                        backend.rows_of(grid.zeros, first, count)};
            const RoundedBuffers part = backend.round_with_feedback(backend.rows_of(ordered, first, count),
                                                                    factor_, part_grid, order_);
            values.middleRows(first, count) = backend.download(part.values);
            codes.middleRows(first, count) = backend.download(part.codes);
            if (first == 0)
                losses = part.column_losses;
            else if (losses.size() == part.column_losses.size())
                losses += part.column_losses;
        }
        rounded = {backend.upload(values), backend.upload(codes), losses};
    }
    if (inverse_.empty())
        return rounded;
    return {backend.gather_columns(rounded.values, inverse_), backend.gather_columns(rounded.codes, inverse_),
            rounded.column_losses};
}

Index rows_between_questions(Index cols)
{
    constexpr Index k_tile_rows = 32; // what one thread takes at a time
    const Index work = k_block_work / std::max<Index>(1, cols * cols);
    return std::max<Index>(k_tile_rows * thread_count(), work / k_tile_rows * k_tile_rows);
}

RoundedBuffers tune_rounding(const Buffer& w, const RoundedBuffers& start, const Buffer& hessian,
                             const GridBuffers& grid, int passes, Backend& backend, Monitor& monitor)
{
    if (passes <= 0 || w.empty())
        return start;
    monitor.throw_if_cancelled();
    if (!on_host(w, backend))
        return backend.tune_codes(w, start, grid, hessian, passes);
    const Buffer moments = backend.convert(hessian, Precision::Float64);
    const Index block = rows_between_questions(w.cols());
    Matrix values(w.rows(), w.cols());
    Matrix codes(w.rows(), w.cols());
    for (Index first = 0; first < w.rows(); first += block) {
        const Index count = std::min(block, w.rows() - first);
        const auto part = [&](const Buffer& whole) { return backend.rows_of(whole, first, count); };
        const Buffer weight = part(w);
        const GridBuffers part_grid{grid.grid, part(grid.scales), part(grid.zeros)};
        RoundedBuffers tuned{part(start.values), part(start.codes)};
        for (int pass = 0; pass < passes; ++pass) {
            monitor.throw_if_cancelled();
            tuned = backend.tune_codes(weight, tuned, part_grid, moments, 1);
        }
        values.middleRows(first, count) = backend.download(tuned.values);
        codes.middleRows(first, count) = backend.download(tuned.codes);
    }
    return {backend.upload(values), backend.upload(codes), {}};
}

} // namespace rankscope
