// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/error_curve.h"

#include "core/base/atomic_file.h"
#include "core/base/sha256.h"
#include "core/base/thread_pool.h"
#include "core/linalg/weighted_low_rank.h"
#include "core/methods/needed_moments.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>

namespace rankscope {
namespace {

constexpr std::string_view k_format = "rankscope.curves";
constexpr std::int64_t k_version = 1;
constexpr std::chrono::seconds k_save_interval{30};

Json parameters_without_rank(const LayerPlan& row)
{
    Json all = row.parameters.to_json();
    if (Json::Object* members = all.object_if())
        members->erase("rank");
    return all;
}

std::string weight_hash(const Matrix& weight)
{
    Sha256 hash;
    hash.update(fmt::format("{} {} ", weight.rows(), weight.cols()));
    hash.update(weight.data(), static_cast<std::size_t>(weight.size()) * sizeof(float));
    return hash.finish_hex();
}

/// Everything that the values of a curve depend on.
std::string curve_key(const LayerPlan& row, const std::string& weight, const std::string& calibration,
                      std::uint64_t seed)
{
    Json content;
    content.set("program", RANKSCOPE_VERSION);
    content.set("weight", weight);
    content.set("layer", row.layer); // keys the random numbers
    content.set("method", row.method);
    content.set("parameters", parameters_without_rank(row));
    content.set("calibration", calibration);
    content.set("seed", std::to_string(seed));
    return sha256_hex(content.dump());
}

Json curve_to_json(const std::string& key, const ErrorCurve& curve)
{
    Json ranks(Json::Array{});
    Json errors(Json::Array{});
    for (const auto& [rank, error] : curve.points) {
        ranks.push_back(std::int64_t{rank});
        errors.push_back(error);
    }
    Json json;
    json.set("key", key);
    json.set("layer", curve.layer);
    json.set("method", curve.method);
    json.set("parameters", curve.parameters);
    json.set("squared_norm", curve.squared_norm);
    json.set("ranks", std::move(ranks));
    json.set("errors", std::move(errors));
    return json;
}

bool plausible(double value) { return std::isfinite(value) && value >= 0.0; }

Result<ErrorCurve> curve_from_json(const Json& json)
{
    const Json::Array* ranks = json["ranks"].array_if();
    const Json::Array* errors = json["errors"].array_if();
    if (json["key"].string().empty() || !ranks || !errors || ranks->size() != errors->size())
        return bad_input("a curve needs a key and as many ranks as errors");
    ErrorCurve curve{json["layer"].string(),
                     json["method"].string(),
                     json["parameters"],
                     json["squared_norm"].number(-1.0),
                     {}};
    if (!plausible(curve.squared_norm))
        return bad_input("\"squared_norm\" must be a number from 0 up");
    for (std::size_t i = 0; i < ranks->size(); ++i) {
        const Json& rank = (*ranks)[i];
        const Json& error = (*errors)[i];
        if (!rank.is_integer() || rank.integer() < 0 || !error.is_number() || !plausible(error.number()))
            return bad_input("ranks and errors must be numbers from 0 up");
        if (!curve.points.emplace(rank.integer(), error.number()).second)
            return bad_input(fmt::format("rank {} is there twice", rank.integer()));
    }
    return curve;
}

Matrix rounding_error(const Matrix& weight, const Decomposition& decomposition)
{
    if (decomposition.quantized.empty())
        return weight;
    return weight - decomposition.quantized.dequantize();
}

Buffer hessian_buffer(const Moments* moments, Backend& backend)
{
    return moments && !moments->empty() ? backend.upload(moments->hessian) : Buffer{};
}

double relative(double part, double whole) { return whole > 0.0 ? part / whole : part > 0.0 ? 1.0 : 0.0; }

/// One layer on the way to its curves.
struct LayerWork {
    const CurveSource& source;
    std::uint64_t seed = 0;
    const LinearLayer& layer;
    Matrix weight;
    Moments moments;
    std::string hash;

