// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

const Method& svd_residual_method(); ///< rounding, then the best low-rank correction of its error

} // namespace rankscope
