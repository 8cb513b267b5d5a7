// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/tensor/matrix.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace rankscope {

/// What config.json says, in one spelling (formats.md §1: both the transformers 4 and 5 keys are read).
struct ModelConfig {
    std::string model_type;       ///< "llama"
    Index vocabulary = 0;
    Index hidden = 0;
    Index intermediate = 0;
    Index blocks = 0;
    Index heads = 0;
    Index kv_heads = 0;
    Index head_dim = 0;
    Index max_positions = 0;
    double norm_epsilon = 1e-5;
    double rope_theta = 10000.0;
    Json rope_scaling;            ///< null, or the object as it stands
    Index original_positions = 0; ///< the context before it was stretched; 0: not said outside rope_scaling
    std::string activation = "silu";
    bool tied_embeddings = false;
    bool attention_bias = false;
    bool mlp_bias = false;
    Index sliding_window = 0;     ///< 0 = none
    std::vector<bool> slides;     ///< "layer_types": whether a block has the window; empty: the family's own rule
    double local_rope_theta = 0;  ///< of sliding blocks; 0: as the others
    Json local_rope_scaling;
    double rotary_share = 1.0;    ///< how much of a head is turned
    double query_scale = 0;       ///< attention scores are divided by its root; 0: head_dim
    double score_cap = 0;         ///< soft caps of attention scores and logits; 0: none
    double logit_cap = 0;
    Index experts = 0;
    Index experts_per_token = 0;
    Index expert_intermediate = 0; ///< width of one expert
    Index shared_intermediate = 0; ///< of the expert that all tokens pass; 0: there is none
    bool routes_normalized = true; ///< the chosen experts' weights are scaled to sum to 1
    std::vector<bool> dense;       ///< whether a block has one MLP in place of experts; empty: no block has
    std::string dtype;            ///< as written, may be empty
    Json raw;                     ///< the whole config.json

    /// Reads and checks FOLDER/config.json. Errors: BadInput naming the key.
    static Result<ModelConfig> read(const std::filesystem::path& config_file);
    /// The same file, not yet understood.
    static Result<Json> read_json(const std::filesystem::path& config_file);
    static Result<ModelConfig> parse(const Json& config);
};

} // namespace rankscope
