// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/model.h"

#include "core/checkpoint/packed_checkpoint.h"
#include "core/model/detail/architectures.h"
#include "core/model/detail/gguf_family.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace rankscope {
namespace {

/// A stored matrix as Backend::prepare_weight makes it, decoded row by row on its way there.
Result<Buffer> prepared_matrix(const CheckpointReader& reader, const std::string& name, Backend& backend)
{
    const auto source = reader.rows(name);
    if (!source)
        return source.error();
    const bool stored = reader.view(name).has_value(); // not computed from others
    std::atomic<bool> finite = true;
    Buffer prepared = backend.prepare_weight(source->rows, source->cols, [&](Index row, float* values) {
        source->decode(row, values);
        if (!Eigen::Map<const Eigen::ArrayXf>(values, source->cols).isFinite().all())
            finite = false;
    });
    if (auto whole = stored ? reader.confirm(name) : Status{}; !whole)
        return whole.error();
    if (!finite) {
        if (auto refused = reader.read(name); !refused) // says where
            return refused.error();
    }
    return prepared;
}

/// The weights as they are stored, read when asked for.
class CheckpointWeights : public WeightSource {
public:
    explicit CheckpointWeights(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        auto weight = model_->weight(layer);
        if (!weight)
            return weight.error();
        return with_bias(layer, backend.upload(*weight), backend);
    }

    Result<LinearWeight> prepared_linear(const LinearLayer& layer, Backend& backend) const override
    {
        if (layer.transposed)
            return WeightSource::prepared_linear(layer, backend);
        auto weight = prepared_matrix(model_->checkpoint(), layer.weight(), backend);
        if (!weight)
            return weight.error();
        return with_bias(layer, std::move(*weight), backend);
    }

private:
    Result<LinearWeight> with_bias(const LinearLayer& layer, Buffer weight, Backend& backend) const
    {
        LinearWeight result;
        result.weight = std::move(weight);
        // A tensor of that name may be a mask that the check passes over.
        if (model_->architecture().has_bias(model_->config(), layer.role)) {
            auto bias = model_->checkpoint().read(layer.bias());
            if (!bias)
                return bias.error();
            result.bias = backend.upload(*bias);
        }
        return result;
    }

    std::shared_ptr<const Model> model_;
};

/// Other weights, their inputs rounded.
class RoundedInputs : public WeightSource {
public:
    RoundedInputs(std::unique_ptr<WeightSource> weights, const ActivationQuantization& activations)
        : weights_(std::move(weights)), activations_(activations)
    {}

    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        return rounded(weights_->linear(layer, backend));
    }

    Result<LinearWeight> prepared_linear(const LinearLayer& layer, Backend& backend) const override
    {
        return rounded(weights_->prepared_linear(layer, backend));
    }

private:
    Result<LinearWeight> rounded(Result<LinearWeight> weight) const
    {
        if (weight)
            weight->activations = activations_;
        return weight;
    }

    std::unique_ptr<WeightSource> weights_;
    ActivationQuantization activations_;
};

Status check_ids(const Model& model, std::span<const TokenId> ids)
{
    const Index vocabulary = model.config().vocabulary;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return bad_input("token " + std::to_string(i) + " has the id " + std::to_string(ids[i])
                                 + ", but the model knows ids from 0 to " + std::to_string(vocabulary - 1),
                             model.path().string(), "Use the tokenizer that belongs to this model");
    }
    return {};
}

/// These rows of a tensor, in this order, and nothing else of it. Each must exist.
Result<Matrix> table_rows(const Model& model, const std::string& name, const std::vector<Index>& wanted)
{
    const auto table = model.checkpoint().view(name);
    if (!table)
        return table.error();
    Matrix rows(static_cast<Index>(wanted.size()), model.config().hidden);
    for (Index i = 0; i < rows.rows(); ++i) {
        const Index row = wanted[static_cast<std::size_t>(i)];
        table->decode_row(row, rows.row(i).data());
        if (!rows.row(i).allFinite())
            return bad_input("row " + std::to_string(row) + " holds a value that is not finite",
                             model.path().string() + ": tensor " + name,
                             "Download the file again; if it stays so, the model itself is damaged");
    }
    if (auto whole = model.checkpoint().confirm(name); !whole)
        return whole.error();
    return rows;
}

} // namespace

Result<LinearWeight> WeightSource::prepared_linear(const LinearLayer& layer, Backend& backend) const
{
    auto weight = linear(layer, backend);
    if (weight)
        weight->weight = backend.prepare_weight(weight->weight);
    return weight;
}

Result<std::shared_ptr<const Model>> Model::open(const std::filesystem::path& path)
{
    if (RotationManifest::is_rotated(path))
        return open_rotated(path);
    auto model = open_stored(path);
    if (!model)
        return model.error();
    return std::shared_ptr<const Model>(std::move(*model));
}

