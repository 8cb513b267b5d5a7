// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/model.h"

#include <cmath>
#include <string>
#include <vector>

namespace rankscope::test {

/// The naive double-precision Llama, written from the equations: a second opinion that shares no code with
/// the first.
class NaiveLlama {
public:
    explicit NaiveLlama(const Model& model) : model_(model), config_(model.config()) {}

    MatrixD logits(const std::vector<TokenId>& ids) const
    {
        MatrixD x(static_cast<Index>(ids.size()), config_.hidden);
        const MatrixD table = tensor("model.embed_tokens.weight");
        for (Index t = 0; t < x.rows(); ++t)
            x.row(t) = table.row(ids[static_cast<std::size_t>(t)]);
        for (Index block = 0; block < config_.blocks; ++block) {
            const std::string name = "model.layers." + std::to_string(block) + ".";
            x += attention(norm(x, name + "input_layernorm.weight"), name + "self_attn.");
            const MatrixD y = norm(x, name + "post_attention_layernorm.weight");
            MatrixD gate = linear(y, name + "mlp.gate_proj");
            gate = gate.unaryExpr([](double g) { return g / (1.0 + std::exp(-g)); });
            x += linear(gate.cwiseProduct(linear(y, name + "mlp.up_proj")), name + "mlp.down_proj");
        }
        const char* head = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
        return norm(x, "model.norm.weight") * tensor(head).transpose();
    }

private:
    MatrixD tensor(const std::string& name) const { return model_.checkpoint().read(name)->cast<double>(); }
    MatrixD norm(const MatrixD& x, const std::string& name) const
    {
        MatrixD y = x;
        for (Index t = 0; t < x.rows(); ++t)
            y.row(t) =
                x.row(t).cwiseProduct(tensor(name).row(0))
                / std::sqrt(x.row(t).squaredNorm() / static_cast<double>(x.cols()) + config_.norm_epsilon);
        return y;
    }
    MatrixD linear(const MatrixD& x, const std::string& name) const
    {
        MatrixD y = x * tensor(name + ".weight").transpose();
        if (model_.checkpoint().find(name + ".bias"))
            y.rowwise() += tensor(name + ".bias").row(0);
        return y;
    }
    /// Rows i and i + d/2 of each head are one complex number, turned by position · theta^(−2i/d).
    void rotate(MatrixD& x, Index heads) const
    {
        const Index d = config_.head_dim;
        for (Index t = 0; t < x.rows(); ++t) {
            for (Index h = 0; h < heads; ++h) {
                for (Index i = 0; i < d / 2; ++i) {
                    const double angle = static_cast<double>(t)
                                         * std::pow(config_.rope_theta,
                                                    -2.0 * static_cast<double>(i) / static_cast<double>(d));
                    const double a = x(t, h * d + i);
                    const double b = x(t, h * d + i + d / 2);
                    x(t, h * d + i) = a * std::cos(angle) - b * std::sin(angle);
                    x(t, h * d + i + d / 2) = b * std::cos(angle) + a * std::sin(angle);
                }
            }
        }
    }
    MatrixD attention(const MatrixD& x, const std::string& name) const
    {
        const Index d = config_.head_dim;
        MatrixD q = linear(x, name + "q_proj");
        MatrixD k = linear(x, name + "k_proj");
        const MatrixD v = linear(x, name + "v_proj");
        rotate(q, config_.heads);
        rotate(k, config_.kv_heads);
        MatrixD mixed = MatrixD::Zero(x.rows(), config_.heads * d);
        for (Index h = 0; h < config_.heads; ++h) {
            const Index g = h * config_.kv_heads / config_.heads;
            for (Index t = 0; t < x.rows(); ++t) {
                VectorD weights(t + 1);
                for (Index s = 0; s <= t; ++s)
                    weights(s) = std::exp(q.row(t).segment(h * d, d).dot(k.row(s).segment(g * d, d))
                                          / std::sqrt(static_cast<double>(d)));
                weights /= weights.sum();
                for (Index s = 0; s <= t; ++s)
                    mixed.row(t).segment(h * d, d) += weights(s) * v.row(s).segment(g * d, d);
            }
        }
        return linear(mixed, name + "o_proj");
    }

    const Model& model_;
    const ModelConfig& config_;
};

} // namespace rankscope::test
