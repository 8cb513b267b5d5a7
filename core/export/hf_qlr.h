// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// A folder that keeps Q packed beside L and R, with a Python loader for transformers (formats.md).
const Exporter& hf_qlr_exporter();

} // namespace rankscope
