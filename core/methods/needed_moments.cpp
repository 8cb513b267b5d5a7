// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/needed_moments.h"

#include <fmt/format.h>

namespace rankscope {

Status check_calibration(const MethodInfo& info, const Parameters& parameters,
                         const CalibrationStore* calibration, const std::string& layer)
{
    if (calibration)
        return check_activations(info, parameters, calibration->source().activations, layer);
    if (!info.needs.hessian)
        return {};
    return usage_error(fmt::format("method {} needs a calibration", info.id), layer,
                       "Make one with rankscope-cli calibrate and give it with --calibration");
}

Result<Moments> needed_moments(const MethodInfo& info, const Parameters& parameters,
                               const CalibrationStore& calibration, std::string_view group)
{
    const bool rounded = info.needs.quantized_activations && activations_of(info, parameters).active();
    return rounded ? calibration.moments_with_activations(group) : calibration.moments(group);
}

} // namespace rankscope
