// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/streaming_pass.h"
#include "core/methods/method.h"
#include "core/run/run.h"

#include <map>
#include <memory>
#include <set>
#include <string>

namespace rankscope {

/// Second moments of one input in both streams: x of the original model, x̃ of the model whose blocks before
/// this one are compressed. Per token, undamped.
struct PropagatedMoments {
    Moments seen;  ///< of x̃: what a method rounds against
    MatrixD drift; ///< in × in: (X − X̃)·X̃ᵀ / tokens
    MatrixD gap;   ///< in × in: (X − X̃)·(X − X̃)ᵀ / tokens
    Matrix shift; ///< in × in: drift·(X̃·X̃ᵀ / tokens + damping)⁻¹, by which the target leaves the weight

    /// What Ŵ is to come near to: W + W·shift, half the way to the W* with the least ‖W·X − W*·X̃‖. W itself
    /// while both streams are the same.
    Matrix target(const Matrix& weight) const;
    /// ‖W·X − Ŵ·X̃‖ / ‖W·X‖ with what came in from the blocks before.
    double relative_error(const Matrix& weight, const Matrix& compressed) const;
};

/// --propagate: sends a text through the original model and, beside it, through the compressed one, block
/// after block.
class Propagation {
public:
    /// Reads the text. Errors: Usage (no text), BadInput, Io, NoSpace (the budget).
    static Result<std::unique_ptr<Propagation>> prepare(std::shared_ptr<const Model> model,
                                                        const RunOptions& options, Backend& backend,
                                                        Monitor& monitor);
    /// Names text and windows: a run goes on only with the same.
    const std::string& id() const { return id_; }

    /// Puts both streams before the first block; hidden states beyond the budget go to files in `folder`.
    Status start(const std::filesystem::path& folder);
    /// Learns the moments of the block's inputs in these groups; what is known of other blocks is forgotten.
    /// Errors: BadInput (an activation that is not finite; an expert that no token reached).
    Status collect(int block, const std::set<std::string>& groups);
    const PropagatedMoments& moments(const std::string& group) const { return moments_.at(group); }
    /// Both streams pass the block, the second one with these weights.
    Status advance(int block, const WeightSource& compressed);

private:
    Propagation(std::shared_ptr<const Model> model, Backend& backend, Monitor& monitor)
        : model_(std::move(model)), original_(checkpoint_weights(model_)), backend_(backend),
          monitor_(monitor)
    {}
    std::uint64_t fixed_bytes() const;

    std::shared_ptr<const Model> model_;
    std::unique_ptr<WeightSource> original_;
    Backend& backend_;
    Monitor& monitor_;
    std::uint64_t memory_budget_bytes_ = 0;
    std::string id_;
    TokenWindows windows_;
    std::unique_ptr<StreamingPass> pass_;
    std::unique_ptr<HiddenStates> first_;  ///< of the original model
    std::unique_ptr<HiddenStates> second_; ///< of the compressed one
    std::map<std::string, PropagatedMoments> moments_;
};

} // namespace rankscope