    const Moments* moments_if() const { return source.calibration ? &moments : nullptr; }
};

Result<Decomposition> decompose_at(const LayerWork& work, const LayerPlan& row, Index rank)
{
    const Method& method = *find_method(row.method);
    Parameters parameters = row.parameters;
    if (method.info().find("rank")) {
        auto changed = parameters.with(method.info(), "rank", std::int64_t{rank});
        if (!changed)
            return changed.error();
        parameters = std::move(*changed);
    }
    LayerProblem problem;
    problem.weight = work.source.backend.upload(work.weight);
    problem.moments = work.moments_if();
    problem.name = row.layer;
    problem.seed = work.seed;
    // A monitor of its own: the method's steps are not the steps that the caller counts.
    class Quiet : public Monitor {
    public:
        explicit Quiet(Monitor& outer) : outer_(outer) {}
        void warn(std::string_view sentence) override { outer_.warn(sentence); }
        bool cancelled() const override { return outer_.cancelled(); }

    private:
        Monitor& outer_;
    } quiet(work.source.monitor);
    return method.decompose(problem, parameters, work.source.backend, quiet);
}

Status measure_points(const LayerWork& work, const CurveRequest& request, ErrorCurve& curve)
{
    const bool nested = ranks_are_nested(find_method(request.row.method)->info());
    for (auto rank = request.ranks.rbegin(); rank != request.ranks.rend(); ++rank) {
        if (curve.measured_at(*rank))
            continue;
        work.source.monitor.throw_if_cancelled();
        const auto made = decompose_at(work, request.row, *rank);
        if (!made)
            return made.error();
        if (!nested) {
            const double error = measure(work.weight, *made, work.moments_if()).relative_activation_error;
            curve.points[*rank] = error * error;
            continue;
        }
        const auto errors = truncated_errors(work.weight, *made, work.moments_if(), work.source.backend);
        for (std::size_t r = 0; r < errors.size(); ++r)
            curve.points[static_cast<Index>(r)] = errors[r];
    }
    return {};
}

/// What all jobs share.
struct Progress {
    std::mutex mutex;
    std::uint64_t done = 0;
    Status failure;
    std::chrono::steady_clock::time_point saved = std::chrono::steady_clock::now();
};

/// `requests` are of one layer.
Result<LayerWork> prepare(const CurveSource& source, std::uint64_t seed,
                          std::span<const CurveRequest> requests)
{
    const LayerPlan& row = requests.front().row;
    const LinearLayer* layer = source.model.find_linear(row.layer);
    if (!layer)
        return usage_error("the model has no linear layer of this name", row.layer);
    auto weight = source.model.weight(*layer);
    if (!weight)
        return weight.error();
    Moments moments;
    if (source.calibration) {
        if (auto same = source.calibration->check_layer(source.model, *layer); !same)
            return same.error();
        // One that asks for more serves the others too.
        const auto demanding =
            std::find_if(requests.begin(), requests.end(), [](const CurveRequest& request) {
                return find_method(request.row.method)->info().needs.quantized_activations;
            });
        const LayerPlan& most = (demanding == requests.end() ? requests.front() : *demanding).row;
        auto read = needed_moments(find_method(most.method)->info(), most.parameters, *source.calibration,
                                   layer->input_group);
        if (!read)
            return read.error();
        moments = std::move(*read);
    }
    std::string hash = weight_hash(*weight);
    return LayerWork{source, seed, *layer, std::move(*weight), std::move(moments), std::move(hash)};
}

Status measure_layer(const CurveSource& source, std::uint64_t seed, std::span<const CurveRequest> requests,
                     std::span<ErrorCurve> curves, Progress& progress)
{
    auto work = prepare(source, seed, requests);
    if (!work)
        return work.error();
    const std::string calibration = source.calibration ? source.calibration->id() : std::string();
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const LayerPlan& row = requests[i].row;
        const std::string key = curve_key(row, work->hash, calibration, seed);
        {
            const std::lock_guard lock(progress.mutex);
            if (const ErrorCurve* kept = source.store.find(key))
                curves[i] = *kept;
        }
        if (curves[i].points.empty()) {
            curves[i] = {row.layer, row.method, parameters_without_rank(row), 0.0, {}};
            curves[i].squared_norm =
                weighted_squared_norm(source.backend.upload(work->weight),
                                      hessian_buffer(work->moments_if(), source.backend), source.backend);
        }
        if (auto measured = measure_points(*work, requests[i], curves[i]); !measured)
            return measured;
        const std::lock_guard lock(progress.mutex);
        source.store.put(key, curves[i]);
        if (std::chrono::steady_clock::now() - progress.saved > k_save_interval) {
            progress.saved = std::chrono::steady_clock::now();
            if (auto saved = source.store.save(); !saved)
                return saved;
        }
    }
    return {};
}

} // namespace

