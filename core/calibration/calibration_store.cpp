// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/calibration_store.h"

#include "core/base/sha256.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/calibration/detail/tensor_hashes.h"
#include "core/calibration/massive_activation.h"
#include "core/calibration/quantized_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace calibration_format;

constexpr std::int64_t k_output_columns = 4; ///< of the strongest entries: value, window, position, channel

Error broken(const fs::path& file, std::string what)
{
    return bad_input(std::move(what), file.string(), "Calibrate again");
}

template <class T>
std::vector<T> elements(const TensorView& view)
{
    std::vector<T> values(view.bytes.size() / sizeof(T));
    std::memcpy(values.data(), view.bytes.data(), values.size() * sizeof(T));
    return values;
}

Result<CalibrationSource> read_source(const Json& json, const fs::path& file)
{
    CalibrationSource source;
    source.checkpoint_hash = json["checkpoint_hash"].string();
    source.text_file = json["text_file"].string();
    source.text_hash = json["text_hash"].string();
    source.samples = static_cast<Index>(json["samples"].integer(-1));
    source.length = static_cast<Index>(json["length"].integer(-1));
    if (const Json& activations = json["activations"]; activations.is_object()) {
        source.activations = {static_cast<int>(activations["bits"].integer(0)), activations["clip"].number()};
        if (!check(source.activations))
            return broken(file, "bits or clip of \"activations\" is out of range");
    }
    const std::int64_t tokens = json["tokens"].integer(-1);
    if (source.checkpoint_hash.empty() || source.text_hash.empty() || source.samples < 1 || source.length < 1
        || tokens < 1)
        return broken(file,
                      "checkpoint_hash, text_hash, tokens, samples or length is missing or out of range");
    source.tokens = static_cast<std::uint64_t>(tokens);
    return source;
}

Result<std::vector<double>> read_thresholds(const Json& json, const fs::path& file)
{
    std::vector<double> thresholds;
    if (const Json::Array* list = json["thresholds"].array_if())
        for (const Json& threshold : *list)
            thresholds.push_back(threshold.number());
    if (thresholds.empty() || thresholds.front() != ActivationStatistics::k_outlier_threshold)
        return broken(file, "the list of thresholds is missing or does not begin with 6");
    return thresholds;
}

struct Expected {
    std::string suffix;
    DType dtype;
    Shape shape;
};

/// One tensor of a group has the type and shape that the format gives it.
Status expect(const CheckpointReader& reader, const std::string& name, DType dtype, const Shape& shape)
{
    const TensorInfo* info = reader.find(name);
    const std::string file = reader.path().string();
    if (!info)
        return broken(file, "the tensor " + name + " is missing");
    if (info->dtype != dtype || info->shape != shape)
        return broken(file, "the tensor " + name + " is " + std::string(rankscope::name(info->dtype))
                                + to_string(info->shape) + ", expected " + std::string(rankscope::name(dtype))
                                + to_string(shape));
    return {};
}

void expect_statistics(const std::string& kind, std::int64_t channels, std::size_t thresholds, int version,
                       std::vector<Expected>& expected)
{
    const auto rows = ActivationStatistics::k_fixed_rows + static_cast<std::int64_t>(thresholds);
    expected.push_back({kind + k_statistics, DType::F64, {rows, channels}});
    expected.push_back({kind + k_histogram, DType::I64, {ActivationStatistics::k_histogram_bins}});
    expected.push_back({kind + k_counts, DType::I64, {2}});
    if (version >= 2)
        expected.push_back({kind + k_crest, DType::F64, {2}});
}

/// Every tensor of a group, or of a block's output, that a calibration of this version has. The sample may be
/// missing (of an expert that none of the sampled tokens reached), but not be of another width than the
/// statistics.
Status check_tensors_of(const CheckpointReader& reader, const std::string& name, std::int64_t channels,
                        std::vector<Expected> expected, std::size_t thresholds, int version)
{
    expect_statistics("", channels, thresholds, version, expected);
    if (version >= 2) {
        expect_statistics(k_first, channels, thresholds, version, expected);
        expect_statistics(k_later, channels, thresholds, version, expected);
        if (const TensorInfo* tokens = reader.find(name + k_sample_tokens)) {
            const std::int64_t count = element_count(tokens->shape);
            expected.push_back({k_sample_tokens, DType::I64, {count}});
            expected.push_back({k_sample, DType::F16, {count, channels}});
        }
    }
    for (const auto& [suffix, dtype, shape] : expected) {
        if (auto status = expect(reader, name + suffix, dtype, shape); !status)
            return status;
    }
    return {};
}