Result<std::shared_ptr<const Model>> Model::open_rotated(const std::filesystem::path& folder)
{
    auto manifest = RotationManifest::read(folder);
    if (!manifest)
        return manifest.error();
    auto opened = open_stored(manifest->checkpoint);
    if (!opened)
        return opened.error().in("the model that " + folder.string() + " was made from");
    Model& model = **opened;
    if (model.reader_->header_hash() != manifest->checkpoint_hash)
        return bad_input("this is not the checkpoint that the rotated model was made from",
                         manifest->checkpoint.string(), "Put the original one back, or rotate again");
    if (auto possible = check_rotatable(*model.architecture_, model.config_); !possible)
        return possible.error().in(folder.string());
    model.reader_ =
        rotated_checkpoint(std::move(model.reader_), *manifest, folder, *model.architecture_, model.config_);
    model.config_.tied_embeddings = false; // the head alone takes the final norm's gain
    model.path_ = folder;
    model.rotation_ = std::move(*manifest);
    return std::shared_ptr<const Model>(std::move(*opened));
}

Result<std::shared_ptr<Model>> Model::open_stored(const std::filesystem::path& path)
{
    std::error_code problem;
    if (!std::filesystem::exists(path, problem))
        return io_error("there is no such file or folder", path.string(), "Check the path");
    std::shared_ptr<Model> model(new Model);
    model->path_ = path;
    model->folder_ = std::filesystem::is_directory(path, problem) ? path : path.parent_path();
    if (auto described = model->describe(); !described)
        return described.error();
    if (!model->architecture_) {
        model->describe_unknown();
        return model;
    }
    if (auto fitted = model->architecture_->fitted_to(*model->reader_))
        model->architecture_ = std::move(fitted);
    if (auto checked = model->architecture_->check(model->config_, *model->reader_); !checked)
        return checked.error();
    model->linears_ = model->architecture_->linears(model->config_);
    return model;
}

Status Model::set_config(Result<ModelConfig> config, const std::filesystem::path& place)
{
    if (!config)
        return config.error();
    config_ = std::move(*config);
    auto architecture = architecture_for(config_);
    if (!architecture)
        return architecture.error().in(place.string());
    architecture_ = std::move(*architecture);
    return {};
}

/// A family that is not known leaves the architecture empty: the tensors tell the rest.
Status Model::describe_by(const std::filesystem::path& config_file)
{
    auto json = ModelConfig::read_json(config_file);
    if (!json)
        return json.error();
    const std::string* type = (*json)["model_type"].string_if();
    if (type && !type->empty() && !detail::find_architecture(*type)) {
        config_.model_type = *type;
        config_.raw = std::move(*json);
        return {};
    }
    auto config = ModelConfig::parse(*json);
    if (!config)
        return config.error().in(config_file.string());
    return set_config(std::move(config), config_file);
}

void Model::describe_unknown()
{
    architecture_ = detail::make_unknown(config_.model_type, *reader_);
    linears_ = architecture_->linears(config_);
    config_.blocks = linears_.empty() ? 0 : linears_.back().block + 1;
}

Status Model::describe_gguf()
{
    const std::string* type = reader_->metadata()["general.architecture"].string_if();
    if (const auto family = detail::gguf_family_of(*reader_); !family && type && !type->empty()) {
        config_.model_type = *type;
        return {};
    }
    const auto json = gguf_config(*reader_);
    if (!json)
        return json.error();
    auto config = ModelConfig::parse(*json);
    if (!config)
        return config.error().in(path_.string());
    if (auto set = set_config(std::move(config), path_); !set)
        return set;
    auto renamed = gguf_with_hugging_face_names(std::move(reader_));
    if (!renamed)
        return renamed.error();
    reader_ = std::move(*renamed);
    return {};
}

Status Model::describe()
{
    // A folder's config.json is read before its tensors: without it they cannot be understood.
    std::error_code problem;
    const bool folder = std::filesystem::is_directory(path_, problem);
    const std::filesystem::path config_file = folder_ / "config.json";
    if (folder) {
        if (auto described = describe_by(config_file); !described)
            return described;
    }
    auto reader = CheckpointReader::open(path_);
    if (!reader)
        return reader.error();
    reader_ = std::move(*reader);
    if (is_gguf(*reader_))
        return describe_gguf();
    if (!folder) {
        if (auto described = describe_by(config_file); !described)
            return described;
    }
    auto dense = with_dense_layers(std::move(reader_), folder_, config_.raw);
    if (!dense)
        return dense.error();
    reader_ = std::move(*dense);
    return {};
}

const LinearLayer* Model::find_linear(std::string_view name) const
{
    const auto found = std::find_if(linears_.begin(), linears_.end(),
                                    [name](const LinearLayer& layer) { return layer.name == name; });
    return found == linears_.end() ? nullptr : &*found;
}

Result<Matrix> Model::weight(const LinearLayer& layer) const
{
    auto stored = reader_->read(layer.weight());
    if (!stored || !layer.transposed)
        return stored;
    return Matrix(stored->transpose());
}

Result<std::shared_ptr<const Tokenizer>> Model::tokenizer() const
{
    const std::lock_guard lock(tokenizer_mutex_);
    if (!tokenizer_) {
        auto read = read_tokenizer();
        if (!read)
            return read.error();
        tokenizer_ = std::move(*read);
    }
    return tokenizer_;
}

