// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/detail/gguf_family.h"
#include "core/model/gguf_form.h"

namespace rankscope::detail {

/// The model's metadata (general.* and the architecture's) and factors of its rotary frequencies. Errors:
/// Usage for what llama.cpp's files cannot say.
Status add_gguf_keys(const Model& model, const GgufFamily& family, GgufForm& form);

} // namespace rankscope::detail