Status check_group(const CheckpointReader& reader, const std::string& group, bool with_second,
                   std::size_t thresholds, int version)
{
    const TensorInfo* mean = reader.find(group + k_mean_abs);
    if (!mean || mean->shape.size() != 1 || mean->shape[0] < 1)
        return broken(reader.path(), "the tensor " + group + k_mean_abs + " is missing or no vector");
    const std::int64_t channels = mean->shape[0];
    std::vector<Expected> expected = {{k_hessian, DType::F64, {channels, channels}},
                                      {k_mean_abs, DType::F64, {channels}},
                                      {k_max_abs, DType::F64, {channels}}};
    if (with_second) {
        expected.push_back({k_sigma_xy, DType::F64, {channels, channels}});
        expected.push_back({k_sigma_yy, DType::F64, {channels, channels}});
    }
    return check_tensors_of(reader, group, channels, std::move(expected), thresholds, version);
}

Status check_output(const CheckpointReader& reader, std::size_t thresholds, int version)
{
    const TensorInfo* rows = reader.find(std::string(k_output) + k_statistics);
    const TensorInfo* strongest = reader.find(std::string(k_output) + k_strongest_entries);
    if (!rows || rows->shape.size() != 2 || !strongest || strongest->shape.size() != 2)
        return broken(reader.path(), "the statistics of the block's output are missing");
    const Shape shape = {strongest->shape[0], k_output_columns};
    return check_tensors_of(reader, k_output, rows->shape[1], {{k_strongest_entries, DType::F64, shape}},
                            thresholds, version);
}

Result<MatrixD> read_matrix(const CheckpointReader& reader, const std::string& name)
{
    auto view = reader.view(name);
    if (!view)
        return view.error();
    const Index cols = static_cast<Index>(view->shape.back());
    MatrixD matrix(view->shape.size() == 1 ? 1 : static_cast<Index>(view->shape[0]), cols);
    std::memcpy(matrix.data(), view->bytes.data(), view->bytes.size());
    if (auto whole = reader.confirm(name); !whole)
        return whole.error();
    reader.release(name); // the copy serves from here on
    if (!matrix.allFinite())
        return broken(reader.path(), "the tensor " + name + " holds a value that is not finite");
    return matrix;
}

struct Counts {
    std::uint64_t tokens = 0;
    std::uint64_t zeros = 0;
};

Result<Counts> read_counts(const CheckpointReader& reader, const std::string& name)
{
    auto view = reader.view(name + k_counts);
    if (!view)
        return view.error();
    const auto counts = elements<std::int64_t>(*view);
    if (auto whole = reader.confirm(name + k_counts); !whole)
        return whole.error();
    if (counts.size() != 2 || counts[0] < 0 || counts[1] < 0)
        return broken(reader.path(), "the token count of " + name + " is out of range");
    return Counts{static_cast<std::uint64_t>(counts[0]), static_cast<std::uint64_t>(counts[1])};
}

/// Of a group whose moments are asked for: some token must have reached it.
Result<Counts> read_positive_counts(const CheckpointReader& reader, std::string_view group)
{
    auto counts = read_counts(reader, std::string(group));
    if (counts && counts->tokens == 0)
        return bad_input("no token of the calibration text reached " + std::string(group),
                         reader.path().string(),
                         "Calibrate with more or other text, or leave the layers of this expert out");
    return counts;
}

std::string kind_suffix(TokenKind tokens)
{
    switch (tokens) {
    case TokenKind::First:
        return k_first;
    case TokenKind::Later:
        return k_later;
    case TokenKind::All:
        break;
    }
    return {};
}

