// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/model/detail/normalizer.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope::detail {

/// The decoder of a tokenizer.json: steps from token texts to text.
class Decoder {
public:
    /// Null joins the tokens with spaces. Known: ByteLevel, Replace (of a fixed text), ByteFallback, Fuse,
    /// Strip, Metaspace, Sequence. Errors: BadInput naming the type.
    static Result<Decoder> parse(const Json& json);

    std::string apply(std::vector<std::string> tokens) const;

private:
    Status add(const Json& json);
    Status add_strip(const Json& json);

    std::vector<std::function<void(std::vector<std::string>&)>> steps_;
    Growth growth_;
    bool absent_ = false;
};

} // namespace rankscope::detail
