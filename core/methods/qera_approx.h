// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

const Method& qera_approx_method(); ///< SVD correction scaled by root-mean-square activations

} // namespace rankscope
