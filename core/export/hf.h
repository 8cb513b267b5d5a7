// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// A Hugging Face folder of dense weights: each layer of the run as Q + L·R in the checkpoint's own type,
/// everything else byte for byte (formats.md).
const Exporter& hf_exporter();

} // namespace rankscope