std::string curve_key(const LayerPlan& row, const Matrix& weight, const std::string& calibration,
                      std::uint64_t seed)
{
    return curve_key(row, weight_hash(weight), calibration, seed);
}

double ErrorCurve::error_at(Index rank) const
{
    if (points.empty())
        return 1.0;
    double low = points.begin()->second;
    Index low_rank = points.begin()->first;
    for (const auto& [place, measured] : points) {
        const double error = std::min(low, measured);
        if (place >= rank) {
            if (place == rank || place == low_rank)
                return error;
            const double share = static_cast<double>(rank - low_rank) / static_cast<double>(place - low_rank);
            if (rank <= low_rank)
                return low;
            return error > 0.0 ? low * std::pow(error / low, share) : low * (1.0 - share);
        }
        low = error;
        low_rank = place;
    }
    return low;
}

Result<CurveStore> CurveStore::open(const std::filesystem::path& file)
{
    CurveStore store;
    store.file_ = file;
    std::error_code problem;
    if (file.empty() || !std::filesystem::exists(file, problem))
        return store;
    const auto json = Json::read(file);
    if (!json)
        return json.error();
    const Json::Array* curves = (*json)["curves"].array_if();
    if ((*json)["format"].string() != k_format || !curves)
        return bad_input(fmt::format("this holds no error curves: \"format\" is not \"{}\"", k_format),
                         file.string(), "Name another file; it is made where there is none");
    if ((*json)["version"].integer() != k_version)
        return bad_input(fmt::format("version {} of the curve format is not known, only {}",
                                     (*json)["version"].dump(), k_version),
                         file.string(), "Remove the file; the curves are measured again");
    for (std::size_t i = 0; i < curves->size(); ++i) {
        auto curve = curve_from_json((*curves)[i]);
        if (!curve)
            return curve.error().in(fmt::format("{}: curve {}", file.string(), i + 1));
        store.put((*curves)[i]["key"].string(), std::move(*curve));
    }
    if (const Json::Object* increases = (*json)["loss_increases"].object_if()) {
        for (const auto& [key, increase] : *increases) {
            if (!increase.is_number() || !std::isfinite(increase.number()))
                return bad_input("an increase of the loss must be a number", file.string(),
                                 "Remove the file; the curves are measured again");
            store.put_loss_increase(key, increase.number());
        }
    }
    return store;
}

Status CurveStore::save() const
{
    if (file_.empty())
        return {};
    Json list(Json::Array{});
    for (const auto& [key, curve] : curves_)
        list.push_back(curve_to_json(key, curve));
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("curves", std::move(list));
    if (!increases_.empty()) {
        Json increases(Json::Object{});
        for (const auto& [key, increase] : increases_)
            increases.set(key, increase);
        json.set("loss_increases", std::move(increases));
    }
    return write_text_file(file_, json.dump(-1) + "\n", true);
}

const ErrorCurve* CurveStore::find(const std::string& key) const
{
    const auto found = curves_.find(key);
    return found == curves_.end() ? nullptr : &found->second;
}

std::optional<double> CurveStore::loss_increase(const std::string& key) const
{
    const auto found = increases_.find(key);
    return found == increases_.end() ? std::nullopt : std::optional(found->second);
}

bool ranks_are_nested(const MethodInfo& method)
{
    // `rounding` is declared by the methods that are made of correct_rounding; one with iterations starts
    // anew.
    return method.has_low_rank && method.find("rounding") && !method.find("iterations");
}

