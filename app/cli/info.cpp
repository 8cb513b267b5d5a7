// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/model/gguf_model.h"

#include <fmt/format.h>

#include <map>

namespace rankscope::cli {
namespace {

struct InfoOptions {
    std::filesystem::path path;
    bool tensors = false;
};

Json tensor_json(const CheckpointReader& reader, const TensorInfo& tensor)
{
    Json shape(Json::Array{});
    for (const std::int64_t side : tensor.shape)
        shape.push_back(side);
    Json json;
    json.set("name", tensor.name);
    json.set("dtype", tensor.type_name());
    json.set("shape", std::move(shape));
    json.set("bytes", tensor.bytes);
    json.set("offset", tensor.offset);
    json.set("file", reader.files()[static_cast<std::size_t>(tensor.file)].filename().string());
    return json;
}

std::string tensor_table(const CheckpointReader& reader)
{
    Table table({"tensor", "dtype", "shape", "bytes", "file"});
    for (const TensorInfo& tensor : reader.tensors())
        table.add({tensor.name, std::string(tensor.type_name()), to_string(tensor.shape),
                   std::to_string(tensor.bytes),
                   reader.files()[static_cast<std::size_t>(tensor.file)].filename().string()});
    return table.text();
}

struct Totals {
    std::uint64_t bytes = 0;
    std::uint64_t elements = 0;
    std::map<std::string, std::uint64_t> by_type;
};

Totals totals_of(const CheckpointReader& reader)
{
    Totals totals;
    for (const TensorInfo& tensor : reader.tensors()) {
        totals.bytes += tensor.bytes;
        totals.elements += static_cast<std::uint64_t>(element_count(tensor.shape));
        totals.by_type[std::string(tensor.type_name())] += tensor.bytes;
    }
    return totals;
}

/// What every checkpoint has, understood or not.
Output describe_reader(const CheckpointReader& reader, bool tensors)
{
    const Totals totals = totals_of(reader);
    Json dtypes{Json::Object{}};
    std::string types;
    for (const auto& [type, bytes] : totals.by_type) {
        dtypes.set(type, bytes);
        types += fmt::format("{}{} {}", types.empty() ? "" : ", ", type, format_byte_size(bytes));
    }
    Output output;
    output.document.set("path", reader.path().string());
    output.document.set("files", static_cast<std::uint64_t>(reader.files().size()));
    output.document.set("hash", reader.header_hash());
    output.document.set("tensors", static_cast<std::uint64_t>(reader.tensors().size()));
    output.document.set("elements", totals.elements);
    output.document.set("bytes", totals.bytes);
    output.document.set("dtypes", std::move(dtypes));
    output.document.set("architecture", Json());
    output.text =
        fmt::format("checkpoint    {}\nsize          {} in {} tensors and {} file(s)\ntypes         {}\n",
                    reader.path().string(), format_byte_size(totals.bytes), reader.tensors().size(),
                    reader.files().size(), types);
    if (tensors) {
        Json list(Json::Array{});
        for (const TensorInfo& tensor : reader.tensors())
            list.push_back(tensor_json(reader, tensor));
        output.document.set("tensor_list", std::move(list));
    }
    return output;
}

void describe_model(const Model& model, Output& output)
{
    const ModelConfig& config = model.config();
    Json list(Json::Array{});
    Table table({"layer", "role", "block", "out", "in", "dtype", "bytes"});
    for (const LinearLayer& layer : model.linears()) {
        const TensorInfo* tensor = model.checkpoint().find(layer.weight());
        Json json;
        json.set("name", layer.name);
        json.set("role", short_name(layer.role));
        json.set("block", layer.block);
        json.set("out", std::int64_t{layer.out});
        json.set("in", std::int64_t{layer.in});
        json.set("input_group", layer.input_group);
        json.set("dtype", tensor ? Json(tensor->type_name()) : Json());
        json.set("bytes", tensor ? Json(tensor->bytes) : Json());
        list.push_back(std::move(json));
        table.add({layer.name, std::string(short_name(layer.role)), std::to_string(layer.block),
                   std::to_string(layer.out), std::to_string(layer.in),
                   tensor ? std::string(tensor->type_name()) : "–",
                   tensor ? std::to_string(tensor->bytes) : "–"});
    }
    Json& document = output.document;
    document.set("architecture", model.architecture().id());
    if (const Status runs = model.architecture().runs(); !runs) {
        document.set("model_error", runs.error().sentence());
        document.set("layers", std::move(list));
        output.text += fmt::format("{:<14}{}\n\n", "model", runs.error().sentence()) + table.text();
        return;
    }
    document.set("vocabulary", std::int64_t{config.vocabulary});
    document.set("hidden", std::int64_t{config.hidden});
    document.set("intermediate", std::int64_t{config.intermediate});
    document.set("blocks", std::int64_t{config.blocks});
    document.set("heads", std::int64_t{config.heads});
    document.set("kv_heads", std::int64_t{config.kv_heads});
    document.set("head_dim", std::int64_t{config.head_dim});
    document.set("context", std::int64_t{config.max_positions});
    document.set("tied_embeddings", config.tied_embeddings);
    document.set("layers", std::move(list));
    output.text +=
        fmt::format("architecture  {}: {} blocks, hidden {}, intermediate {}, {} heads ({} for keys), "
                    "vocabulary {}, context {}{}\n\n",
                    model.architecture().title(), config.blocks, config.hidden, config.intermediate,
                    config.heads, config.kv_heads, config.vocabulary, config.max_positions,
                    config.tied_embeddings ? ", tied embeddings" : "");
    output.text += table.text();
}

/// A file without a config.json beside it has no model, but still tensors to list.
bool is_bare_file(const std::filesystem::path& path)
{
    std::error_code problem;
    return std::filesystem::is_regular_file(path, problem)
           && !std::filesystem::exists(path.parent_path() / "config.json", problem);
}

Result<Output> tensors_only(const InfoOptions& options, const std::string& why)
{
    auto reader = CheckpointReader::open(options.path);
    if (!reader)
        return reader.error();
    Output output = describe_reader(**reader, options.tensors);
    if (!why.empty()) {
        output.document.set("model_error", why);
        output.text += fmt::format("{:<14}{}\n", "model", why);
    }
    if (options.tensors)
        output.text += "\n" + tensor_table(**reader);
    return output;
}

Result<Output> info(const InfoOptions& options)
{
    const bool bare = is_bare_file(options.path);
    const auto model = Model::open(options.path);
    if (!model) {
        // Only a GGUF file says what model it is; of another file nothing is missing but its company.
        if (!bare)
            return model.error();
        const auto reader = CheckpointReader::open(options.path);
        if (!reader)
            return reader.error();
        return tensors_only(options, is_gguf(**reader) ? model.error().sentence() : "");
    }
    Output output = describe_reader((*model)->checkpoint(), options.tensors);
    describe_model(**model, output);
    if (options.tensors)
        output.text += "\n" + tensor_table((*model)->checkpoint());
    return output;
}

} // namespace

void add_info(Program& program)
{
    auto options = std::make_shared<InfoOptions>();
    CLI::App* command = program.add("info", "Architecture, sizes, types, layers and roles",
                                    [options](Session&) { return info(*options); });
    add_path(command, options->path);
    command->add_flag("--tensors", options->tensors, "List every tensor too");
}

} // namespace rankscope::cli
