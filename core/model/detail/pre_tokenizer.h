// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/model/detail/normalizer.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope::detail {

/// Pieces of one stretch of text; merges never cross their borders.
struct Pieces {
    std::vector<std::string> texts;
    bool at_text_start = false; ///< the first piece stands at the very front of what is encoded
};

/// The pre-tokenizer of a tokenizer.json: steps that cut pieces further and rewrite them.
class PreTokenizer {
public:
    /// Null means none. Known: ByteLevel, Split, Digits, Metaspace, Sequence. Errors: BadInput naming the
    /// type.
    static Result<PreTokenizer> parse(const Json& json);

    /// Errors: BadInput when a pattern gives up on the text.
    Status apply(Pieces& pieces) const;

private:
    using Step = std::function<Status(Pieces&)>;
    Status add(const Json& json);
    Status add_byte_level(const Json& json);
    Status add_split(const Json& json);
    Status add_metaspace(const Json& json);

    std::vector<Step> steps_;
    Growth growth_;
};

} // namespace rankscope::detail
