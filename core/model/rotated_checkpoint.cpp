// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/rotated_checkpoint.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/model/model.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view k_format = "rankscope.rotation";
constexpr std::int64_t k_version = 1;
/// R1 and the Hadamard rule of hadamard_matrix.h: the number changes with them.
constexpr std::string_view k_kind = "quarot-1";

class RotatedCheckpoint : public CheckpointReader {
public:
    RotatedCheckpoint(std::unique_ptr<CheckpointReader> stored, const RotationManifest& manifest,
                      fs::path folder, const Architecture& architecture, const ModelConfig& config)
        : stored_(std::move(stored)), folder_(std::move(folder)),
          hash_(sha256_hex(stored_->header_hash() + "/" + std::string(k_kind) + "/"
                           + std::to_string(manifest.seed))),
          rotation_(ModelRotation::random(config.hidden, manifest.seed)), heads_(config.heads),
          gain_offset_(architecture.norm_kind() == NormKind::RootMeanSquareFromOne ? 1.0F : 0.0F),
          tensors_(stored_->tensors().begin(), stored_->tensors().end())
    {
        for (int block = 0; block < static_cast<int>(config.blocks); ++block) {
            const BlockNames names = architecture.block_names(config, block);
            add_norm(names.attention_norm);
            add_norm(names.mlp_norm);
        }
        add_norm(architecture.final_norm());
        changes_[architecture.embedding()] = [this](const Matrix& rows) -> Result<Matrix> {
            return Matrix(rotation_.residual(rows.cast<double>()).cast<float>());
        };
        add_head(architecture, config.tied_embeddings);
        for (const LinearLayer& layer : architecture.linears(config))
            add_linear(layer, architecture, config);
    }

    const fs::path& path() const override { return folder_; }
    std::span<const fs::path> files() const override { return stored_->files(); }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return stored_->metadata(); }
    std::string header_hash() const override { return hash_; }

    Result<TensorView> view(std::string_view name) const override
    {
        if (changes_.contains(name) && name != embedding_)
            return bad_input("this tensor of a rotated model is computed as it is read and lies in no file",
                             folder_.string() + ": tensor " + std::string(name));
        return stored_->view(name);
    }

    Result<Matrix> read(std::string_view name) const override
    {
        auto matrix = stored_->read(name == head_ ? std::string_view(stored_head_) : name);
        if (!matrix)
            return matrix;
        const auto change = changes_.find(name);
        return change == changes_.end() ? matrix : change->second(*matrix);
    }

    Result<RowSource> rows(std::string_view name) const override
    {
        return changes_.contains(name) ? rows_of(read(name)) : stored_->rows(name);
    }

private:
    using Change = std::function<Result<Matrix>(const Matrix&)>;

    void add_norm(const std::string& name)
    {
        if (!name.empty())
            changes_[name] = [this](const Matrix& gain) -> Result<Matrix> {
                return Matrix(Matrix::Constant(gain.rows(), gain.cols(), 1.0F - gain_offset_));
            };
    }

    /// A tied head is the embedding before it was rotated.
    void add_head(const Architecture& architecture, bool tied)
    {
        embedding_ = architecture.embedding();
        head_ = architecture.head();
        stored_head_ = tied ? embedding_ : head_;
        changes_[head_] = reads_after(architecture.final_norm());
        const TensorInfo* source = stored_->find(stored_head_);
        if (!tied || !source)
            return;
        TensorInfo info = *source;
        info.name = head_;
        std::erase_if(tensors_, [&](const TensorInfo& tensor) { return tensor.name == head_; });
        tensors_.insert(
            std::upper_bound(tensors_.begin(), tensors_.end(), info,
                             [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; }),
            info);
    }

    Result<VectorD> gain_of(const std::string& norm) const
    {
        if (norm.empty())
            return VectorD();
        auto gain = stored_->read(norm);
        if (!gain)
            return gain.error();
        return VectorD(gain->reshaped<Eigen::RowMajor>().cast<double>().array()
                       + static_cast<double>(gain_offset_));
    }

    Change reads_after(const std::string& norm)
    {
        return [this, norm](const Matrix& weight) -> Result<Matrix> {
            const auto gain = gain_of(norm);
            if (!gain)
                return gain.error();
            return Matrix(rotation_.reader(weight.cast<double>(), *gain).cast<float>());
        };
    }

    void add_linear(const LinearLayer& layer, const Architecture& architecture, const ModelConfig& config)
    {
        const BlockNames names = architecture.block_names(config, layer.block);
        switch (layer.role) {
        case LinearRole::Output:
            changes_[layer.weight()] = [this](const Matrix& weight) -> Result<Matrix> {
                const MatrixD turned = with_rotated_attention(weight.cast<double>(), heads_);
                return Matrix(rotation_.writer(turned).cast<float>());
            };
            break;
        case LinearRole::Down:
            changes_[layer.weight()] = [this](const Matrix& weight) -> Result<Matrix> {
                return Matrix(rotation_.writer(with_rotated_input(weight.cast<double>())).cast<float>());
            };
            break;
        case LinearRole::Query:
        case LinearRole::Key:
            changes_[layer.weight()] = reads_after(names.attention_norm);
            break;
        case LinearRole::Value:
        case LinearRole::QueryKeyValue:
            add_values(layer, names.attention_norm, config);
            break;
        default:
            changes_[layer.weight()] = reads_after(names.mlp_norm);
        }
        if (layer.role == LinearRole::Output || layer.role == LinearRole::Down)
            changes_[layer.bias()] = [this](const Matrix& bias) -> Result<Matrix> {
                return Matrix(rotation_.residual(bias.cast<double>()).cast<float>());
            };
    }

    /// The rows of the values, which are the last of a fused matrix, turned by head.
    void add_values(const LinearLayer& layer, const std::string& norm, const ModelConfig& config)
    {
        const Index first = layer.out - config.kv_heads * config.head_dim;
        const Index head_dim = config.head_dim;
        changes_[layer.weight()] = [this, norm, first, head_dim](const Matrix& weight) -> Result<Matrix> {
            const auto gain = gain_of(norm);
            if (!gain)
                return gain.error();
            MatrixD read = rotation_.reader(weight.cast<double>(), *gain);
            return Matrix(with_rotated_heads(std::move(read), first, head_dim).cast<float>());
        };
        changes_[layer.bias()] = [first, head_dim](const Matrix& bias) -> Result<Matrix> {
            const MatrixD column = bias.transpose().cast<double>();
            return Matrix(with_rotated_heads(column, first, head_dim).transpose().cast<float>());
        };
    }

    std::unique_ptr<CheckpointReader> stored_;
    fs::path folder_;
    std::string hash_;
    ModelRotation rotation_;
    Index heads_;
    float gain_offset_;
    std::vector<TensorInfo> tensors_;
    std::string embedding_, head_, stored_head_;
    std::map<std::string, Change, std::less<>> changes_;
};

} // namespace

