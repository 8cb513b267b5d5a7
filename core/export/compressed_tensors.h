// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// Q as packed integers in the layout of compressed-tensors (pack-quantized, formats.md §5), which
/// transformers and vLLM load, and a PEFT adapter of L and R beside it.
const Exporter& compressed_tensors_exporter();

} // namespace rankscope
