// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/lattice_rounding.h"

#include "core/base/thread_pool.h"
#include "core/quantize/rounding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

constexpr Index k_width = k_lattice_width;

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

/// Codes of the groups in the order of their places: `order` names the column at each position of the sweep.
std::vector<Index> code_places(const std::vector<Index>& order, const std::vector<Index>& starts, int bits)
{
    const Index stages = lattice_stages(bits);
    std::vector<Index> places((starts.size() - 1) * static_cast<std::size_t>(stages));
    for (std::size_t position = 0; position + 1 < starts.size(); ++position) {
        const Index group = order[static_cast<std::size_t>(starts[position])] / k_width;
        for (Index stage = 0; stage < stages; ++stage)
            places[static_cast<std::size_t>(group * stages + stage)] =
                static_cast<Index>(position) * stages + stage;
    }
    return places;
}

/// Backend::round_lattice by blocks of rows.
LatticeBuffers round_by_blocks(const Buffer& w, const LatticeSweep& sweep, Backend& backend, Monitor& monitor)
{
    const Index block = rows_between_questions(w.cols());
    if (backend.host_matrix(w) == nullptr || block >= w.rows())
        return backend.round_lattice(w, sweep);
    Matrix values(w.rows(), w.cols());
    Matrix codes;
    double loss = 0.0;
    for (Index first = 0; first < w.rows(); first += block) {
        monitor.throw_if_cancelled();
        const Index count = std::min(block, w.rows() - first);
        const LatticeBuffers part = backend.round_lattice(backend.rows_of(w, first, count), sweep);
        if (codes.size() == 0)
            codes.resize(w.rows(), part.codes.cols());
        values.middleRows(first, count) = backend.download(part.values);
        codes.middleRows(first, count) = backend.download(part.codes);
        loss += part.loss;
    }
    return {backend.upload(values), backend.upload(codes), loss};
}

std::vector<std::uint16_t> codes_of(const LatticeLayer& layer, Backend& backend)
{
    const Matrix floats = backend.download(layer.rounded.codes);
    std::vector<std::uint16_t> codes(static_cast<std::size_t>(floats.size()));
    std::transform(floats.data(), floats.data() + floats.size(), codes.begin(),
                   [](float code) { return static_cast<std::uint16_t>(code); });
    return codes;
}

} // namespace

E8Matrix to_host(const LatticeLayer& layer, Backend& backend)
{
    return {backend.download(layer.rounded.values), codes_of(layer, backend),
            VectorD::Constant(1, static_cast<double>(layer.scale))};
}

QuantizedMatrix to_quantized(const LatticeLayer& layer, Backend& backend)
{
    return lattice_matrix(layer.rounded.values.rows(), layer.rounded.values.cols(), layer.bits, layer.scale,
                          codes_of(layer, backend));
}

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
    result.single_ = backend.upload(Matrix(upper.cast<float>()));
    if (!std::is_sorted(result.order_.begin(), result.order_.end())) {
        result.inverse_.resize(result.order_.size());
        for (std::size_t i = 0; i < result.order_.size(); ++i)
            result.inverse_[static_cast<std::size_t>(result.order_[i])] = static_cast<Index>(i);
    }
    return result;
}

LatticeLayer LatticeFeedback::round(const Buffer& weight, int bits, Backend& backend, Monitor& monitor) const
{
    monitor.throw_if_cancelled();
    const Buffer w =
        weight.precision() == Precision::Float32 ? weight : backend.convert(weight, Precision::Float32);
    const double rms = w.empty() ? 0.0 : std::sqrt(backend.dot(w, w) / static_cast<double>(w.size()));
    LatticeLayer layer{{}, bits, static_cast<float>(rms / k_e8p_scale)};
    if (!(layer.scale > 0.0F)) {
        const Index stages = lattice_stages(bits);
        layer.rounded = {backend.allocate(w.rows(), w.cols()),
                         backend.allocate(w.rows(), (w.cols() + k_width - 1) / k_width * stages), 0.0};
        return layer;
    }
    const Buffer ordered = inverse_.empty() ? w : backend.gather_columns(w, order_);
    layer.rounded =
        round_by_blocks(ordered, {single_, starts_, diagonal_, bits, layer.scale}, backend, monitor);
    if (!inverse_.empty()) {
        layer.rounded.values = backend.gather_columns(layer.rounded.values, inverse_);
        layer.rounded.codes = backend.gather_columns(layer.rounded.codes, code_places(order_, starts_, bits));
    }
    return layer;
}

LatticeLayer tune_lattice(const Buffer& w, const LatticeLayer& start, const Buffer& hessian, int passes,
                          Backend& backend, Monitor& monitor)
{
    if (passes <= 0 || w.empty() || !(start.scale > 0.0F))
        return start;
    monitor.throw_if_cancelled();
    if (backend.host_matrix(w) == nullptr)
        return {backend.tune_lattice(w, start.rounded, {hessian, start.bits, start.scale, passes}),
                start.bits, start.scale};
    const Buffer moments = backend.convert(hessian, Precision::Float64);
    const Index block = rows_between_questions(w.cols());
    Matrix values(w.rows(), w.cols());
    Matrix codes(w.rows(), start.rounded.codes.cols());
    for (Index first = 0; first < w.rows(); first += block) {
        const Index count = std::min(block, w.rows() - first);
        const auto part = [&](const Buffer& whole) { return backend.rows_of(whole, first, count); };
        const Buffer weight = part(w);
        LatticeBuffers tuned{part(start.rounded.values), part(start.rounded.codes)};
        for (int pass = 0; pass < passes; ++pass) {
            monitor.throw_if_cancelled();
            tuned = backend.tune_lattice(weight, tuned, {moments, start.bits, start.scale, 1});
        }
        values.middleRows(first, count) = backend.download(tuned.values);
        codes.middleRows(first, count) = backend.download(tuned.codes);
    }
    return {{backend.upload(values), backend.upload(codes)}, start.bits, start.scale};
}

} // namespace rankscope
