// SPDX-License-Identifier: GPL-3.0-or-later
// Rotary positions and the ways to stretch them over a longer context: position interpolation
// (arXiv 2306.15595), Llama 3.1's blend, YaRN (arXiv 2309.00071), LongRoPE (arXiv 2402.13753), each as
// transformers computes it.
#include "core/model/detail/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>

namespace rankscope::detail {
namespace {

using Frequencies = std::vector<double>;

/// One rope_scaling object and what it refers to.
struct Scaling {
    const ModelConfig& config;
    const Json& keys;
    Index turned;
    double theta;

    /// A positive number; absent: `fallback`, or an error where there is none.
    Result<double> number(const char* key, std::optional<double> fallback = {}) const
    {
        const Json& value = keys[key];
        if (value.is_null() && fallback)
            return *fallback;
        if (!value.is_number() || !(value.number() > 0.0) || !std::isfinite(value.number()))
            return bad_input("a positive number was expected", "key rope_scaling." + std::string(key));
        return value.number();
    }

    /// The context that the model knew before: beside the scaling (Phi 3) before inside it.
    Result<double> original_positions() const
    {
        if (config.original_positions > 0)
            return static_cast<double>(config.original_positions);
        return number("original_max_position_embeddings", static_cast<double>(config.max_positions));
    }
};

Frequencies unscaled(Index turned, double theta)
{
    Frequencies frequencies;
    for (Index i = 0; i < turned / 2; ++i)
        frequencies.push_back(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(turned)));
    return frequencies;
}

Status scale_linear(const Scaling& scaling, Rotation& rotation)
{
    const auto factor = scaling.number("factor");
    if (!factor)
        return factor.error();
    for (double& frequency : rotation.frequencies)
        frequency /= *factor;
    return {};
}

/// The base grows with sequences beyond max_position_embeddings, which are refused everywhere here: within it
/// nothing changes.
Status scale_dynamic(const Scaling& scaling, Rotation&)
{
    const auto factor = scaling.number("factor");
    return factor ? Status{} : factor.error();
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones stay, those between are blended.
Status scale_llama3(const Scaling& scaling, Rotation& rotation)
{
    const auto factor = scaling.number("factor");
    const auto low = scaling.number("low_freq_factor");
    const auto high = scaling.number("high_freq_factor");
    const auto original = scaling.original_positions();
    for (const auto* value : {&factor, &low, &high, &original}) {
        if (!*value)
            return value->error();
    }
    if (*high <= *low)
        return bad_input("it must be larger than low_freq_factor", "key rope_scaling.high_freq_factor");
    for (double& frequency : rotation.frequencies) {
        const double turns = *original * frequency / (2.0 * std::numbers::pi); // within the original context
        const double kept = turns < *low ? 0.0 : turns > *high ? 1.0 : (turns - *low) / (*high - *low);
        frequency = (1.0 - kept) * frequency / *factor + kept * frequency;
    }
    return {};
}

/// YaRN's factor of cosine and sine (equation 22): given, or of the two mscales, or 0.1·ln(factor) + 1.
Result<double> yarn_magnitude(const Scaling& scaling, double factor)
{
    const auto of = [factor](double mscale) {
        return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
    };
    if (!scaling.keys["attention_factor"].is_null())
        return scaling.number("attention_factor");
    const double mscale = scaling.keys["mscale"].number();
    const double all = scaling.keys["mscale_all_dim"].number();
    if (mscale > 0.0 && all > 0.0)
        return of(mscale) / of(all);
    return of(1.0);
}

/// Pairs that turn more than beta_fast times within the original context keep their frequency, those that
/// turn less than beta_slow times are interpolated, between them the share falls linearly with the pair's
/// number.
Status scale_yarn(const Scaling& scaling, Rotation& rotation)
{
    const auto original = scaling.original_positions();
    if (!original)
        return original.error();
    const auto factor =
        scaling.number("factor", static_cast<double>(scaling.config.max_positions) / *original);
    const auto fast = scaling.number("beta_fast", 32.0);
    const auto slow = scaling.number("beta_slow", 1.0);
    for (const auto* value : {&factor, &fast, &slow}) {
        if (!*value)
            return value->error();
    }
    const auto magnitude = yarn_magnitude(scaling, *factor);
    if (!magnitude)
        return magnitude.error();
    if (scaling.theta <= 1.0)
        return bad_input("it must be larger than 1 for YaRN", "key rope_theta");
    const auto turned = static_cast<double>(scaling.turned);
    const auto pair_of = [&](double turns) {
        return turned * std::log(*original / (turns * 2.0 * std::numbers::pi))
               / (2.0 * std::log(scaling.theta));
    };
    double first = pair_of(*fast);
    double last = pair_of(*slow);
    if (scaling.keys["truncate"].boolean(true)) {
        first = std::floor(first);
        last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, turned - 1.0);
    if (first == last)
        last += 0.001;
    for (std::size_t i = 0; i < rotation.frequencies.size(); ++i) {
        const double share = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
        rotation.frequencies[i] *= share / *factor + (1.0 - share);
    }
    rotation.magnitude = *magnitude;
    return {};
}

Result<Frequencies> divided_by(const Scaling& scaling, const char* key, Frequencies frequencies)
{
    const auto* list = scaling.keys[key].array_if();
    const std::string where = "key rope_scaling." + std::string(key);
    if (!list || list->size() != frequencies.size())
        return bad_input("a list of " + std::to_string(frequencies.size()) + " numbers was expected", where);
    for (std::size_t i = 0; i < list->size(); ++i) {
        const double divisor = (*list)[i].number();
        if (!(divisor > 0.0) || !std::isfinite(divisor))
            return bad_input("entry " + std::to_string(i) + " is no positive number", where);
        frequencies[i] /= divisor;
    }
    return frequencies;
}

/// A divisor for each pair; other ones for sequences longer than the original context.
Status scale_longrope(const Scaling& scaling, Rotation& rotation)
{
    const auto original = scaling.original_positions();
    if (!original)
        return original.error();
    const auto factor =
        scaling.number("factor", static_cast<double>(scaling.config.max_positions) / *original);
    if (!factor)
        return factor.error();
    auto near = divided_by(scaling, "short_factor", rotation.frequencies);
    if (!near)
        return near.error();
    auto far = divided_by(scaling, "long_factor", rotation.frequencies);
    if (!far)
        return far.error();
    const double usual =
        *factor > 1.0 && *original > 1.0 ? std::sqrt(1.0 + std::log(*factor) / std::log(*original)) : 1.0;
    const auto magnitude = scaling.number("attention_factor", usual);
    if (!magnitude)
        return magnitude.error();
    rotation.frequencies = std::move(*near);
    rotation.far_frequencies = std::move(*far);
    rotation.reach = static_cast<Index>(std::min(*original, 1e9));
    rotation.magnitude = *magnitude;
    return {};
}

Status scale_nothing(const Scaling&, Rotation&) { return {}; }

struct Kind {
    std::string_view name;
    Status (*scale)(const Scaling&, Rotation&);
};
constexpr std::array k_kinds = {
    Kind{"default", scale_nothing}, Kind{"linear", scale_linear}, Kind{"dynamic", scale_dynamic},
    Kind{"llama3", scale_llama3},   Kind{"yarn", scale_yarn},     Kind{"longrope", scale_longrope},
    Kind{"su", scale_longrope}, // the first name of longrope
};

} // namespace

Result<Rotation> rotation_of(const ModelConfig& config, Index turned, double theta, const Json& scaling)
{
    Rotation rotation;
    rotation.frequencies = unscaled(turned, theta);
    const Json& kind = scaling.find("rope_type") ? scaling["rope_type"] : scaling["type"];
    const std::string name = kind.string("default");
    const auto known = std::find_if(k_kinds.begin(), k_kinds.end(),
                                    [&](const Kind& candidate) { return candidate.name == name; });
    if (known == k_kinds.end() || !(kind.is_null() || kind.is_string()))
        return bad_input("the kind \"" + name.substr(0, 80)
                             + "\" is not known; known: default, linear, dynamic, llama3, yarn, longrope",
                         "key rope_scaling");
    if (auto scaled = known->scale({config, scaling, turned, theta}, rotation); !scaled)
        return scaled.error();
    return rotation;
}

} // namespace rankscope::detail
