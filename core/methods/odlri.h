// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

const Method& odlri_method(); ///< CALDERA started from the outlier channels

} // namespace rankscope
