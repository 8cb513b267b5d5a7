// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope::examples {

/// Each layer's Q + L·R as a NumPy array, LAYER.npy.
const Exporter& npy_exporter();

} // namespace rankscope::examples
