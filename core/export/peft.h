// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// A Hugging Face folder whose layers hold Q, and beside it a PEFT LoRA adapter that holds L and R
/// (formats.md §4).
const Exporter& peft_exporter();

} // namespace rankscope
