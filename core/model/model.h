// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/compute/activation_quantization.h"
#include "core/compute/backend.h"
#include "core/model/architecture.h"
#include "core/model/model_config.h"
#include "core/model/norm.h"
#include "core/model/rotated_checkpoint.h"
#include "core/model/tokenizer.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace rankscope {

/// A checkpoint understood: tensors, configuration, roles, tokenizer. Opening reads headers only. Const, shared.
class Model {
public:
    /// Opens a Hugging Face folder, a .safetensors file beside its config.json, a .gguf file, or the folder of a
    /// rotated model (rotated_checkpoint.h). A model of a family that is not known opens too, but does not run
    /// (Architecture::runs). Errors: BadInput, Io.
    static Result<std::shared_ptr<const Model>> open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    const CheckpointReader& checkpoint() const { return *reader_; }
    const ModelConfig& config() const { return config_; }
    const Architecture& architecture() const { return *architecture_; }
    const std::vector<LinearLayer>& linears() const { return linears_; }
    /// Null for a model as it is stored. Else checkpoint() hands out rotated tensors, and the forward pass turns
    /// the embedding and what o_proj and down_proj read.
    const RotationManifest* rotation() const { return rotation_ ? &*rotation_ : nullptr; }
    const LinearLayer* find_linear(std::string_view name) const;
    /// A layer's weight, out × in however it is stored. Errors: those of CheckpointReader::read.
    Result<Matrix> weight(const LinearLayer& layer) const;
    /// Errors: why there is no tokenizer (statistics of weights still work without one).
    Result<std::shared_ptr<const Tokenizer>> tokenizer() const;

private:
    Model() = default;
    static Result<std::shared_ptr<const Model>> open_rotated(const std::filesystem::path& folder);
    static Result<std::shared_ptr<Model>> open_stored(const std::filesystem::path& path);
    Status describe(); ///< config, architecture and tensors
    Status describe_gguf();
    Status describe_by(const std::filesystem::path& config_file);
    Status set_config(Result<ModelConfig> config, const std::filesystem::path& place);
    void describe_unknown();
    Result<std::shared_ptr<const Tokenizer>> read_tokenizer() const;

    std::filesystem::path path_;
    std::unique_ptr<CheckpointReader> reader_;
    ModelConfig config_;
    std::shared_ptr<const Architecture> architecture_;
    std::vector<LinearLayer> linears_;
    std::filesystem::path folder_;
    std::optional<RotationManifest> rotation_;
    mutable std::mutex tokenizer_mutex_; // a tokenizer of 100,000 tokens is read when first asked for
    mutable std::shared_ptr<const Tokenizer> tokenizer_;
};

/// A linear's weight as the forward pass applies it: y = Q_a(x)·Wᵀ + (x·Rᵀ)·Lᵀ + b. left/right are empty for a dense
/// one; Q_a(x) is x unless activations are quantized.
struct LinearWeight {
    Buffer weight; ///< out × in
    Buffer left;   ///< out × rank
    Buffer right;  ///< rank × in
    Buffer bias;   ///< 1 × out, or empty
    ActivationQuantization activations;
};

/// Where the forward pass takes linears from: the checkpoint itself, or a run that replaces some of them.
class WeightSource {
public:
    virtual ~WeightSource() = default;
    virtual Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const = 0;
    /// The same, its weight as Backend::prepare_weight makes it.
    virtual Result<LinearWeight> prepared_linear(const LinearLayer& layer, Backend& backend) const;
};

/// The weights as they are in the checkpoint.
std::unique_ptr<WeightSource> checkpoint_weights(std::shared_ptr<const Model> model);

/// The same weights, but every linear rounds its input like this, whatever the source says.
std::unique_ptr<WeightSource> with_quantized_activations(std::unique_ptr<WeightSource> weights,
                                                         const ActivationQuantization& activations);

/// Called with the input of each input group as a block is computed: x is tokens × in, `group` the group's name. Of an
/// expert, whose input are some tokens only, `rows` names them among the rows of the hidden state; elsewhere it is empty
/// and x holds them all.
using InputObserver =
    std::function<void(const std::string& group, const Buffer& x, std::span<const Index> rows)>;

/// One decoder block with its weights on a backend.
class TransformerBlock {
public:
    static Result<TransformerBlock> load(const Model& model, const WeightSource& weights, int block, Backend& backend);
    /// hidden: (sequences · sequence_length) × hidden_size, replaced by the block's output.
    void forward(Buffer& hidden, Index sequence_length, Backend& backend, const InputObserver& observer = {}) const;

private:
    struct Parts;
    explicit TransformerBlock(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

    std::shared_ptr<const Parts> parts_;
};

/// What enters the first block, tokens × hidden: rows of the embedding, scaled and with learned positions where the
/// family has them. `ids` are whole sequences of `sequence_length`. Errors: BadInput (id out of range, a sequence longer
/// than the learned positions).
Result<Buffer> embed(const Model& model, std::span<const TokenId> ids, Index sequence_length, Backend& backend);
/// Final norm and head applied to hidden states: tokens × vocabulary. The head is loaded once per OutputHead.
class OutputHead {
public:
    static Result<OutputHead> load(const Model& model, Backend& backend);
    Buffer normalized(const Buffer& hidden, Backend& backend) const { return norm_.apply(hidden, backend); }
    Buffer logits(const Buffer& hidden, Backend& backend) const;

private:
    OutputHead() = default;
    Norm norm_;
    Buffer head_;
    double logit_cap_ = 0.0; ///< 0: none
};

/// Logits of one sequence: tokens × vocabulary. Errors: BadInput (empty, id out of range, longer than the context).
Result<Matrix> logits(const Model& model, const WeightSource& weights, std::span<const TokenId> ids, Backend& backend,
                      Monitor& monitor);

} // namespace rankscope
