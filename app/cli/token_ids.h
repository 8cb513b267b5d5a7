// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/tokenizer.h"

#include <string_view>
#include <vector>

namespace rankscope::cli {

/// Token ids from a text: a JSON list, an object with such a list as "ids", or whole numbers separated by
/// spaces, commas or line ends. Errors: BadInput naming the piece that is no id.
Result<std::vector<TokenId>> parse_ids(std::string_view text);

} // namespace rankscope::cli
