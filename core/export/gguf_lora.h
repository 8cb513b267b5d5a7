// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// A base of Q in llama.cpp's block formats and a LoRA adapter of L and R for it (formats.md §2, §3).
const Exporter& gguf_lora_exporter();

} // namespace rankscope
