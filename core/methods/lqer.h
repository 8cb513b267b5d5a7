// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

const Method& lqer_method(); ///< SVD correction scaled by mean activations

} // namespace rankscope
