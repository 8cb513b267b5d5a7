// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/rope.h"

#include <cmath>
#include <numbers>

namespace rankscope::detail {
namespace {

Result<double> scaling_number(const Json& scaling, const char* key)
{
    const Json& value = scaling[key];
    if (!value.is_number() || !(value.number() > 0.0) || !std::isfinite(value.number()))
        return bad_input("a positive number was expected", "key rope_scaling." + std::string(key));
    return value.number();
}

Status scale_linear(const Json& scaling, std::vector<double>& frequencies)
{
    const auto factor = scaling_number(scaling, "factor");
    if (!factor)
        return factor.error();
    for (double& frequency : frequencies)
        frequency /= *factor;
    return {};
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones stay, those between are blended.
Status scale_llama3(const Json& scaling, std::vector<double>& frequencies)
{
    const auto factor = scaling_number(scaling, "factor");
    const auto low = scaling_number(scaling, "low_freq_factor");
    const auto high = scaling_number(scaling, "high_freq_factor");
    const auto original = scaling_number(scaling, "original_max_position_embeddings");
    for (const auto* value : {&factor, &low, &high, &original}) {
        if (!*value)
            return value->error();
    }
    if (*high <= *low)
        return bad_input("it must be larger than low_freq_factor", "key rope_scaling.high_freq_factor");
    for (double& frequency : frequencies) {
        const double turns = *original * frequency / (2.0 * std::numbers::pi); // within the original context
        const double kept = turns < *low ? 0.0 : turns > *high ? 1.0 : (turns - *low) / (*high - *low);
        frequency = (1.0 - kept) * frequency / *factor + kept * frequency;
    }
    return {};
}

} // namespace

Result<std::vector<double>> rope_frequencies(Index turned, double theta, const Json& scaling)
{
    std::vector<double> frequencies;
    for (Index i = 0; i < turned / 2; ++i)
        frequencies.push_back(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(turned)));
    const Json& kind = scaling.find("rope_type") ? scaling["rope_type"] : scaling["type"];
    const std::string name = kind.string("default");
    Status scaled;
    if (name == "linear")
        scaled = scale_linear(scaling, frequencies);
    else if (name == "llama3")
        scaled = scale_llama3(scaling, frequencies);
    else if (name != "default" || !(kind.is_null() || kind.is_string()))
        return bad_input("the kind \"" + name.substr(0, 80)
                             + "\" is not known; known: default, linear, llama3",
                         "key rope_scaling");
    if (!scaled)
        return scaled.error();
    return frequencies;
}

} // namespace rankscope::detail
