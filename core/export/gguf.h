// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// One file that llama.cpp runs by itself: layers without L·R in the block format that holds their Q, the
/// others as dense Q + L·R (formats.md §2).
const Exporter& gguf_exporter();

} // namespace rankscope
