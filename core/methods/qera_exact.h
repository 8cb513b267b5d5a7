// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

const Method& qera_exact_method(); ///< the correction of least output error

} // namespace rankscope
