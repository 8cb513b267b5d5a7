// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/wide_model.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/base/random.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/test_paths.h"

#include <Eigen/QR>

#include <cmath>

namespace rankscope::test {
namespace {

namespace fs = std::filesystem;

constexpr Index k_width = 256;

/// `narrow` × 256 with orthonormal rows.
Matrix embedding_of(Index narrow)
{
    const RandomStream random(11, "wide model");
    MatrixD start(k_width, narrow);
    for (Index i = 0; i < start.size(); ++i)
        start.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    const MatrixD basis = Eigen::HouseholderQR<Eigen::MatrixXd>(start).householderQ()
                          * Eigen::MatrixXd::Identity(k_width, narrow);
    return basis.transpose().cast<float>();
}

class Widener {
public:
    Widener(const CheckpointReader& reader, const Json& config)
        : reader_(reader), narrow_(config["hidden_size"].integer()), head_dim_(config["head_dim"].integer()),
          repeats_(config["num_attention_heads"].integer() / config["num_key_value_heads"].integer()),
          into_(embedding_of(narrow_))
    {}

    Index heads() const { return k_width / head_dim_; }
    Index kv_heads() const { return heads() / repeats_; }

    Status widen(Index blocks)
    {
        const Matrix embedding = tensor("model.embed_tokens.weight");
        add("model.embed_tokens.weight", embedding * into_);
        add("lm_head.weight", reading(embedding, "model.norm.weight"));
        add_gain("model.norm.weight");
        for (Index block = 0; block < blocks; ++block)
            widen_block("model.layers." + std::to_string(block) + ".");
        return failure_;
    }
    std::vector<TensorSource> take() { return std::move(tensors_); }

private:
    void widen_block(const std::string& prefix)
    {
        const std::string before = prefix + "input_layernorm.weight";
        const std::string after = prefix + "post_attention_layernorm.weight";
        const auto reads = [&](const std::string& name, const std::string& gain, Index rows) {
            add(prefix + name, filled(reading(tensor(prefix + name), gain), rows, k_width));
        };
        const auto writes = [&](const std::string& name) {
            const Matrix weight = tensor(prefix + name);
            add(prefix + name, into_.transpose() * filled(weight, weight.rows(), k_width));
        };
        reads("self_attn.q_proj.weight", before, k_width);
        reads("self_attn.k_proj.weight", before, kv_heads() * head_dim_);
        reads("self_attn.v_proj.weight", before, kv_heads() * head_dim_);
        reads("mlp.gate_proj.weight", after, k_width);
        reads("mlp.up_proj.weight", after, k_width);
        writes("self_attn.o_proj.weight");
        writes("mlp.down_proj.weight");
        add_gain(before);
        add_gain(after);
    }

    Matrix tensor(const std::string& name)
    {
        auto values = reader_.read(name);
        if (!values) {
            failure_ = values.error();
            return Matrix::Zero(narrow_, narrow_);
        }
        return std::move(*values);
    }
    /// A weight that reads the stream through a norm, whose gain it takes over.
    Matrix reading(const Matrix& weight, const std::string& gain)
    {
        const Matrix gains = tensor(gain);
        return weight * Eigen::Map<const Eigen::RowVectorXf>(gains.data(), gains.size()).asDiagonal() * into_;
    }
    static Matrix filled(const Matrix& weight, Index rows, Index cols)
    {
        Matrix wide = Matrix::Zero(rows, cols);
        wide.topLeftCorner(weight.rows(), weight.cols()) = weight;
        return wide;
    }
    /// The mean of squares is taken over more channels, all new ones of a direction that is zero.
    void add_gain(const std::string& name)
    {
        const float gain = std::sqrt(static_cast<float>(narrow_) / static_cast<float>(k_width));
        TensorSource source = tensor_source(name, Matrix(Matrix::Constant(1, k_width, gain)));
        source.shape = {k_width};
        tensors_.push_back(std::move(source));
    }
    void add(const std::string& name, const Matrix& values)
    {
        tensors_.push_back(tensor_source(name, values));
    }

    const CheckpointReader& reader_;
    Index narrow_;
    Index head_dim_;
    Index repeats_;
    Matrix into_;
    Status failure_;
    std::vector<TensorSource> tensors_;
};

} // namespace

Status write_wide_model(const fs::path& folder)
{
    auto reader = CheckpointReader::open(sample_folder());
    if (!reader)
        return reader.error();
    auto config = Json::read(sample_folder() / "config.json");
    if (!config)
        return config.error();
    fs::create_directories(folder);
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
        fs::copy_file(sample_folder() / name, folder / name);
    Widener widener(**reader, *config);
    if (auto widened = widener.widen((*config)["num_hidden_layers"].integer()); !widened)
        return widened;
    const double narrow = (*config)["hidden_size"].number();
    config->set("hidden_size", std::int64_t{k_width});
    config->set("intermediate_size", std::int64_t{k_width});
    config->set("num_attention_heads", std::int64_t{widener.heads()});
    config->set("num_key_value_heads", std::int64_t{widener.kv_heads()});
    config->set("tie_word_embeddings", false);
    config->set("rms_norm_eps", (*config)["rms_norm_eps"].number() * narrow / static_cast<double>(k_width));
    if (auto written = write_text_file(folder / "config.json", config->dump(2), false); !written)
        return written;
    return write_safetensors(folder / "model.safetensors", widener.take(), {{"format", "pt"}}, false);
}

} // namespace rankscope::test
