// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

namespace rankscope::detail {

// What attention's forward and backward passes on the CPU share.

/// Scores become weights that sum to 1; count ≥ 1.
void softmax(float* scores, Index count);
void softmax(double* scores, Index count);

/// Breaks the contract where shapes or precisions do not belong together.
void require_attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape);

} // namespace rankscope::detail
