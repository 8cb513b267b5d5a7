// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/export_common.h"

#include "core/base/atomic_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

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

Status check_layer(const LayerResult& result, const Model& model)
{
    const LinearLayer* layer = model.find_linear(result.layer);
    const TensorInfo* info = layer ? model.checkpoint().find(layer->weight()) : nullptr;
    if (!info)
        return bad_input("the checkpoint has no linear layer of this name", result.layer,
                         "Export the run with the checkpoint that it was made from");
    if (info->block || !is_encodable(info->dtype))
        return bad_input("its weight is stored as " + std::string(info->type_name())
                             + ", and reconstructed weights can be stored as F32, F16, BF16 or F64 only",
                         result.layer, "Convert the checkpoint to one of these types first");
    return {};
}

} // namespace

std::vector<std::string> replaced_layers(const Run& run)
{
    std::vector<std::string> layers;
    for (const LayerResult& result : run.results())
        layers.push_back(result.layer);
    return layers;
}

Status check_exportable(const Run& run, const Model& model)
{
    const std::vector<std::string> done = replaced_layers(run);
    const std::set<std::string> finished(done.begin(), done.end());
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
        if (auto fits = check_layer(result, model); !fits)
            return fits;
    }
    return {};
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

Status copy_companions(const Model& model, const fs::path& folder)
{
    for (const std::string& name : companion_files(model)) {
        auto content = read_text_file(model_folder(model) / name);
        if (!content)
            return content.error();
        if (auto written = write_text_file(folder / name, *content, false); !written)
            return written;
    }
    return {};
}

Status check_companions(const Model& model, const fs::path& folder)
{
    for (const std::string& name : companion_files(model)) {
        auto expected = read_text_file(model_folder(model) / name);
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
    return std::vector<std::byte>(view->bytes.begin(), view->bytes.end());
}

Result<std::vector<std::byte>> dense_bytes(const Run& run, const LinearLayer& layer, DType dtype)
{
    auto decomposition = run.decomposition(layer.name);
    if (!decomposition)
        return decomposition.error();
    const Matrix weight = decomposition->reconstruct();
    if (weight.rows() != layer.out || weight.cols() != layer.in)
        return bad_input("the run's layer is " + std::to_string(weight.rows()) + " × "
                             + std::to_string(weight.cols()) + ", the checkpoint's "
                             + std::to_string(layer.out) + " × " + std::to_string(layer.in),
                         layer.name, "Compress this checkpoint again");
    const Matrix as_stored = layer.transposed ? Matrix(weight.transpose()) : weight;
    const auto count = static_cast<std::size_t>(as_stored.size());
    std::vector<std::byte> bytes(count * size_bytes(dtype));
    encode_from_float(dtype, as_stored.data(), count, bytes.data());
    Matrix stored(weight.rows(), weight.cols());
    decode_to_float(dtype, bytes.data(), count, stored.data());
    if (!stored.allFinite())
        return bad_input("a reconstructed weight is beyond what " + std::string(name(dtype)) + " can hold",
                         layer.name, "Compress this layer with more bits, or leave it out");
    return bytes;
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

} // namespace rankscope::export_common
