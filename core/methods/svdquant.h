// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

/// SVDQuant (arXiv 2411.05007).
const Method& svdquant_method();

} // namespace rankscope