bool RotationManifest::is_rotated(const fs::path& folder)
{
    std::error_code problem;
    return fs::is_regular_file(folder / k_rotation_file, problem);
}

Result<RotationManifest> RotationManifest::read(const fs::path& folder)
{
    const fs::path file = folder / k_rotation_file;
    const auto json = Json::read(file);
    if (!json)
        return json.error();
    const auto refuse = [&](const std::string& message) {
        return bad_input(message, file.string(), "Make it again with rankscope-cli rotate");
    };
    if ((*json)["format"].string() != k_format)
        return refuse("this describes no rotated model");
    if ((*json)["version"].integer() != k_version || (*json)["kind"].string() != k_kind)
        return refuse("this rotation is of a kind that this version does not know");
    RotationManifest manifest;
    manifest.checkpoint = (*json)["checkpoint"]["path"].string();
    manifest.checkpoint_hash = (*json)["checkpoint"]["hash"].string();
    const std::string& seed = (*json)["seed"].string();
    const auto [end, problem] = std::from_chars(seed.data(), seed.data() + seed.size(), manifest.seed);
    if (problem != std::errc{} || end != seed.data() + seed.size() || seed.empty())
        return refuse("\"seed\" must be a whole number in quotes");
    if (manifest.checkpoint.empty() || manifest.checkpoint_hash.empty())
        return refuse("it does not name its checkpoint");
    return manifest;
}

std::unique_ptr<CheckpointReader> rotated_checkpoint(std::unique_ptr<CheckpointReader> stored,
                                                     const RotationManifest& manifest, const fs::path& folder,
                                                     const Architecture& architecture,
                                                     const ModelConfig& config)
{
    return std::make_unique<RotatedCheckpoint>(std::move(stored), manifest, folder, architecture, config);
}

Status write_rotated_model(const fs::path& checkpoint, std::uint64_t seed, const fs::path& folder,
                           bool replace)
{
    const auto model = Model::open(checkpoint);
    if (!model)
        return model.error();
    if ((*model)->rotation())
        return bad_input("this model is rotated already", checkpoint.string(),
                         "Rotate the model that it was made from");
    if (auto possible = check_rotatable((*model)->architecture(), (*model)->config()); !possible)
        return possible.error().in(checkpoint.string());
    if (auto ours = replace ? require_replaceable(folder, k_rotation_file) : Status{}; !ours)
        return ours;
    std::error_code problem;
    Json origin;
    origin.set("path", fs::absolute(checkpoint, problem).lexically_normal().string());
    origin.set("hash", (*model)->checkpoint().header_hash());
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("kind", k_kind);
    json.set("seed", std::to_string(seed)); // beyond 2^63 a number would lose digits
    json.set("checkpoint", std::move(origin));
    auto made = AtomicFolder::create(folder, replace);
    if (!made)
        return made.error();
    if (auto written = write_text_file(made->part() / k_rotation_file, json.dump(2) + "\n", false); !written)
        return written;
    return made->commit();
}

} // namespace rankscope