Error too_old(const fs::path& folder, const std::string& what)
{
    return bad_input("this calibration was made by an older version and holds no " + what, folder.string(),
                     "Calibrate again");
}

} // namespace

std::vector<StrongEntry> BlockOutput::massive() const
{
    const double median = statistics.quantile_abs(0.5);
    std::vector<StrongEntry> found;
    for (const StrongEntry& entry : strongest) {
        if (is_massive(entry.value, median))
            found.push_back(entry);
    }
    return found;
}

Result<std::shared_ptr<const CalibrationStore>> CalibrationStore::open(const fs::path& folder)
{
    const fs::path file = folder / k_index_file;
    std::error_code problem;
    if (!fs::exists(file, problem))
        return bad_input("this is no calibration: it holds no " + std::string(k_index_file), folder.string(),
                         "Make one with `calibrate`");
    auto json = Json::read(file);
    if (!json)
        return json.error();
    std::shared_ptr<CalibrationStore> store(new CalibrationStore);
    store->folder_ = folder;
    if (auto read = store->read_index(*json, file); !read)
        return read.error();
    const Json::Array* blocks = (*json)["blocks"].array_if();
    if (!blocks || blocks->empty())
        return broken(file, "the list of blocks is missing");
    for (std::size_t block = 0; block < blocks->size(); ++block) {
        if (auto opened = store->open_block(block, (*blocks)[block], file); !opened)
            return opened.error();
    }
    return std::shared_ptr<const CalibrationStore>(std::move(store));
}

Status CalibrationStore::read_index(const Json& json, const fs::path& file)
{
    if (json["format"].string() != k_format)
        return bad_input("this is no calibration: \"format\" is not \"" + std::string(k_format) + "\"",
                         file.string());
    const std::int64_t version = json["version"].integer(-1);
    if (version < k_oldest_version || version > k_version)
        return broken(file, "this calibration has format version " + std::to_string(version)
                                + ", and this program reads versions " + std::to_string(k_oldest_version)
                                + " to " + std::to_string(k_version));
    version_ = static_cast<int>(version);
    auto source = read_source(json, file);
    if (!source)
        return source.error();
    source_ = std::move(*source);
    thresholds_ = {ActivationStatistics::k_outlier_threshold};
    if (version_ < 2)
        return {};
    auto thresholds = read_thresholds(json, file);
    if (!thresholds)
        return thresholds.error();
    thresholds_ = std::move(*thresholds);
    if (const Json::Array* stamps = json["files"].array_if())
        for (const Json& stamp : *stamps)
            stamps_.emplace_back(static_cast<std::uint64_t>(stamp["bytes"].integer(0)),
                                 stamp["changed_ns"].integer(-1));
    if (const Json::Object* hashes = json["tensors"].object_if())
        for (const auto& [tensor, hash] : *hashes)
            hashes_[tensor] = hash.string();
    return {};
}

Status CalibrationStore::open_block(std::size_t block, const Json& entry, const fs::path& file)
{
    const Json::Array* groups = entry["groups"].array_if();
    if (!groups)
        return broken(file, "the groups of block " + std::to_string(block) + " are missing");
    auto reader = CheckpointReader::open(folder_ / block_file(static_cast<int>(block)));
    if (!reader)
        return reader.error().in("calibration");
    for (const Json& name : *groups) {
        if (auto status = check_group(**reader, name.string(), source_.activations.active(),
                                      thresholds_.size(), version_);
            !status)
            return status;
        groups_.push_back(name.string());
        blocks_.push_back(static_cast<int>(block));
    }
    if (version_ >= 2) {
        if (auto status = check_output(**reader, thresholds_.size(), version_); !status)
            return status;
    }
    readers_.push_back(std::move(*reader));
    return {};
}

std::string CalibrationStore::id() const
{
    Json json;
    json.set("checkpoint", source_.checkpoint_hash);
    json.set("text", source_.text_hash);
    json.set("samples", std::int64_t{source_.samples});
    json.set("length", std::int64_t{source_.length});
    if (source_.activations.active()) {
        json.set("activation_bits", source_.activations.bits);
        json.set("activation_clip", source_.activations.clip);
    }
    json.set("version", 1); // of this name; the files have their own
    return sha256_hex(json.dump());
}

