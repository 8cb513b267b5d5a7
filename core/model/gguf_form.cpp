// SPDX-License-Identifier: GPL-3.0-or-later
// A model of ours under llama.cpp's names, in llama.cpp's form.
#include "core/model/gguf_form.h"

#include "core/model/detail/gguf_family.h"
#include "core/model/detail/gguf_keys.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <map>
#include <optional>

namespace rankscope {
namespace {

using namespace detail;

/// Tensors of old checkpoints that are no weights.
bool is_buffer(std::string_view name)
{
    return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".masked_bias")
           || name.ends_with(".attn.bias") || name.ends_with(".attention.bias");
}

/// Whether `name` is `pattern` with a number for its "#" (or has none); the number goes to `number`.
bool matches(std::string_view name, std::string_view pattern, Index& number)
{
    const auto mark = pattern.find('#');
    if (mark == std::string_view::npos)
        return name == pattern;
    const std::string_view tail = pattern.substr(mark + 1);
    if (!name.starts_with(pattern.substr(0, mark)) || !name.ends_with(tail)
        || name.size() <= mark + tail.size())
        return false;
    const std::string_view digits = name.substr(mark, name.size() - mark - tail.size());
    if (digits.size() > 6 || digits.find_first_not_of("0123456789") != std::string_view::npos)
        return false;
    number = std::stoll(std::string(digits));
    return true;
}

struct Counterpart {
    std::string name; ///< "blk.3.attn_q.weight"
    Stored stored = Stored::AsIs;
    Index expert = 0;
};

/// The family's name for one of ours (with the prefix that transformers has).
std::optional<Counterpart> counterpart(const GgufFamily& family, std::string_view name)
{
    const auto dot = name.rfind('.');
    if (dot == std::string_view::npos)
        return std::nullopt;
    const std::string suffix(name.substr(dot));
    std::string_view stem = name.substr(0, dot);
    for (const GgufName& entry : family.model_names) {
        if (entry.hugging_face == stem)
            return Counterpart{std::string(entry.gguf) + suffix, entry.stored, 0};
    }
    if (!stem.starts_with(family.blocks))
        return std::nullopt;
    stem.remove_prefix(family.blocks.size());
    const auto end = stem.find('.');
    if (end == std::string_view::npos)
        return std::nullopt;
    for (const GgufName& entry : family.block_names) {
        Index expert = 0;
        const bool single = entry.gguf.find('#') != std::string_view::npos; // as early files have experts
        if (!single && matches(stem.substr(end + 1), entry.hugging_face, expert))
            return Counterpart{"blk." + std::string(stem.substr(0, end)) + "." + std::string(entry.gguf)
                                   + suffix,
                               entry.stored, expert};
    }
    return std::nullopt;
}

/// What a checkpoint leaves out in front of its names ("transformer." of GPT-2 on the hub).
std::string missing_prefix(const Model& model)
{
    const auto usual = architecture_for(model.config());
    if (!usual)
        return {};
    const std::string whole = (*usual)->embedding();
    const std::string own = model.architecture().embedding();
    return whole.ends_with(own) ? whole.substr(0, whole.size() - own.size()) : std::string();
}

bool wants_floats(std::string_view name, const Shape& shape)
{
    return shape.size() == 1 || name.starts_with("position_embd")
           || name.find("ffn_gate_inp") != std::string_view::npos;
}

class FormMaker {
public:
    FormMaker(const Model& model, const GgufFamily& family)
        : model_(model), family_(family), prefix_(missing_prefix(model))
    {
        for (const LinearLayer& layer : model.linears()) {
            if (layer.transposed)
                transposed_.emplace(layer.weight(), true);
        }
    }

    Status add_tensors(GgufForm& form)
    {
        std::map<std::string, std::map<Index, std::string>> experts;
        for (const TensorInfo& info : model_.checkpoint().tensors()) {
            const bool spare_head =
                model_.config().tied_embeddings && info.name == model_.architecture().head();
            if (is_buffer(info.name) || spare_head)
                continue;
            const bool prefixed = info.name == model_.architecture().head();
            const auto found = counterpart(family_, prefixed ? info.name : prefix_ + info.name);
            if (!found)
                return bad_input("llama.cpp has no counterpart of the tensor " + info.name
                                     + " in its architecture " + std::string(family_.id),
                                 model_.path().string(), "Export in another format");
            if (found->stored == Stored::Experts)
                experts[found->name][found->expert] = info.name;
            else
                form.tensors.push_back(tensor(*found, info));
        }
        return add_experts(experts, form);
    }

private:
    GgufTensor tensor(const Counterpart& found, const TensorInfo& info) const
    {
        GgufTensor tensor;
        tensor.name = found.name;
        tensor.sources = {info.name};
        tensor.shape = info.shape;
        tensor.transposed = transposed_.contains(info.name);
        if (tensor.transposed)
            std::reverse(tensor.shape.begin(), tensor.shape.end());
        if (found.stored == Stored::OneRow && tensor.shape.size() == 2)
            tensor.shape.erase(tensor.shape.begin());
        tensor.one_added = found.stored == Stored::OneAdded;
        tensor.exact_floats = wants_floats(found.name, tensor.shape);
        const ModelConfig& config = model_.config();
        const RowOrder ours_in_file =
            row_order(found.stored, tensor.shape.front(), config.heads, config.kv_heads);
        tensor.row_order.resize(ours_in_file.size());
        for (std::size_t i = 0; i < ours_in_file.size(); ++i)
            tensor.row_order[static_cast<std::size_t>(ours_in_file[i])] = static_cast<Index>(i);
        return tensor;
    }

    Status add_experts(const std::map<std::string, std::map<Index, std::string>>& experts,
                       GgufForm& form) const
    {
        for (const auto& [name, sources] : experts) {
            GgufTensor stacked;
            stacked.name = name;
            for (const auto& [expert, source] : sources) {
                if (expert != static_cast<Index>(stacked.sources.size()))
                    return bad_input("the experts are not numbered from 0 on without a gap", source,
                                     "Download the checkpoint again");
                stacked.sources.push_back(source);
            }
            stacked.shape = model_.checkpoint().find(stacked.sources.front())->shape;
            stacked.shape.insert(stacked.shape.begin(), static_cast<std::int64_t>(stacked.sources.size()));
            form.tensors.push_back(std::move(stacked));
        }
        return {};
    }

    const Model& model_;
    const GgufFamily& family_;
    std::string prefix_;
    std::map<std::string, bool> transposed_;
};

} // namespace

Result<GgufForm> GgufForm::of(const Model& model)
{
    const GgufFamily* family = gguf_family_for(model.config().model_type);
    if (!family)
        return usage_error("llama.cpp does not know the architecture " + model.config().model_type,
                           model.path().string(), "Export in another format");
    GgufForm form;
    form.architecture = family->id;
    if (auto added = add_gguf_keys(model, *family, form); !added)
        return added.error();
    FormMaker maker(model, *family);
    if (auto added = maker.add_tensors(form); !added)
        return added.error();
    std::sort(form.tensors.begin(), form.tensors.end(),
              [](const GgufTensor& a, const GgufTensor& b) { return a.name < b.name; });
    return form;
}

const GgufTensor* GgufForm::find(std::string_view source) const
{
    for (const GgufTensor& tensor : tensors) {
        if (std::find(tensor.sources.begin(), tensor.sources.end(), source) != tensor.sources.end())
            return &tensor;
    }
    return nullptr;
}

} // namespace rankscope
