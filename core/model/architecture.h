// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"
#include "core/compute/backend.h"
#include "core/model/model_config.h"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

/// QueryKeyValue and GateUp are fused: one matrix whose rows are those of the parts.
/// Other: a matrix of a family that nobody has described.
enum class LinearRole : std::uint8_t { Query, Key, Value, QueryKeyValue, Output, Gate, Up, GateUp, Down, Other };
/// "q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "other": the short names of the views and filters.
std::string_view short_name(LinearRole role);

/// One weight matrix that a method may decompose.
struct LinearLayer {
    std::string name;        ///< tensor name without ".weight": "model.layers.3.mlp.down_proj"
    int block = 0;
    LinearRole role = LinearRole::Query;
    Index out = 0;
    Index in = 0;
    std::string input_group; ///< layers with the same group read the same activations (q/k/v, gate/up) and share moments:
                             ///< the name of the group's first layer
    int expert = -1;         ///< its number among a block's experts; -1 where every token passes
    bool transposed = false; ///< stored as in × out (GPT-2's Conv1D): Model::weight turns it, exports turn it back

    std::string weight() const { return name + ".weight"; }
    std::string bias() const { return name + ".bias"; } ///< may be absent from the checkpoint
};

enum class NormKind : std::uint8_t {
    RootMeanSquare,
    RootMeanSquareFromOne, ///< the stored gain is the difference from 1 (Gemma)
    MeanVariance,          ///< LayerNorm; a bias stands beside the gain
};

/// Names of a block's tensors that are not linears; empty where a family has none.
struct BlockNames {
    std::string attention_norm;
    std::string mlp_norm;
    std::string attention_result_norm = {}; ///< before the residual sum (Gemma)
    std::string mlp_result_norm = {};
    std::string query_norm = {}; ///< of each head, before the rotation (Qwen 3, Gemma 3)
    std::string key_norm = {};
    std::string router = {};     ///< experts × hidden; empty: the block has one MLP for all tokens
    std::string shared_gate = {}; ///< 1 × hidden: how much the expert of all tokens counts (Qwen 2 MoE)
};

/// How heads are turned by position (RoPE): pairs (i, i + turned / 2), by position · frequency.
struct Rotation {
    std::vector<double> frequencies;     ///< scaling applied; empty with learned positions
    std::vector<double> far_frequencies; ///< of sequences longer than `reach` (LongRoPE); empty: the same
    Index reach = 0;
    double magnitude = 1.0; ///< multiplies cosine and sine (YaRN, LongRoPE)

    const std::vector<double>& of_length(Index sequence_length) const
    {
        return far_frequencies.empty() || sequence_length <= reach ? frequencies : far_frequencies;
    }
};

/// What differs between blocks of families beside names and shapes.
struct BlockTraits {
    Activation activation = Activation::Silu;
    bool parallel_residual = false; ///< attention and MLP read the same hidden state
    bool rows_by_head = false;      ///< a fused matrix holds q, k, v of head 0, then of head 1 …; else q, k, v as wholes
    double attention_scale = 1.0;   ///< multiplies q·k
    Index window = 0;               ///< 0: all tokens before it
};

/// Spellings of config.json and what an absent key means. A null spelling: the family has no such key.
struct ConfigKeys {
    const char* hidden = "hidden_size";
    const char* intermediate = "intermediate_size";
    const char* blocks = "num_hidden_layers";
    const char* heads = "num_attention_heads";
    const char* kv_heads = "num_key_value_heads";
    const char* positions = "max_position_embeddings";
    const char* epsilon = "rms_norm_eps";
    const char* activation = "hidden_act";
    const char* attention_bias = "attention_bias";
    const char* mlp_bias = "mlp_bias";
    const char* rope_theta = "rope_theta";
    const char* rotary_share = "partial_rotary_factor";
    const char* experts = nullptr;
    const char* experts_per_token = nullptr;
    const char* expert_width = nullptr;   ///< null: experts are as wide as `intermediate` says
    const char* shared_width = nullptr;   ///< of the expert of all tokens
    const char* routes_normalized = nullptr; ///< null: the chosen experts' weights sum to 1
    const char* sparse_step = nullptr;    ///< every n-th block has experts …
    const char* dense_blocks = nullptr;   ///< … but not those of this list
    const char* query_scale = nullptr;
    const char* score_cap = nullptr;
    const char* logit_cap = nullptr;
    bool layer_types = false;    ///< "layer_types" and a rotation for each type are understood
    bool window_is_switched = false; ///< "sliding_window" counts only with "use_sliding_window"

