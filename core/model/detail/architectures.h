// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/error.h"
#include "core/model/architecture.h"

#include <memory>
#include <string_view>

namespace rankscope::detail {

/// One function a family; a new one adds its line here and its row in registry.cpp.
std::shared_ptr<const Architecture> make_llama();
std::shared_ptr<const Architecture> make_mistral();
std::shared_ptr<const Architecture> make_qwen2();
std::shared_ptr<const Architecture> make_qwen3();
std::shared_ptr<const Architecture> make_qwen2_moe();
std::shared_ptr<const Architecture> make_qwen3_moe();
std::shared_ptr<const Architecture> make_phi3();
std::shared_ptr<const Architecture> make_gpt2();
std::shared_ptr<const Architecture> make_opt();
std::shared_ptr<const Architecture> make_gpt_neox();
std::shared_ptr<const Architecture> make_gemma2();
std::shared_ptr<const Architecture> make_gemma3_text();
std::shared_ptr<const Architecture> make_mixtral();

/// A family that nobody has described: every matrix of the checkpoint that is no table is a layer with the role Other.
std::shared_ptr<const Architecture> make_unknown(std::string_view model_type, const CheckpointReader& reader);

/// Null when the model_type is not known.
std::shared_ptr<const Architecture> find_architecture(std::string_view model_type);
/// BadInput that lists the known ones.
Error unknown_architecture(std::string_view model_type);

} // namespace rankscope::detail
