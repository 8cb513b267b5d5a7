// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/teaching/lesson.h"

namespace rankscope {

// What several lessons do alike.

using GivenParameters = std::map<std::string, ParameterValue, std::less<>>;

/// One method with its parameters; `iterates` of a large layer take much memory.
struct TaughtMethod {
    std::string_view id;
    GivenParameters parameters;
    bool iterates = false;
};
/// It, on the lesson's layer. Errors: as the method's.
Result<Decomposition> taught(const LessonInput& input, const TaughtMethod& method, Backend& backend,
                             Monitor& monitor);
/// The same with other moments than the input's.
Result<Decomposition> taught(const LessonInput& input, const Moments& moments, const TaughtMethod& method,
                             Backend& backend, Monitor& monitor);

/// diag H.
VectorD input_energy(const Moments& moments);

/// The `count` channels with the largest values, rising by index.
std::vector<Index> strongest_channels(const VectorD& values, Index count);

/// The errors of a trace by half-step; half-step 0 is the start.
CurvePicture::Series trace_series(std::string name, SeriesRole role, const Decomposition& result);

/// Least error of a trace; 1 without one.
double least_error(const Decomposition& result);

} // namespace rankscope
