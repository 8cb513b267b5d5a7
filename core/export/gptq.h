// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// Q as packed integers in the layout of GPTQ checkpoints (formats.md §6): version 1 for symmetric grids,
/// version 2 otherwise; and a PEFT adapter of L and R beside it.
const Exporter& gptq_exporter();

} // namespace rankscope