std::vector<double> truncated_errors(const Matrix& weight, const Decomposition& decomposition,
                                     const Moments* moments, Backend& backend)
{
    const auto wide = [&](const Matrix& matrix) { return backend.upload(MatrixD(matrix.cast<double>())); };
    const Buffer hessian = hessian_buffer(moments, backend);
    const Buffer error = wide(rounding_error(weight, decomposition));
    const double whole = weighted_squared_norm(wide(weight), hessian, backend);
    const double start = weighted_squared_norm(error, hessian, backend);
    std::vector<double> errors{relative(start, whole)};
    const Index rank = decomposition.low_rank.rank();
    if (rank == 0)
        return errors;
    // ‖(E − L·R)·H^½‖² = ‖E·H^½‖² − 2·Σ Lᵢᵀ·E·H·Rᵢᵀ + Σ (LᵀL)ᵢⱼ·(R·H·Rᵀ)ᵢⱼ, each sum over the first r only.
    const Buffer left = wide(decomposition.low_rank.left);
    const Buffer right = wide(decomposition.low_rank.right);
    const Buffer weighted = hessian.empty() ? backend.copy(right) : backend.multiply(right, hessian);
    const MatrixD cross =
        backend.download_double(backend.multiply(error, Transpose::No, weighted, Transpose::Yes));
    const MatrixD pairs = backend.download_double(backend.multiply(left, Transpose::Yes, left, Transpose::No))
                              .cwiseProduct(backend.download_double(
                                  backend.multiply(weighted, Transpose::No, right, Transpose::Yes)));
    double sum = start;
    for (Index r = 0; r < rank; ++r) {
        const double gain = decomposition.low_rank.left.col(r).cast<double>().dot(cross.col(r));
        sum += pairs(r, r) - 2.0 * gain;
        for (Index j = 0; j < r; ++j)
            sum += 2.0 * pairs(r, j);
        errors.push_back(relative(std::max(sum, 0.0), whole));
    }
    return errors;
}

Result<std::vector<ErrorCurve>> measure_curves(const CurveSource& source, std::uint64_t seed,
                                               std::span<const CurveRequest> requests)
{
    // Requests of one layer stand together: its weight and moments are read once.
    std::vector<std::size_t> starts;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto method = require_method(requests[i].row.method);
        if (!method)
            return method.error().in(requests[i].row.layer);
        if (auto served = check_calibration((*method)->info(), requests[i].row.parameters, source.calibration,
                                            requests[i].row.layer);
            !served)
            return served.error();
        if (i == 0 || requests[i].row.layer != requests[i - 1].row.layer)
            starts.push_back(i);
    }
    std::vector<ErrorCurve> curves(requests.size());
    Progress progress;
    const auto body = [&](std::int64_t group) {
        source.monitor.throw_if_cancelled();
        const std::size_t first = starts[static_cast<std::size_t>(group)];
        const std::size_t next = static_cast<std::size_t>(group) + 1;
        const std::size_t count = (next < starts.size() ? starts[next] : requests.size()) - first;
        auto measured = measure_layer(source, seed, requests.subspan(first, count),
                                      std::span(curves).subspan(first, count), progress);
        const std::lock_guard lock(progress.mutex);
        if (!measured && progress.failure)
            progress.failure = measured.error().where.find(requests[first].row.layer) != std::string::npos
                                   ? measured.error()
                                   : measured.error().in(requests[first].row.layer);
        source.monitor.report(++progress.done, starts.size(), "layer");
    };
    try {
        source.monitor.report(0, starts.size(), "layer");
        parallel_for(0, static_cast<std::int64_t>(starts.size()),
                     [&](std::int64_t group) { isolate([&] { body(group); }); });
    } catch (const Cancelled&) {
        (void)source.store.save(); // what is measured already is not lost; the cancellation is what is told
        throw;
    }
    if (auto saved = source.store.save(); !saved)
        return saved.error();
    if (!progress.failure)
        return progress.failure.error();
    return curves;
}

} // namespace rankscope
