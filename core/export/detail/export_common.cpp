// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/export_common.h"

#include "core/base/atomic_file.h"
#include "core/export/detail/stored_floats.h"
#include "core/model/gguf_model.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace rankscope::export_common {
namespace {

namespace fs = std::filesystem;

constexpr const char* k_companions[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "vocab.txt",
                                        "merges.txt",
                                        "spiece.model",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "preprocessor_config.json",
                                        "LICENSE",
                                        "LICENSE.md",
                                        "LICENSE.txt",
                                        "NOTICE",
                                        "USE_POLICY.md"};

/// The content of a companion as it goes into the export.
Result<std::string> companion(const Model& model, const std::string& name, const Json& config_additions)
{
    auto content = read_text_file(model_folder(model) / name);
    if (!content || name != "config.json" || config_additions.is_null())
        return content;
    auto config = Json::parse(*content);
    if (!config)
        return config.error().in((model_folder(model) / name).string());
    merge(*config, config_additions);
    return config->dump(2) + "\n";
}

/// Whether every stored value is a number; decoded a stretch at a time, so that it stays in the cache.
bool all_finite(DType dtype, const std::vector<std::byte>& bytes)
{
    constexpr std::size_t k_stretch = 4096;
    std::array<float, k_stretch> values{};
    const std::size_t count = bytes.size() / size_bytes(dtype);
    for (std::size_t first = 0; first < count; first += k_stretch) {
        const std::size_t length = std::min(k_stretch, count - first);
        decode_to_float(dtype, bytes.data() + first * size_bytes(dtype), length, values.data());
        unsigned beyond = 0;
        for (std::size_t i = 0; i < length; ++i)
            beyond |= std::abs(values[i]) <= std::numeric_limits<float>::max() ? 0U : 1U;
        if (beyond != 0)
            return false;
    }
    return true;
}

} // namespace

Status check_complete(const Run& run, const Model& model)
{
    std::set<std::string> finished;
    for (const LayerResult& result : run.results())
        finished.insert(result.layer);
    std::size_t wanted = 0;
    std::string missing;
    for (const LayerPlan& row : run.plan().rows) {
        if (!row.include)
            continue;
        ++wanted;
        if (missing.empty() && !finished.contains(row.layer))
            missing = row.layer;
    }
    if (!missing.empty())
        return bad_input("this run is not complete: " + std::to_string(finished.size()) + " of "
                             + std::to_string(wanted) + " layers are finished, " + missing + " is not",
                         run.path().string(), "Finish it with compress --resume first");
    if (run.plan().checkpoint_hash != model.checkpoint().header_hash())
        return bad_input("the checkpoint has changed since this run was made from it", model.path().string(),
                         "Restore the checkpoint, or compress it again");
    for (const LayerResult& result : run.results()) {
        const LinearLayer* layer = model.find_linear(result.layer);
        if (!layer || !model.checkpoint().find(layer->weight()))
            return bad_input("the checkpoint has no linear layer of this name", result.layer,
                             "Export the run with the checkpoint that it was made from");
    }
    return {};
}

Status check_weights_alone(const Run& run, const Model& model)
{
    if (auto complete = check_complete(run, model); !complete)
        return complete;
    if (model.rotation())
        return bad_input("the run is of a rotated model, which turns activations by Hadamard matrices as it "
                         "computes; no format that can be exported tells its clients to do so",
                         run.path().string(),
                         "Measure it with evaluate, or compress the model unrotated for export");
    for (const LayerPlan& row : run.plan().rows) {
        const Method* method = row.include ? find_method(row.method) : nullptr;
        if (!method)
            continue;
        const ActivationQuantization activations = activations_of(method->info(), row.parameters);
        if (activations.active())
            return usage_error(
                "method " + row.method + " rounded this layer's activations to "
                    + std::to_string(activations.bits)
                    + " bits, which its weights make up for; the formats that can be exported hold "
                      "weights alone",
                row.layer,
                "Measure the run with evaluate and export its report, or plan with "
                "activation_bits=16");
    }
    return {};
}

Status require_factors(const Run& run, const std::string& instead)
{
    auto factors = has_factors(run);
    if (!factors)
        return factors.error();
    if (*factors)
        return {};
    return usage_error("no layer of this run has L·R, so there is nothing for an adapter to hold",
                       run.path().string(), "Export as " + instead);
}

