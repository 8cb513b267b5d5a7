// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string_view>

namespace rankscope {

/// load_qlr.py: rebuilds a transformers model from an hf-qlr folder with torch, safetensors and transformers
/// alone. Under the MIT licence, so that it can travel with the weights.
std::string_view qlr_loader_source();

} // namespace rankscope
