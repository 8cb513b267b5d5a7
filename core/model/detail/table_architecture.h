// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/architecture.h"

#include <string>
#include <string_view>
#include <vector>

namespace rankscope::detail {

/// Whether a linear adds a bias: never, always, or as one of the two flags of config.json says.
enum class BiasRule : std::uint8_t { Never, Always, AttentionFlag, MlpFlag };

/// One linear of a block. Its shape follows from the role.
struct LinearRow {
    LinearRole role = LinearRole::Query;
    std::string_view name; ///< after the block's prefix; of an expert: after its number
    BiasRule bias = BiasRule::Never;
};

/// A key of config.json with the only value whose forward pass is ours; absent is fine.
struct FixedKey {
    const char* key;
    bool value;
};

/// All that a family is: names, spellings, what differs in a block.
struct FamilyTable {
    std::string_view id;
    std::string_view title;
    std::string_view prefix; ///< of everything but the head; bare checkpoints leave it out
    std::string_view layers; ///< before a block's number: "layers."
    std::string_view embedding;
    std::string_view positions = {}; ///< learned positions
    Index first_position = 0;
    std::string_view final_norm;
    std::string_view head = "lm_head.weight";
    BlockNames norms; ///< after the block's prefix
    NormKind norm = NormKind::RootMeanSquare;
    std::vector<LinearRow> linears;      ///< of a block, in order of execution
    std::string_view experts = {};       ///< before an expert's number: "block_sparse_moe.experts."
    std::string_view shared_expert = {}; ///< before the names of the expert that all tokens pass
    std::string_view dense_mlp = {};     ///< before the names of the MLP of blocks without experts
    bool transposed = false;
    bool rows_by_head = false;
    bool window = false; ///< a sliding window is known
    bool partial_rotary = false;
    std::vector<std::string_view> activations = {"silu", "swish"};
    std::vector<FixedKey> fixed = {};
    ConfigKeys keys = {};
};

/// A family that is its table. What a table cannot say a derived class overrides.
class TableArchitecture : public Architecture {
public:
    explicit TableArchitecture(FamilyTable table) : table_(std::move(table)), prefix_(table_.prefix) {}

    std::string_view id() const override { return table_.id; }
    std::string_view title() const override { return table_.title; }
    const ConfigKeys& config_keys() const override { return table_.keys; }
    NormKind norm_kind() const override { return table_.norm; }
    Index first_position() const override { return table_.first_position; }
    double embedding_scale(const ModelConfig&) const override { return 1.0; }

    std::vector<LinearLayer> linears(const ModelConfig& config) const override;
    BlockNames block_names(const ModelConfig& config, int block) const override;
    std::string embedding() const override { return prefix_ + std::string(table_.embedding); }
    std::string positions() const override;
    std::string final_norm() const override { return prefix_ + std::string(table_.final_norm); }
    std::string head() const override { return std::string(table_.head); }
    bool has_bias(const ModelConfig& config, LinearRole role) const override;
    Status accepts(const ModelConfig& config) const override;
    BlockTraits block_traits(const ModelConfig& config, int block) const override;
    Result<Rotation> rotation(const ModelConfig& config, int block = 0) const override;
    std::shared_ptr<const Architecture> fitted_to(const CheckpointReader& reader) const override;

protected:
    /// The same family without the prefix.
    virtual std::shared_ptr<TableArchitecture> clone() const
    {
        return std::make_shared<TableArchitecture>(*this);
    }
    /// Whether the block has the sliding window where config.json has no layer_types.
    virtual bool slides_by_rule(const ModelConfig&, int) const { return true; }

private:
    bool slides(const ModelConfig& config, int block) const;
    bool has_experts(const ModelConfig& config, int block) const;
    std::string block_prefix(int block) const;
    bool stores_inputs_first(const CheckpointReader& reader, const std::string& prefix) const;
    Status accepts_rotation(const ModelConfig& config) const;

    FamilyTable table_;
    std::string prefix_;
};

/// The table of Llama, from which many families differ in little.
FamilyTable llama_table();

} // namespace rankscope::detail
