// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope::examples {

const Method& mean_split_method(); ///< row means in a rank-one L·R, the centered rest rounded

} // namespace rankscope::examples
