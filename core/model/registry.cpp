// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/architectures.h"

#include <algorithm>
#include <array>

namespace rankscope {
namespace {

const auto& all_architectures()
{
    static const std::array k_all = {
        detail::make_llama(),       detail::make_mistral(),  detail::make_qwen2(),
        detail::make_qwen3(),       detail::make_phi3(),     detail::make_gpt2(),
        detail::make_opt(),         detail::make_gpt_neox(), detail::make_gemma2(),
        detail::make_gemma3_text(), detail::make_mixtral(),  detail::make_qwen2_moe(),
        detail::make_qwen3_moe(),
    };
    return k_all;
}

} // namespace

namespace detail {

std::shared_ptr<const Architecture> find_architecture(std::string_view model_type)
{
    const auto& all = all_architectures();
    const auto found = std::find_if(
        all.begin(), all.end(), [&](const auto& architecture) { return architecture->id() == model_type; });
    return found == all.end() ? nullptr : *found;
}

Error unknown_architecture(std::string_view model_type)
{
    std::string known;
    for (const std::string_view id : known_architectures())
        known += (known.empty() ? "" : ", ") + std::string(id);
    return bad_input("the architecture \"" + std::string(model_type.substr(0, 80))
                         + "\" is not known; known: " + known,
                     "model_type", "Open a model of one of these families");
}

} // namespace detail

std::vector<std::string_view> known_architectures()
{
    std::vector<std::string_view> ids;
    for (const auto& architecture : all_architectures())
        ids.push_back(architecture->id());
    return ids;
}

Result<std::shared_ptr<const Architecture>> architecture_for(const ModelConfig& config)
{
    auto architecture = detail::find_architecture(config.model_type);
    if (!architecture)
        return detail::unknown_architecture(config.model_type);
    if (auto accepted = architecture->accepts(config); !accepted)
        return accepted.error();
    return architecture;
}

} // namespace rankscope
