// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

/// Low-rank correction of quantized activations (arXiv 2412.07902).
const Method& lrc_method();

} // namespace rankscope