Result<const CheckpointReader*> CalibrationStore::reader(std::string_view group) const
{
    const auto found = std::find(groups_.begin(), groups_.end(), group);
    if (found == groups_.end())
        return bad_input("this calibration has no input group " + std::string(group), folder_.string(),
                         "Calibrate the checkpoint that is to be compressed");
    const int block = blocks_[static_cast<std::size_t>(found - groups_.begin())];
    return readers_[static_cast<std::size_t>(block)].get();
}

Result<Moments> CalibrationStore::moments(std::string_view group) const
{
    auto source = reader(group);
    if (!source)
        return source.error();
    const std::string name(group);
    auto counts = read_positive_counts(**source, group);
    if (!counts)
        return counts.error();
    auto hessian = read_matrix(**source, name + k_hessian);
    if (!hessian)
        return hessian.error();
    auto mean_abs = read_matrix(**source, name + k_mean_abs);
    if (!mean_abs)
        return mean_abs.error();
    auto max_abs = read_matrix(**source, name + k_max_abs);
    if (!max_abs)
        return max_abs.error();
    Moments moments;
    moments.tokens = counts->tokens;
    moments.hessian = std::move(*hessian);
    moments.mean_abs = mean_abs->row(0).transpose();
    moments.max_abs = max_abs->row(0).transpose();
    return moments;
}

Result<Moments> CalibrationStore::moments_with_activations(std::string_view group) const
{
    if (!source_.activations.active())
        return bad_input("this calibration holds no covariances of quantized activations", folder_.string(),
                         "Calibrate with --quantized-activations BITS");
    auto moments = this->moments(group);
    if (!moments)
        return moments;
    const CheckpointReader& source = **reader(group); // moments() has found it
    auto sigma_xy = read_matrix(source, std::string(group) + k_sigma_xy);
    if (!sigma_xy)
        return sigma_xy.error();
    auto sigma_yy = read_matrix(source, std::string(group) + k_sigma_yy);
    if (!sigma_yy)
        return sigma_yy.error();
    moments->activations = source_.activations;
    moments->sigma_xy = std::move(*sigma_xy);
    moments->sigma_yy = std::move(*sigma_yy);
    return moments;
}

Result<ActivationStatistics> CalibrationStore::read_statistics(const CheckpointReader& reader,
                                                               const std::string& name) const
{
    auto counts = read_counts(reader, name);
    if (!counts)
        return counts.error();
    auto rows = read_matrix(reader, name + k_statistics);
    if (!rows)
        return rows.error();
    auto histogram = reader.view(name + k_histogram);
    if (!histogram)
        return histogram.error();
    ColumnStatistics sums = ActivationStatistics::sums_of_rows(*rows);
    const auto bins = elements<std::uint64_t>(*histogram);
    if (auto whole = reader.confirm(name + k_histogram); !whole)
        return whole.error();
    std::copy_n(bins.begin(), sums.histogram.size(), sums.histogram.begin());
    sums.rows = counts->tokens;
    sums.zeros = counts->zeros;
    if (version_ >= 2) {
        auto crest = read_matrix(reader, name + k_crest);
        if (!crest)
            return crest.error();
        sums.crest_sum = (*crest)(0, 0);
        sums.crest_max = (*crest)(0, 1);
    }
    return ActivationStatistics(std::move(sums), thresholds_);
}

Result<ActivationStatistics> CalibrationStore::statistics(std::string_view group, TokenKind tokens) const
{
    auto source = reader(group);
    if (!source)
        return source.error();
    if (tokens != TokenKind::All && version_ < 2)
        return too_old(folder_, "statistics of first tokens");
    if (auto counts = read_positive_counts(**source, group); !counts)
        return counts.error();
    return read_statistics(**source, std::string(group) + kind_suffix(tokens));
}

