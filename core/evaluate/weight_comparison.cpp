// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/weight_comparison.h"

#include "core/compute/job_border.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

double relative(double squared_difference, double squared_norm)
{
    if (squared_norm > 0.0)
        return std::sqrt(squared_difference / squared_norm);
    return squared_difference > 0.0 ? 1.0 : 0.0;
}

double bits_per_weight(std::uint64_t bytes, double weights)
{
    return weights > 0.0 ? 8.0 * static_cast<double>(bytes) / weights : 0.0;
}

/// The sums of one or of all layers.
struct Sums {
    double squared_difference = 0.0;
    double squared_norm = 0.0;
    double weights = 0.0;
};

Result<LayerDifference> compare_layer(const LinearLayer& layer, const Model& original, const Model& other,
                                      Sums& sums)
{
    const LinearLayer* counterpart = other.find_linear(layer.name);
    if (!counterpart || counterpart->out != layer.out || counterpart->in != layer.in)
        return bad_input(counterpart ? "the layer is " + std::to_string(counterpart->out) + " × "
                                           + std::to_string(counterpart->in) + " here and "
                                           + std::to_string(layer.out) + " × " + std::to_string(layer.in)
                                           + " in the original"
                                     : "the layer is missing here",
                         other.path().string() + ": " + layer.name, "Compare checkpoints of the same model");
    const auto before = original.weight(layer);
    if (!before)
        return before.error();
    const auto after = other.weight(*counterpart);
    if (!after)
        return after.error();
    const TensorInfo& info = *other.checkpoint().find(counterpart->weight());
    const MatrixD difference = after->cast<double>() - before->cast<double>();
    Sums own;
    own.squared_difference = difference.squaredNorm();
    own.squared_norm = before->cast<double>().squaredNorm();
    own.weights = static_cast<double>(before->size());
    sums.squared_difference += own.squared_difference;
    sums.squared_norm += own.squared_norm;
    sums.weights += own.weights;
    return LayerDifference{
        layer.name, std::string(info.type_name()), bits_per_weight(info.bytes, own.weights),
        relative(own.squared_difference, own.squared_norm), difference.cwiseAbs().maxCoeff()};
}

Result<WeightComparison> compare_all(const Model& original, const Model& other, Monitor& monitor)
{
    WeightComparison result;
    Sums sums;
    for (const LinearLayer& layer : original.linears()) {
        monitor.throw_if_cancelled();
        monitor.report(result.layers.size(), original.linears().size(), "layer");
        auto difference = compare_layer(layer, original, other, sums);
        if (!difference)
            return difference.error();
        result.bytes += other.checkpoint().find(other.find_linear(layer.name)->weight())->bytes;
        result.layers.push_back(std::move(*difference));
    }
    monitor.report(result.layers.size(), original.linears().size(), "layer");
    result.bits_per_weight = bits_per_weight(result.bytes, sums.weights);
    result.relative_error = relative(sums.squared_difference, sums.squared_norm);
    return result;
}

} // namespace

double relative_difference(const Matrix& original, const Matrix& other)
{
    return relative((other.cast<double>() - original.cast<double>()).squaredNorm(),
                    original.cast<double>().squaredNorm());
}

Result<WeightComparison> compare_weights(const Model& original, const Model& other, Monitor& monitor)
{
    return at_job_border("nothing was changed", [&] { return compare_all(original, other, monitor); });
}

} // namespace rankscope
