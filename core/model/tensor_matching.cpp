// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/tensor_matching.h"

#include <algorithm>
#include <map>

namespace rankscope {
namespace {

/// What a tensor is called in every family: a place for linears, else its name.
std::map<std::string, std::string, std::less<>> keys_of(const Model& model)
{
    std::map<std::string, std::string, std::less<>> keys; // tensor → key
    for (const TensorInfo& info : model.checkpoint().tensors())
        keys.emplace(info.name, info.name);
    for (const LinearLayer& layer : model.linears()) {
        const auto weight = keys.find(layer.weight());
        if (layer.role == LinearRole::Other || weight == keys.end())
            continue;
        const std::string place = std::to_string(layer.block) + '\n' + std::string(short_name(layer.role))
                                  + '\n' + std::to_string(layer.expert) + '\n';
        weight->second = place + "weight";
        if (const auto bias = keys.find(layer.bias()); bias != keys.end())
            bias->second = place + "bias";
    }
    return keys;
}

} // namespace

std::string_view TensorMatching::partner(std::string_view first) const
{
    const auto found =
        std::find_if(pairs.begin(), pairs.end(), [first](const auto& pair) { return pair.first == first; });
    return found == pairs.end() ? std::string_view() : std::string_view(found->second);
}

TensorMatching match_tensors(const Model& first, const Model& second)
{
    const auto first_keys = keys_of(first);
    const auto second_keys = keys_of(second);
    std::map<std::string, std::string, std::less<>> by_key; // key → the second one's tensor
    for (const auto& [name, key] : second_keys)
        by_key.emplace(key, name);
    TensorMatching matching;
    for (const TensorInfo& info : first.checkpoint().tensors()) {
        const auto partner = by_key.find(first_keys.find(info.name)->second);
        if (partner == by_key.end()) {
            matching.only_first.push_back(info.name);
            continue;
        }
        matching.pairs.emplace_back(info.name, partner->second);
        by_key.erase(partner);
    }
    for (const TensorInfo& info : second.checkpoint().tensors())
        if (const auto left = by_key.find(second_keys.find(info.name)->second);
            left != by_key.end() && left->second == info.name)
            matching.only_second.push_back(info.name);
    return matching;
}

const LinearLayer* partner_layer(const TensorMatching& matching, const Model& second,
                                 const LinearLayer& layer)
{
    std::string_view tensor = matching.partner(layer.weight());
    constexpr std::string_view k_weight = ".weight";
    if (tensor.size() <= k_weight.size() || tensor.substr(tensor.size() - k_weight.size()) != k_weight)
        return nullptr;
    tensor.remove_suffix(k_weight.size());
    return second.find_linear(tensor);
}

} // namespace rankscope