Result<SampledTokens> CalibrationStore::sample(std::string_view group) const
{
    auto source = reader(group);
    if (!source)
        return source.error();
    if (version_ < 2)
        return too_old(folder_, "sampled tokens");
    SampledTokens sample;
    const auto tokens = (*source)->view(std::string(group) + k_sample_tokens);
    if (!tokens)
        return sample;
    for (const std::int64_t token : elements<std::int64_t>(*tokens))
        sample.tokens.push_back(static_cast<Index>(token));
    if (auto whole = (*source)->confirm(std::string(group) + k_sample_tokens); !whole)
        return whole.error();
    auto values = (*source)->read(std::string(group) + k_sample);
    if (!values)
        return values.error();
    sample.values = std::move(*values);
    return sample;
}

Result<BlockOutput> CalibrationStore::block_output(int block, TokenKind tokens) const
{
    if (version_ < 2)
        return too_old(folder_, "statistics of block outputs");
    if (block < 0 || static_cast<std::size_t>(block) >= readers_.size())
        return bad_input("this calibration has no block " + std::to_string(block), folder_.string());
    const CheckpointReader& reader = *readers_[static_cast<std::size_t>(block)];
    auto statistics = read_statistics(reader, k_output + kind_suffix(tokens));
    if (!statistics)
        return statistics.error();
    auto rows = read_matrix(reader, std::string(k_output) + k_strongest_entries);
    if (!rows)
        return rows.error();
    BlockOutput output{std::move(*statistics), {}};
    for (Index i = 0; i < rows->rows(); ++i)
        output.strongest.push_back({(*rows)(i, 0), static_cast<Index>((*rows)(i, 1)),
                                    static_cast<Index>((*rows)(i, 2)), static_cast<Index>((*rows)(i, 3))});
    return output;
}

bool CalibrationStore::unchanged_files(const Model& model) const
{
    const std::vector<FileStamp> now = file_stamps(model.checkpoint());
    return now.size() == stamps_.size()
           && std::equal(now.begin(), now.end(), stamps_.begin(), [](const FileStamp& a, const auto& b) {
                  return a.size_bytes == b.first && a.changed_ns == b.second && a.changed_ns >= 0;
              });
}

Status CalibrationStore::check_tensors(const Model& model, const std::vector<std::string>& names) const
{
    const std::lock_guard lock(checked_mutex_);
    for (const std::string& name : names) {
        const auto stored = hashes_.find(name);
        if (stored == hashes_.end())
            continue;
        auto checked = checked_.find(name);
        if (checked == checked_.end()) {
            auto hash = hash_tensors(model.checkpoint(), {name}, silent_monitor());
            if (!hash)
                return hash.error();
            checked = checked_.emplace(name, (*hash)[name] == stored->second).first;
        }
        if (!checked->second)
            return bad_input("the tensor " + name
                                 + " holds other bytes than when this calibration was made, in "
                                 + model.path().string(),
                             folder_.string(), "Calibrate this checkpoint again");
    }
    return {};
}

Status CalibrationStore::check(const Model& model) const
{
    const Error other =
        bad_input("this calibration was made from another checkpoint than " + model.path().string(),
                  folder_.string(), "Calibrate this checkpoint");
    if (source_.checkpoint_hash != model.checkpoint().header_hash())
        return other;
    if (hashes_.empty() || unchanged_files(model))
        return {};
    return check_tensors(model, embedding_tensors(model));
}

Status CalibrationStore::check_layer(const Model& model, const LinearLayer& layer) const
{
    if (hashes_.empty() || unchanged_files(model))
        return {};
    std::vector<std::string> names;
    for (std::string& name : block_tensors(model, layer.block)) {
        const auto is_weight = [&](const LinearLayer& other) { return other.weight() == name; };
        const bool of_other =
            name != layer.weight() && std::any_of(model.linears().begin(), model.linears().end(), is_weight);
        if (!of_other)
            names.push_back(std::move(name));
    }
    return check_tensors(model, names);
}

Result<Moments> layer_moments(const CalibrationStore& store, const Model& model, const LinearLayer& layer)
{
    if (auto same = store.check_layer(model, layer); !same)
        return same.error();
    return store.moments(layer.input_group);
}

} // namespace rankscope
