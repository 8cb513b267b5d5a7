// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/architecture.h"

#include "core/model/gguf_model.h"

#include <map>

namespace rankscope {
namespace {

using ExpectedShapes = std::map<std::string, Shape, std::less<>>;

void expect_norm(ExpectedShapes& shapes, const std::string& gain, Index width, NormKind kind)
{
    if (gain.empty())
        return;
    shapes[gain] = {width};
    if (kind == NormKind::MeanVariance)
        shapes[norm_bias(gain)] = {width};
}

void expect_block(ExpectedShapes& shapes, const Architecture& architecture, const ModelConfig& config,
                  int block)
{
    const BlockNames names = architecture.block_names(config, block);
    const NormKind kind = architecture.norm_kind();
    for (const std::string* gain :
         {&names.attention_norm, &names.mlp_norm, &names.attention_result_norm, &names.mlp_result_norm})
        expect_norm(shapes, *gain, config.hidden, kind);
    for (const std::string* gain : {&names.query_norm, &names.key_norm})
        expect_norm(shapes, *gain, config.head_dim, kind);
    if (!names.router.empty())
        shapes[names.router] = {config.experts, config.hidden};
    if (!names.shared_gate.empty())
        shapes[names.shared_gate] = {1, config.hidden};
}

ExpectedShapes expected_shapes(const Architecture& architecture, const ModelConfig& config)
{
    ExpectedShapes shapes;
    shapes[architecture.embedding()] = {config.vocabulary, config.hidden};
    if (const std::string positions = architecture.positions(); !positions.empty())
        shapes[positions] = {config.max_positions + architecture.first_position(), config.hidden};
    expect_norm(shapes, architecture.final_norm(), config.hidden, architecture.norm_kind());
    if (!config.tied_embeddings)
        shapes[architecture.head()] = {config.vocabulary, config.hidden};
    for (int block = 0; block < static_cast<int>(config.blocks); ++block)
        expect_block(shapes, architecture, config, block);
    for (const LinearLayer& layer : architecture.linears(config)) {
        shapes[layer.weight()] = layer.transposed ? Shape{layer.in, layer.out} : Shape{layer.out, layer.in};
        if (architecture.has_bias(config, layer.role))
            shapes[layer.bias()] = {layer.out};
    }
    return shapes;
}

/// Stored by old versions of transformers, made anew by every loader: rotations and causal masks.
bool is_buffer(std::string_view name)
{
    for (const std::string_view end :
         {".rotary_emb.inv_freq", ".masked_bias", ".attn.bias", ".attention.bias"}) {
        if (name.ends_with(end))
            return true;
    }
    return false;
}

/// "a, b, c and 12 more".
std::string list(const std::vector<std::string>& names)
{
    constexpr std::size_t k_shown = 3;
    std::string text;
    for (std::size_t i = 0; i < names.size() && i < k_shown; ++i)
        text += (i > 0 ? ", " : "") + names[i];
    return names.size() > k_shown ? text + " and " + std::to_string(names.size() - k_shown) + " more" : text;
}

/// What the sizes come from: GGUF files have no config.json.
std::string source_of_sizes(const CheckpointReader& reader)
{
    return is_gguf(reader) ? "the metadata" : "config.json";
}

Status check_tensor(const TensorInfo& tensor, const Shape& expected, const CheckpointReader& reader)
{
    const std::string source = source_of_sizes(reader);
    const std::string where =
        reader.files()[static_cast<std::size_t>(tensor.file)].string() + ": tensor " + tensor.name;
    if (tensor.shape != expected)
        return bad_input("its shape is " + to_string(tensor.shape) + ", but " + source + " makes it "
                             + to_string(expected),
                         where, "Check that " + source + " belongs to these weights");
    if (!tensor.holds_floats())
        return bad_input("it holds " + std::string(tensor.type_name())
                             + " numbers where floating-point weights were expected",
                         where);
    return {};
}

} // namespace

std::string_view short_name(LinearRole role)
{
    static constexpr std::string_view k_names[] = {"q",    "k",  "v",       "qkv", "o",
                                                   "gate", "up", "gate_up", "down", "other"};
    return k_names[static_cast<std::size_t>(role)];
}

std::string norm_bias(std::string_view gain)
{
    return std::string(gain.substr(0, gain.rfind('.'))) + ".bias";
}

Status Architecture::check(const ModelConfig& config, const CheckpointReader& reader) const
{
    const ExpectedShapes expected = expected_shapes(*this, config);
    std::vector<std::string> missing;
    for (const auto& [name, shape] : expected) {
        const TensorInfo* tensor = reader.find(name);
        if (!tensor)
            missing.push_back(name);
        else if (auto fits = check_tensor(*tensor, shape, reader); !fits)
            return fits;
    }
    std::vector<std::string> unknown;
    for (const TensorInfo& tensor : reader.tensors()) {
        const bool spare_head = config.tied_embeddings && tensor.name == head();
        if (expected.find(tensor.name) == expected.end() && !is_buffer(tensor.name) && !spare_head)
            unknown.push_back(tensor.name);
    }
    if (missing.empty() && unknown.empty())
        return {};
    std::string message;
    if (!missing.empty())
        message = "tensors of the " + std::string(title()) + " architecture are missing: " + list(missing);
    if (!unknown.empty())
        message += (message.empty() ? "" : "; ") + std::string("tensors are not known: ") + list(unknown);
    return bad_input(message, reader.path().string(),
                     "Check that " + source_of_sizes(reader) + " belongs to these weights");
}

} // namespace rankscope
