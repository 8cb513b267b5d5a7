// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

namespace rankscope {

/// What shapes or precisions of an attention's inputs do not belong together; null when all do. Every backend
/// asks.
const char* attention_misfit(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape);

} // namespace rankscope
