// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/token_windows.h"
#include "core/model/model.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rankscope {

/// A stretch of a text file: the tokenizer's prefix and as many tokens as there are, at most `length` in all.
struct TokenStretch {
    std::string file;      ///< name only
    std::string hash;      ///< SHA-256 of the file
    Index file_tokens = 0; ///< of the whole text
    Index first = 0;       ///< token of the text that follows the prefix
    std::vector<TokenId> tokens;
};
/// Stretch number `window` of stretches that follow each other. Errors: those of tokenize_file and
/// window_length; Usage when the text is over before it begins.
Result<TokenStretch> token_stretch(const Model& model, const std::filesystem::path& text, Index length,
                                   Index window);

/// What a token says: its bytes as text, a leading space where it has one; as stored where that is not UTF-8.
std::string readable_token(const Tokenizer& tokenizer, TokenId id);

struct TokenEntry {
    Index token = 0; ///< row of the values
    Index channel = 0;
    double value = 0.0;
};

/// The input of one layer, token by token.
struct TokenActivations {
    TokenStretch stretch;
    std::vector<std::string> texts;    ///< of the rows
    std::vector<Index> positions;      ///< of the rows in the stretch: all of them but for experts
    Matrix values;                     ///< tokens × channels
    std::vector<TokenEntry> strongest; ///< of each token the largest |x|, falling; some of them
    double median_abs = 0.0;           ///< of the values
    /// Massive activations in what the layer's block adds up to; token: position in the stretch.
    std::vector<TokenEntry> massive;
};

/// Sends the stretch through the blocks up to the layer's, one block's weights at a time. Errors: the model
/// does not run (Architecture::runs), those of the weights. Throws Cancelled, BackendFailure.
Result<TokenActivations> token_activations(const Model& model, const WeightSource& weights,
                                           const LinearLayer& layer, TokenStretch stretch, Backend& backend,
                                           Monitor& monitor);

} // namespace rankscope