Result<bool> has_factors(const Run& run)
{
    for (const LayerResult& result : run.results()) {
        auto decomposition = run.decomposition(result.layer);
        if (!decomposition)
            return decomposition.error();
        if (decomposition->low_rank.rank() > 0)
            return true;
    }
    return false;
}

Status check_exportable(const Run& run, const Model& model)
{
    if (auto complete = check_weights_alone(run, model); !complete)
        return complete;
    if (is_gguf(model.checkpoint()))
        return bad_input("the checkpoint is a GGUF file, which has no config.json and no tokenizer files to "
                         "carry over",
                         model.path().string(),
                         "Export as gguf, or compress the model's Hugging Face folder");
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        if (!info.packed.empty())
            return bad_input("the checkpoint is packed (" + info.packed
                                 + "), and its config.json says so: it cannot be carried over",
                             info.name, "Export as gguf, or compress the original checkpoint");
    }
    for (const LinearLayer* layer : replaced_layers(run, model)) {
        const TensorInfo* info = model.checkpoint().find(layer->weight());
        if (info->is_quantized() || !is_encodable(info->dtype))
            return bad_input("its weight is stored as " + std::string(info->type_name())
                                 + ", and reconstructed weights can be stored as F32, F16, BF16 or F64 only",
                             layer->name, "Convert the checkpoint to one of these types first");
    }
    return {};
}

std::vector<const LinearLayer*> replaced_layers(const Run& run, const Model& model)
{
    std::vector<const LinearLayer*> layers;
    for (const LayerResult& result : run.results()) {
        if (const LinearLayer* layer = model.find_linear(result.layer))
            layers.push_back(layer);
    }
    return layers;
}

std::set<std::string> replaced_weights(const Run& run, const Model& model)
{
    std::set<std::string> names;
    for (const LinearLayer* layer : replaced_layers(run, model))
        names.insert(layer->weight());
    return names;
}

Result<const Decomposition*> LayerCache::get(const std::string& layer) const
{
    if (kept_->name != layer) {
        auto decomposition = run_->decomposition(layer);
        if (!decomposition)
            return decomposition.error();
        kept_->decomposition = std::move(*decomposition);
        kept_->name = layer;
    }
    return &kept_->decomposition;
}

fs::path model_folder(const Model& model)
{
    std::error_code ignored;
    return fs::is_directory(model.path(), ignored) ? model.path() : model.path().parent_path();
}

std::vector<std::string> companion_files(const Model& model)
{
    std::vector<std::string> present;
    std::error_code ignored;
    for (const char* name : k_companions) {
        if (fs::is_regular_file(model_folder(model) / name, ignored))
            present.emplace_back(name);
    }
    return present;
}

std::uint64_t companion_bytes(const Model& model)
{
    std::uint64_t bytes = 0;
    for (const std::string& name : companion_files(model)) {
        std::error_code problem;
        const auto size = fs::file_size(model_folder(model) / name, problem);
        bytes += problem ? 0 : size;
    }
    return bytes;
}

Status copy_companions(const Model& model, const fs::path& folder, const Json& config_additions)
{
    for (const std::string& name : companion_files(model)) {
        auto content = companion(model, name, config_additions);
        if (!content)
            return content.error();
        if (auto written = write_text_file(folder / name, *content, false); !written)
            return written;
    }
    return {};
}

Status check_companions(const Model& model, const fs::path& folder, const Json& config_additions)
{
    for (const std::string& name : companion_files(model)) {
        auto expected = companion(model, name, config_additions);
        if (!expected)
            return expected.error();
        auto actual = read_text_file(folder / name);
        if (!actual)
            return actual.error();
        if (*expected != *actual)
            return bad_input("its content differs from the checkpoint's " + name, (folder / name).string(),
                             "Export again");
    }
    return {};
}

Result<std::vector<std::byte>> original_bytes(const Model& model, const std::string& tensor)
{
    auto view = model.checkpoint().view(tensor);
    if (!view)
        return view.error();
    std::vector<std::byte> bytes(view->bytes.begin(), view->bytes.end());
    if (auto whole = model.checkpoint().confirm(tensor); !whole)
        return whole.error();
    return bytes;
}

Matrix base_weight(const Decomposition& decomposition, const LinearLayer& layer)
{
    if (decomposition.quantized.empty())
        return Matrix::Zero(layer.out, layer.in);
    Decomposition base;
    base.quantized = decomposition.quantized;
    base.transform = decomposition.transform;
    return base.reconstruct();
}

