// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/methods/method.h"

namespace rankscope {

/// Whether a calibration, or none (null), holds what a method needs with these parameters. Errors: Usage,
/// naming `layer` and what to do.
Status check_calibration(const MethodInfo& info, const Parameters& parameters,
                         const CalibrationStore* calibration, const std::string& layer);

/// The moments of an input group, with those of rounded activations only where the method needs them: they
/// are twice as large again. Errors: those of the store.
Result<Moments> needed_moments(const MethodInfo& info, const Parameters& parameters,
                               const CalibrationStore& calibration, std::string_view group);

} // namespace rankscope
