// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/learned_linear.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace rankscope {
namespace {

constexpr std::array k_members{&LearnedParameters::shift,   &LearnedParameters::rows,
                               &LearnedParameters::columns, &LearnedParameters::left,
                               &LearnedParameters::right,   &LearnedParameters::full};

LearnedParameters copied(const LearnedParameters& from, Backend& backend)
{
    LearnedParameters result;
    for (const auto member : k_members)
        if (!(from.*member).empty())
            result.*member = backend.copy(from.*member);
    return result;
}

LearnedParameters zeros_like(const LearnedParameters& like, Backend& backend)
{
    LearnedParameters result;
    for (const auto member : k_members) {
        const Buffer& buffer = like.*member;
        if (!buffer.empty())
            result.*member = backend.allocate(buffer.rows(), buffer.cols(), buffer.precision());
    }
    return result;
}

/// Kaiming-uniform with a = √5, as the release starts U₂: ±1/√in.
MatrixD start_of_right(Index rank, Index in, const RandomStream& random)
{
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    MatrixD right(rank, in);
    for (Index i = 0; i < right.size(); ++i)
        right.data()[i] = bound * (2.0 * random.uniform(static_cast<std::uint64_t>(i)) - 1.0);
    return right;
}

LearnedParameters published_start(const Buffer& weight, const GridBuffers& fitted, LearnedKind kind,
                                  Index rank, const RandomStream& random, Backend& backend)
{
    const Precision precision = weight.precision();
    LearnedParameters start;
    start.shift = backend.allocate(fitted.scales.rows(), fitted.scales.cols(), precision);
    start.rows = backend.allocate(weight.rows(), 1, precision);
    if (kind == LearnedKind::FlexRound) {
        start.full = backend.allocate(weight.rows(), weight.cols(), precision);
        return start;
    }
    start.columns = backend.allocate(1, weight.cols(), precision);
    if (rank > 0) {
        start.left = backend.allocate(weight.rows(), rank, precision);
        start.right = backend.convert(backend.upload(start_of_right(rank, weight.cols(), random)), precision);
    }
    return start;
}

} // namespace

Index default_learned_rank(Index out, Index in)
{
    const Index smaller = std::min(out, in);
    const Index published = smaller >= 8192 ? 2048 : 1024;
    return std::max<Index>(1, std::min(published, smaller / 4));
}

LearnedLinear::LearnedLinear(Buffer weight, GridBuffers fitted, LearnedKind kind, Index rank,
                             const RandomStream& random, Backend& backend)
    : weight_(std::move(weight)), fitted_(std::move(fitted)), kind_(kind),
      parameters_(published_start(weight_, fitted_, kind, rank, random, backend))
{
    clear_moments(backend);
}

LearnedLinear::LearnedLinear(Buffer weight, GridBuffers fitted, LearnedKind kind, LearnedParameters start,
                             Backend& backend)
    : weight_(std::move(weight)), fitted_(std::move(fitted)), kind_(kind), parameters_(std::move(start))
{
    clear_moments(backend);
}

void LearnedLinear::clear_moments(Backend& backend)
{
    first_ = zeros_like(parameters_, backend);
    second_ = zeros_like(parameters_, backend);
}

LearnedGrid LearnedLinear::grid() const
{
    return {fitted_.grid, fitted_.scales,   fitted_.zeros,      parameters_.shift,
            exponent_,    parameters_.rows, parameters_.columns};
}

const Buffer& LearnedLinear::forward(Backend& backend)
{
    if (kind_ == LearnedKind::FlexRound)
        exponent_ = parameters_.full;
    else if (parameters_.left.empty())
        exponent_ = backend.allocate(weight_.rows(), weight_.cols(), weight_.precision());
    else
        exponent_ = backend.multiply(parameters_.left, parameters_.right);
    rounding_ = backend.round_learned(weight_, grid());
    return rounding_.values;
}

void LearnedLinear::backward(const Buffer& dvalues, Backend& backend)
{
    LearnedGradient gradient = backend.round_learned_backward(dvalues, rounding_.ratio, grid());
    gradients_ = {};
    gradients_.shift = std::move(gradient.dshift);
    gradients_.rows = std::move(gradient.drows);
    if (kind_ == LearnedKind::FlexRound) {
        gradients_.full = std::move(gradient.dexponent);
        return;
    }
    gradients_.columns = std::move(gradient.dcolumns);
    if (parameters_.left.empty())
        return;
    gradients_.left = backend.multiply(gradient.dexponent, Transpose::No, parameters_.right, Transpose::Yes);
    gradients_.right = backend.multiply(parameters_.left, Transpose::Yes, gradient.dexponent, Transpose::No);
}

void LearnedLinear::step(const AdamStep& by, Backend& backend)
{
    for (const auto member : k_members)
        if (!(parameters_.*member).empty())
            backend.adam_step(parameters_.*member, gradients_.*member, first_.*member, second_.*member, by);
}

LearnedParameters LearnedLinear::snapshot(Backend& backend) const { return copied(parameters_, backend); }

void LearnedLinear::restore(const LearnedParameters& parameters, bool forget, Backend& backend)
{
    parameters_ = copied(parameters, backend);
    if (forget)
        clear_moments(backend);
}

QuantizedMatrix LearnedLinear::quantized(Backend& backend)
{
    const Matrix values = backend.download(forward(backend));
    const Matrix start = backend.download(fitted_.scales);
    const Matrix shift = backend.download(parameters_.shift);
    QuantizedMatrix result;
    result.grid = fitted_.grid;
    result.zeros = backend.download(fitted_.zeros);
    result.scales.resize(start.rows(), start.cols());
    for (Index i = 0; i < start.size(); ++i)
        result.scales.data()[i] = static_cast<float>(static_cast<double>(start.data()[i])
                                                     * std::exp(static_cast<double>(shift.data()[i])));
    result.codes.resize(values.rows(), values.cols());
    const Index width = fitted_.grid.group_width(values.cols());
    for (Index i = 0; i < values.rows(); ++i)
        for (Index j = 0; j < values.cols(); ++j)
            // The backend's own exponential differs in the last bit: the quotient is near the code, not on
            // it.
            result.codes(i, j) =
                static_cast<std::int16_t>(std::nearbyint(values(i, j) / result.scales(i, j / width)));
    return result;
}

Index LearnedLinear::trained_numbers() const
{
    Index count = 0;
    for (const auto member : k_members)
        count += (parameters_.*member).size();
    return count;
}

std::uint64_t learned_linear_bytes(LearnedKind kind, Index out, Index in, Index rank, Index groups)
{
    const Index weights = out * in;
    const Index small = out * (2 + groups) + in;
    const Index trained = kind == LearnedKind::FlexRound ? weights + small : rank * (out + in) + small;
    // Parameters, gradients, two moments and the best copy; exponent, Ŵ, v, D and ∂loss/∂Ŵ.
    return static_cast<std::uint64_t>(5 * trained + 5 * weights) * sizeof(float);
}

} // namespace rankscope
