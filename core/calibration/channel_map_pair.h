// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/channel_map.h"
#include "core/model/tensor_matching.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope {

/// Reads the weight of one of a model's layers, out × in.
using WeightReader = std::function<Result<Matrix>(const LinearLayer&)>;

/// As channel_map(), but of the weights: what meets each input channel in the layers that share it, the
/// largest |w_ij| and √(mean w_ij²) over their outputs. Reads all weights, one at a time. Errors: those of
/// `weight`. Throws Cancelled.
Result<ChannelMap> weight_channel_map(const Model& model, const WeightReader& weight, Monitor& monitor);

/// Two such maps row by row.
struct ChannelMapPair {
    ChannelMap first;     ///< rows with a partner, in their order
    ChannelMap second;    ///< their partners, one each
    ChannelMap log_ratio; ///< log₂ of second / first; NaN where one is 0 or they differ in size
    std::vector<std::string> only_first; ///< groups without a partner
    std::vector<std::string> only_second;
    double largest_max_abs = 0.0; ///< largest |log₂| of the maxima
    double largest_rms = 0.0;     ///< and of the RMS
};
ChannelMapPair pair_rows(const ChannelMap& first, const Model& first_model, const ChannelMap& second,
                         const Model& second_model, const TensorMatching& matching);

} // namespace rankscope
