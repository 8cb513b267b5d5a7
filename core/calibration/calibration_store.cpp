// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/calibration_store.h"

#include "core/base/sha256.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/calibration/quantized_activations.h"

#include <algorithm>
#include <cstring>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace calibration_format;

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
    if (const Json& activations = json["activations"]; activations.object_if()) {
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

Status check_group(const CheckpointReader& reader, const std::string& group, bool with_second)
{
    const TensorInfo* mean = reader.find(group + k_mean_abs);
    if (!mean || mean->shape.size() != 1 || mean->shape[0] < 1)
        return broken(reader.path(), "the tensor " + group + k_mean_abs + " is missing or no vector");
    const std::int64_t channels = mean->shape[0];
    struct Expected {
        const char* suffix;
        DType dtype;
        Shape shape;
    };
    std::vector<Expected> expected = {{k_hessian, DType::F64, {channels, channels}},
                                      {k_mean_abs, DType::F64, {channels}},
                                      {k_max_abs, DType::F64, {channels}},
                                      {k_statistics, DType::F64, {k_statistics_rows, channels}},
                                      {k_histogram, DType::I64, {ActivationStatistics::k_histogram_bins}},
                                      {k_counts, DType::I64, {2}}};
    if (with_second) {
        expected.push_back({k_sigma_xy, DType::F64, {channels, channels}});
        expected.push_back({k_sigma_yy, DType::F64, {channels, channels}});
    }
    for (const auto& [suffix, dtype, shape] : expected) {
        if (auto status = expect(reader, group + suffix, dtype, shape); !status)
            return status;
    }
    return {};
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
    if (!matrix.allFinite())
        return broken(reader.path(), "the tensor " + name + " holds a value that is not finite");
    return matrix;
}

struct Counts {
    std::uint64_t tokens = 0;
    std::uint64_t zeros = 0;
};

Result<Counts> read_counts(const CheckpointReader& reader, std::string_view group)
{
    auto view = reader.view(std::string(group) + k_counts);
    if (!view)
        return view.error();
    const auto counts = elements<std::int64_t>(*view);
    if (auto whole = reader.confirm(std::string(group) + k_counts); !whole)
        return whole.error();
    if (counts.size() == 2 && counts[0] == 0)
        return bad_input("no token of the calibration text reached " + std::string(group),
                         reader.path().string(),
                         "Calibrate with more or other text, or leave the layers of this expert out");
    if (counts.size() != 2 || counts[0] < 0 || counts[1] < 0)
        return broken(reader.path(), "the token count of " + std::string(group) + " is out of range");
    return Counts{static_cast<std::uint64_t>(counts[0]), static_cast<std::uint64_t>(counts[1])};
}

} // namespace

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
    if ((*json)["format"].string() != k_format)
        return bad_input("this is no calibration: \"format\" is not \"" + std::string(k_format) + "\"",
                         file.string());
    if (const std::int64_t version = (*json)["version"].integer(-1);
        version < k_oldest_version || version > k_version)
        return broken(file, "this calibration has format version " + std::to_string(version)
                                + ", and this program reads versions " + std::to_string(k_oldest_version)
                                + " to " + std::to_string(k_version));
    auto source = read_source(*json, file);
    if (!source)
        return source.error();
    const Json::Array* blocks = (*json)["blocks"].array_if();
    if (!blocks || blocks->empty())
        return broken(file, "the list of blocks is missing");

    std::shared_ptr<CalibrationStore> store(new CalibrationStore);
    store->folder_ = folder;
    store->source_ = std::move(*source);
    for (std::size_t block = 0; block < blocks->size(); ++block) {
        const Json::Array* groups = (*blocks)[block]["groups"].array_if();
        if (!groups)
            return broken(file, "the groups of block " + std::to_string(block) + " are missing");
        auto reader = CheckpointReader::open(folder / block_file(static_cast<int>(block)));
        if (!reader)
            return reader.error().in("calibration");
        for (const Json& name : *groups) {
            if (auto status = check_group(**reader, name.string(), store->source_.activations.active());
                !status)
                return status.error();
            store->groups_.push_back(name.string());
            store->blocks_.push_back(static_cast<int>(block));
        }
        store->readers_.push_back(std::move(*reader));
    }
    return std::shared_ptr<const CalibrationStore>(std::move(store));
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
    auto counts = read_counts(**source, group);
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
        return bad_input("this calibration holds no covariances of quantised activations", folder_.string(),
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

Result<ActivationStatistics> CalibrationStore::statistics(std::string_view group) const
{
    auto source = reader(group);
    if (!source)
        return source.error();
    const std::string name(group);
    auto counts = read_counts(**source, group);
    if (!counts)
        return counts.error();
    auto rows = read_matrix(**source, name + k_statistics);
    if (!rows)
        return rows.error();
    auto histogram = (*source)->view(name + k_histogram);
    if (!histogram)
        return histogram.error();
    ColumnStatistics sums = ActivationStatistics::sums_of_rows(*rows);
    const auto bins = elements<std::uint64_t>(*histogram);
    if (auto whole = (*source)->confirm(name + k_histogram); !whole)
        return whole.error();
    std::copy_n(bins.begin(), sums.histogram.size(), sums.histogram.begin());
    sums.rows = counts->tokens;
    sums.zeros = counts->zeros;
    return ActivationStatistics(std::move(sums), {ActivationStatistics::k_outlier_threshold});
}

Status CalibrationStore::check(const Model& model) const
{
    if (source_.checkpoint_hash == model.checkpoint().header_hash())
        return {};
    return bad_input("this calibration was made from another checkpoint than " + model.path().string(),
                     folder_.string(), "Calibrate this checkpoint");
}

} // namespace rankscope
