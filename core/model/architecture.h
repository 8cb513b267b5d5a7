// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"
#include "core/model/model_config.h"

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

enum class LinearRole : std::uint8_t { Query, Key, Value, Output, Gate, Up, Down };
/// "q", "k", "v", "o", "gate", "up", "down": the short names of the views and filters.
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

    std::string weight() const { return name + ".weight"; }
    std::string bias() const { return name + ".bias"; } ///< may be absent from the checkpoint
};

/// Names of a block's tensors that are not linears.
struct BlockNames {
    std::string attention_norm;
    std::string mlp_norm;
};

/// One model family: the only code that knows tensor names. Const and shared.
class Architecture {
public:
    virtual ~Architecture() = default;

    virtual std::string_view id() const = 0;    ///< "llama"
    virtual std::string_view title() const = 0; ///< "Llama"
    /// All linears in order of execution, with shapes taken from the config.
    virtual std::vector<LinearLayer> linears(const ModelConfig& config) const = 0;
    virtual BlockNames block_names(int block) const = 0;
    virtual std::string embedding() const = 0;
    virtual std::string final_norm() const = 0;
    virtual std::string head() const = 0;       ///< absent from the checkpoint when tied
    /// Whether the linears of this role add a bias; their checkpoints must then hold one, and otherwise none.
    virtual bool has_bias(const ModelConfig& config, LinearRole role) const = 0;
    /// Refuses configurations whose forward pass would differ from ours, naming the key.
    virtual Status accepts(const ModelConfig& config) const = 0;
    /// RoPE's inverse frequencies (head_dim / 2), scaling applied. Errors: BadInput (unknown kind).
    virtual Result<std::vector<double>> rope_frequencies(const ModelConfig& config) const = 0;

    /// Checks that the checkpoint holds every tensor with the expected shape and reports any unknown one. Buffers
    /// that old checkpoints store (*.rotary_emb.inv_freq) and the spare head of tied embeddings are passed over.
    Status check(const ModelConfig& config, const CheckpointReader& reader) const;
};

/// The architecture for config.model_type, or BadInput with the known ones listed.
Result<std::shared_ptr<const Architecture>> architecture_for(const ModelConfig& config);
std::vector<std::string_view> known_architectures();

} // namespace rankscope