LowRank weight_factors(const Decomposition& decomposition)
{
    if (decomposition.transform.empty() || decomposition.low_rank.rank() == 0)
        return decomposition.low_rank;
    const auto backend = make_cpu_backend();
    return {decomposition.transform.restored_left(decomposition.low_rank.left, *backend),
            decomposition.transform.restored_right(decomposition.low_rank.right, *backend)};
}

Result<std::vector<std::byte>> dense_bytes(const Matrix& weight, const LinearLayer& layer, DType dtype)
{
    if (weight.rows() != layer.out || weight.cols() != layer.in)
        return bad_input("the run's layer is " + std::to_string(weight.rows()) + " × "
                             + std::to_string(weight.cols()) + ", the checkpoint's "
                             + std::to_string(layer.out) + " × " + std::to_string(layer.in),
                         layer.name, "Compress this checkpoint again");
    std::vector<std::byte> bytes = float_bytes(dtype, layer.transposed ? Matrix(weight.transpose()) : weight);
    if (!all_finite(dtype, bytes))
        return bad_input("a reconstructed weight is beyond what " + std::string(name(dtype)) + " can hold",
                         layer.name, "Compress this layer with more bits, or leave it out");
    return bytes;
}

TensorSource dense_source(const LayerCache& cache, const Model& model, const LinearLayer& layer,
                          DensePart part)
{
    const TensorInfo* info = model.checkpoint().find(layer.weight());
    return {info->name, info->dtype, info->shape,
            [cache, &layer, part, dtype = info->dtype]() -> Result<std::vector<std::byte>> {
                auto decomposition = cache.get(layer.name);
                if (!decomposition)
                    return decomposition.error();
                return dense_bytes(part == DensePart::Whole ? (*decomposition)->reconstruct()
                                                            : base_weight(**decomposition, layer),
                                   layer, dtype);
            }};
}

Status compare_tensor(const CheckpointReader& reader, const std::string& tensor, DType dtype,
                      const Shape& shape, const std::vector<std::byte>& bytes)
{
    const std::string file = reader.path().string();
    const TensorInfo* info = reader.find(tensor);
    if (!info)
        return bad_input("the tensor " + tensor + " is missing", file, "Export again");
    if (info->dtype != dtype || info->shape != shape)
        return bad_input("the tensor " + tensor + " is " + std::string(info->type_name())
                             + to_string(info->shape) + ", expected " + std::string(name(dtype))
                             + to_string(shape),
                         file, "Export again");
    auto view = reader.view(tensor);
    if (!view)
        return view.error();
    const auto [ours, theirs] =
        std::mismatch(bytes.begin(), bytes.end(), view->bytes.begin(), view->bytes.end());
    if (auto whole = reader.confirm(tensor); !whole)
        return whole.error();
    if (ours == bytes.end() && theirs == view->bytes.end())
        return {};
    const auto element = static_cast<std::size_t>(ours - bytes.begin()) / size_bytes(dtype);
    return bad_input("the tensor " + tensor + " differs from the run at element " + std::to_string(element),
                     file, "Export again");
}

Json describe_run(const Run& run, const Model& model, std::string_view format)
{
    Json json;
    json.set("format", format);
    json.set("version", 1);
    json.set("architecture", model.config().model_type);
    json.set("checkpoint_hash", run.plan().checkpoint_hash);
    json.set("calibration_id", run.plan().calibration_id);
    json.set("seed", run.plan().seed);
    Json layers = Json::Object{};
    for (const LayerResult& result : run.results()) {
        Json layer;
        layer.set("method", result.method);
        layer.set("parameters", result.parameters);
        layer.set("bits_per_weight", result.bits_per_weight);
        layer.set("relative_error", result.quality.relative_error);
        layer.set("relative_activation_error", result.quality.relative_activation_error);
        if (const LinearLayer* linear = model.find_linear(result.layer)) {
            layer.set("shape", Json::Array{std::int64_t{linear->out}, std::int64_t{linear->in}});
            if (const TensorInfo* info = model.checkpoint().find(linear->weight()))
                layer.set("dtype", info->type_name());
        }
        layers.set(result.layer, std::move(layer));
    }
    json.set("layers", std::move(layers));
    return json;
}

void merge(Json& target, const Json& additions)
{
    const Json::Object* members = additions.object_if();
    if (!members)
        return;
    for (const auto& [key, value] : *members) {
        if (value.is_object() && target[key].is_object()) {
            Json inner = target[key];
            merge(inner, value);
            target.set(key, std::move(inner));
        } else {
            target.set(key, value);
        }
    }
}

} // namespace rankscope::export_common
