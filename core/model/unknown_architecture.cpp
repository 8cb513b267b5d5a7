// SPDX-License-Identifier: GPL-3.0-or-later
// A model whose family nobody has described yet: its matrices are listed as they stand in the file, so that
// statistics, spectra and methods without activations work. No text can flow through it.
#include "core/model/detail/architectures.h"

#include <algorithm>
#include <array>

namespace rankscope::detail {
namespace {

constexpr int k_max_block = 10'000;

/// Tables of rows, not maps of activations.
bool is_table(std::string_view name)
{
    static constexpr std::array<std::string_view, 8> k_words = {
        "embed", "embd", "wte", "wpe", "lm_head", "norm", "position", "output.weight"};
    return std::any_of(k_words.begin(), k_words.end(), [name](std::string_view word) {
        return word == "output.weight" ? name == word : name.find(word) != std::string_view::npos;
    });
}

/// The first part of the dotted name that is a number: "backbone.layers.3.mixer.in_proj.weight" → 3.
int block_of(std::string_view name)
{
    while (!name.empty()) {
        const std::string_view part = name.substr(0, name.find('.'));
        if (!part.empty() && part.size() < 6
            && part.find_first_not_of("0123456789") == std::string_view::npos)
            return std::min(std::stoi(std::string(part)), k_max_block);
        name.remove_prefix(std::min(part.size() + 1, name.size()));
    }
    return 0;
}

class UnknownArchitecture : public Architecture {
public:
    UnknownArchitecture(std::string id, const CheckpointReader& reader)
        : id_(std::move(id)), place_(reader.path())
    {
        for (const TensorInfo& tensor : reader.tensors()) {
            constexpr std::string_view k_end = ".weight";
            if (tensor.shape.size() != 2 || tensor.shape[0] < 2 || tensor.shape[1] < 2
                || !tensor.holds_floats() || !tensor.name.ends_with(k_end) || is_table(tensor.name))
                continue;
            const std::string name = tensor.name.substr(0, tensor.name.size() - k_end.size());
            linears_.push_back(
                {name, block_of(name), LinearRole::Other, tensor.shape[0], tensor.shape[1], name, -1, false});
        }
        std::stable_sort(linears_.begin(), linears_.end(),
                         [](const LinearLayer& a, const LinearLayer& b) { return a.block < b.block; });
    }

    std::string_view id() const override { return id_; }
    std::string_view title() const override { return id_; }
    std::vector<LinearLayer> linears(const ModelConfig&) const override { return linears_; }
    BlockNames block_names(const ModelConfig&, int) const override { return {}; }
    std::string embedding() const override { return {}; }
    std::string final_norm() const override { return {}; }
    std::string head() const override { return {}; }
    std::string positions() const override { return {}; }
    Index first_position() const override { return 0; }
    NormKind norm_kind() const override { return NormKind::RootMeanSquare; }
    const ConfigKeys& config_keys() const override { return keys_; }
    BlockTraits block_traits(const ModelConfig&, int) const override { return {}; }
    double embedding_scale(const ModelConfig&) const override { return 1.0; }
    bool has_bias(const ModelConfig&, LinearRole) const override { return false; }
    Status accepts(const ModelConfig&) const override { return {}; }
    Result<Rotation> rotation(const ModelConfig&, int) const override { return runs().error(); }
    std::shared_ptr<const Architecture> fitted_to(const CheckpointReader&) const override { return nullptr; }
    Status runs() const override
    {
        Error error = unknown_architecture(id_);
        error.message +=
            "; its weights can be looked at and rounded, but no text can flow through it: there are no "
            "logits, perplexity or activations";
        return error.in(place_.string());
    }

private:
    std::string id_;
    std::filesystem::path place_;
    std::vector<LinearLayer> linears_;
    ConfigKeys keys_;
};

} // namespace

std::shared_ptr<const Architecture> make_unknown(std::string_view model_type, const CheckpointReader& reader)
{
    return std::make_shared<UnknownArchitecture>(std::string(model_type), reader);
}

} // namespace rankscope::detail
