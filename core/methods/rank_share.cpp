// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/rank_share.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace rankscope {

Result<ParameterValue> resolved_rank(const ParameterValue& value, Index out, Index in)
{
    const auto* text = std::get_if<std::string>(&value);
    if (!text || !text->ends_with('%'))
        return value;
    double share = -1.0;
    const char* end = text->data() + text->size() - 1;
    const auto [stop, problem] = std::from_chars(text->data(), end, share);
    if (problem != std::errc{} || stop != end || !(share >= 0.0 && share <= 100.0))
        return usage_error(fmt::format("rank {} is no share between 0% and 100%", *text), {},
                           "Write a share of the matrix's smaller side such as 10%, or a whole number");
    const double smaller = static_cast<double>(std::min(out, in));
    return ParameterValue(static_cast<std::int64_t>(std::nearbyint(share / 100.0 * smaller)));
}

} // namespace rankscope