Result<std::shared_ptr<const Tokenizer>> Model::read_tokenizer() const
{
    if (!is_gguf(*reader_))
        return Tokenizer::read(folder_);
    const auto json = gguf_tokenizer(*reader_);
    if (!json)
        return json.error();
    auto tokenizer = Tokenizer::parse(*json);
    if (!tokenizer)
        return tokenizer.error().in(path_.string());
    return tokenizer;
}

std::unique_ptr<WeightSource> checkpoint_weights(std::shared_ptr<const Model> model)
{
    return std::make_unique<CheckpointWeights>(std::move(model));
}

std::unique_ptr<WeightSource> with_quantized_activations(std::unique_ptr<WeightSource> weights,
                                                         const ActivationQuantization& activations)
{
    return std::make_unique<RoundedInputs>(std::move(weights), activations);
}

Result<Buffer> embed(const Model& model, std::span<const TokenId> ids, Index sequence_length,
                     Backend& backend)
{
    const Architecture& architecture = model.architecture();
    if (auto runs = architecture.runs(); !runs)
        return runs.error();
    if (auto checked = check_ids(model, ids); !checked)
        return checked.error();
    std::vector<Index> wanted(ids.begin(), ids.end());
    auto rows = table_rows(model, architecture.embedding(), wanted); // the table may be a gigabyte
    if (!rows)
        return rows.error();
    const double scale = architecture.embedding_scale(model.config());
    if (scale != 1.0)
        *rows *= static_cast<float>(scale);
    if (!architecture.positions().empty()) {
        if (sequence_length > model.config().max_positions)
            return bad_input("a sequence has " + std::to_string(sequence_length)
                                 + " tokens, but the model has learned "
                                 + std::to_string(model.config().max_positions) + " positions",
                             model.path().string(), "Choose a smaller length");
        for (std::size_t i = 0; i < wanted.size(); ++i)
            wanted[i] = static_cast<Index>(i) % sequence_length + architecture.first_position();
        const auto positions = table_rows(model, architecture.positions(), wanted);
        if (!positions)
            return positions.error();
        *rows += *positions;
    }
    if (const RotationManifest* manifest = model.rotation()) {
        const ModelRotation rotation = ModelRotation::random(model.config().hidden, manifest->seed);
        *rows = rotation.residual(rows->cast<double>()).cast<float>();
    }
    return backend.upload(*rows);
}

Result<OutputHead> OutputHead::load(const Model& model, Backend& backend)
{
    const Architecture& architecture = model.architecture();
    if (auto runs = architecture.runs(); !runs)
        return runs.error();
    auto norm = Norm::load(model, architecture.final_norm(), backend);
    if (!norm)
        return norm.error();
    auto weight = prepared_matrix(
        model.checkpoint(), model.config().tied_embeddings ? architecture.embedding() : architecture.head(),
        backend);
    if (!weight)
        return weight.error();
    OutputHead head;
    head.norm_ = std::move(*norm);
    head.head_ = std::move(*weight);
    head.logit_cap_ = model.config().logit_cap;
    return head;
}

Buffer OutputHead::logits(const Buffer& hidden, Backend& backend) const
{
    Buffer logits = backend.multiply(normalized(hidden, backend), Transpose::No, head_, Transpose::Yes);
    if (logit_cap_ > 0.0)
        backend.soft_cap(logits, logit_cap_);
    return logits;
}

Result<Matrix> logits(const Model& model, const WeightSource& weights, std::span<const TokenId> ids,
                      Backend& backend, Monitor& monitor)
{
    if (ids.empty())
        return bad_input("there are no tokens to compute logits of", model.path().string(),
                         "Give a text that is not empty");
    if (auto runs = model.architecture().runs(); !runs)
        return runs.error();
    const auto length = static_cast<Index>(ids.size());
    if (length > model.config().max_positions)
        return bad_input("the text has " + std::to_string(length) + " tokens, but the model's context holds "
                             + std::to_string(model.config().max_positions),
                         model.path().string(), "Shorten the text");
    auto hidden = embed(model, ids, length, backend);
    if (!hidden)
        return hidden.error();
    const auto blocks = static_cast<int>(model.config().blocks);
    for (int block = 0; block < blocks; ++block) {
        monitor.throw_if_cancelled();
        monitor.report(static_cast<std::uint64_t>(block), static_cast<std::uint64_t>(blocks), "block");
        auto loaded = TransformerBlock::load(model, weights, block, backend);
        if (!loaded)
            return loaded.error();
        monitor.throw_if_cancelled();
        loaded->forward(*hidden, length, backend);
    }
    monitor.throw_if_cancelled();
    auto head = OutputHead::load(model, backend);
    if (!head)
        return head.error();
    Matrix result = backend.download(head->logits(*hidden, backend));
    monitor.report(static_cast<std::uint64_t>(blocks), static_cast<std::uint64_t>(blocks), "block");
    return result;
}

} // namespace rankscope