    std::optional<Index> default_kv_heads = {}; ///< absent: as many as heads
    std::optional<Index> default_head_dim = {}; ///< absent: hidden / heads
    Index default_positions = 2048;
    Index default_window = 0;
    Index intermediate_factor = 0; ///< absent width of the MLP in hidden sizes; 0: the key must be there
    double default_epsilon = 1e-6;
    double default_rope_theta = 10000.0;
    double default_local_rope_theta = 0.0; ///< of sliding blocks; 0: as the others
    double default_rotary_share = 1.0;
    double default_query_scale = 256.0;
    double default_score_cap = 0.0;
    double default_logit_cap = 0.0;
    const char* default_activation = "silu";
    bool default_tied = false;
    bool default_bias = false;
    bool rotary = true; ///< false: learned positions
};

/// One model family: the only code that knows tensor names. Const and shared.
class Architecture {
public:
    virtual ~Architecture() = default;

    virtual std::string_view id() const = 0;    ///< "llama"
    virtual std::string_view title() const = 0; ///< "Llama"
    /// All linears in order of execution, with shapes taken from the config.
    virtual std::vector<LinearLayer> linears(const ModelConfig& config) const = 0;
    virtual BlockNames block_names(const ModelConfig& config, int block) const = 0;
    virtual std::string embedding() const = 0;
    virtual std::string final_norm() const = 0;
    virtual std::string head() const = 0;       ///< absent from the checkpoint when tied
    virtual std::string positions() const = 0;  ///< learned positions; empty: none
    virtual Index first_position() const = 0;   ///< the row of `positions` for the first token
    virtual NormKind norm_kind() const = 0;
    virtual const ConfigKeys& config_keys() const = 0;
    virtual BlockTraits block_traits(const ModelConfig& config, int block) const = 0;
    virtual double embedding_scale(const ModelConfig& config) const = 0;
    /// Whether the linears of this role add a bias; their checkpoints must then hold one, and otherwise none.
    virtual bool has_bias(const ModelConfig& config, LinearRole role) const = 0;
    /// Refuses configurations whose forward pass would differ from ours, naming the key.
    virtual Status accepts(const ModelConfig& config) const = 0;
    /// Errors: BadInput naming the key (kind of scaling not known, numbers that do not fit).
    virtual Result<Rotation> rotation(const ModelConfig& config, int block = 0) const = 0;
    /// The same family as this checkpoint writes it, where it leaves out the prefix of the model inside ("h.0" for
    /// "transformer.h.0") or stores matrices as out × in that others store turned; null where all is as usual.
    virtual std::shared_ptr<const Architecture> fitted_to(const CheckpointReader& reader) const = 0;

    /// Why no text can flow through the model, which is said of families that nobody has described: their weights can
    /// still be looked at and rounded.
    virtual Status runs() const { return {}; }

    /// Checks that the checkpoint holds every tensor with the expected shape and reports any unknown one. Buffers
    /// that old checkpoints store (inv_freq, masks) and the spare head of tied embeddings are passed over.
    Status check(const ModelConfig& config, const CheckpointReader& reader) const;
};

/// "….norm.bias" for "….norm.weight".
std::string norm_bias(std::string_view gain);

/// The architecture for config.model_type, or BadInput with the known ones listed.
Result<std::shared_ptr<const Architecture>> architecture_for(const ModelConfig& config);
std::vector<std::string_view> known_architectures();

} // namespace rankscope
