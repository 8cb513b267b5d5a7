// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/run.h"

#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/compute/device_memory.h"
#include "core/methods/needed_moments.h"
#include "core/run/detail/block_execution.h"
#include "core/run/detail/layer_file.h"
#include "core/run/detail/layer_monitor.h"
#include "core/run/detail/layer_scheduler.h"
#include "core/run/detail/propagation.h"
#include "core/run/detail/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <new>
#include <utility>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

/// What a layer's job needs to know of its layer.
struct Job {
    const LayerPlan* row = nullptr;
    const LinearLayer* layer = nullptr;
    const Method* method = nullptr;
    std::uint64_t memory_bytes = 0;
    std::uint64_t device_bytes = 0; ///< 0: computed on the CPU
};

/// One execution: the jobs of the layers that are missing, and what they share.
class Execution {
public:
    Execution(const Model& model, const Plan& plan, const CalibrationStore* calibration,
              const fs::path& folder, Backend& backend, Monitor& monitor, const RunEvents& events)
        : model_(model), plan_(plan), calibration_(calibration), folder_(folder), backend_(backend),
          monitor_(monitor), events_(events)
    {}
    /// What a person asks of it; outlives the execution.
    void obey(const RunControl* control) { control_ = control; }

    /// Everything that can be refused before a file is touched. With a propagation its moments take the place
    /// of the calibration's.
    Status prepare(std::uint64_t memory_budget_bytes, Propagation* propagation);
    Status run(RunFolder& target, std::uint64_t memory_budget_bytes);
    /// The same block after block; `model` is the execution's own.
    Status run_propagated(RunFolder& target, std::uint64_t memory_budget_bytes,
                          const std::shared_ptr<const Model>& model);
    std::uint64_t missing_bytes(const std::set<std::string, std::less<>>& finished) const;

private:
    void warn_of_requantizing() const;
    Status refuse_impossible(const Job& job, std::uint64_t memory_budget_bytes) const;
    Status refuse_unpropagated(const Job& job) const;
    std::vector<Job> missing_jobs(const RunFolder& target);
    void fit_to_device();
    Backend& spare();
    void run_jobs(const std::vector<Job>& jobs, std::uint64_t memory_budget_bytes, RunIndex& index);
    std::vector<std::size_t> urgent(const std::vector<Job>& jobs) const;
    Status outcome() const;
    void work(const Job& job, RunIndex& index);
    Status compute(const Job& job, RunIndex& index);
    Result<Decomposition> decompose(const Job& job, const Matrix& weight, const Moments* moments,
                                    Backend& backend, Monitor& monitor) const;
    Result<Decomposition> decompose_somewhere(const Job& job, const Matrix& weight, const Moments* moments,
                                              std::string& backend_id);
    Status save(const Job& job, const Decomposition& decomposition, LayerResult result, RunIndex& index);
    void layer_failed(const Job& job, const Error& error);
    void tell(const std::string& layer, LayerState state, const std::string& message = {}) const;

    const Model& model_;
    const Plan& plan_;
    const CalibrationStore* calibration_;
    const fs::path& folder_;
    Backend& backend_;
    Monitor& monitor_;
    const RunEvents& events_;

    bool paused() const { return control_ && control_->paused(); }

    Propagation* propagation_ = nullptr;
    const RunControl* control_ = nullptr;
    std::vector<Job> jobs_;
    std::vector<Job> block_jobs_; // learned after the others, block by block
    std::mutex mutex_;
    std::unique_ptr<Backend> spare_; // the CPU, once a device has failed or is too small for a layer
    std::uint64_t device_budget_ = 0; // 0: the backend computes in the host's memory
    bool said_failure_ = false;
    std::atomic<bool> device_lost_ = false;
    std::atomic<bool> disk_full_ = false;
    std::atomic<std::uint64_t> done_ = 0;
    std::uint64_t total_ = 0;
    std::uint64_t failed_ = 0;
    Error first_error_;
};

Status Execution::refuse_unpropagated(const Job& job) const
{
    if (learns_from_blocks(*job.row))
        return usage_error("rows with objective=block see the compressed blocks before them as it is",
                           job.row->layer, "Leave --propagate out, or choose objective=layer");
    if (activations_of(job.method->info(), job.row->parameters).active())
        return usage_error("--propagate knows no moments of quantized activations", job.row->layer,
                           "Leave --propagate out, or set activation_bits=16");
    return {};
}

Status Execution::refuse_impossible(const Job& job, std::uint64_t memory_budget_bytes) const
{
    if (propagation_) {
        if (auto served = refuse_unpropagated(job); !served)
            return served;
    } else if (!learns_from_blocks(*job.row)) {
        if (auto served =
                check_calibration(job.method->info(), job.row->parameters, calibration_, job.row->layer);
            !served)
            return served;
    }
    const std::uint64_t held = resident_bytes();
    if (memory_budget_bytes > 0 && job.memory_bytes + held > memory_budget_bytes)
        return Error{
            ErrorKind::NoSpace,
            fmt::format("this layer needs about {} of memory beside the {} that the program holds, the "
                        "budget is {}",
                        format_byte_size(job.memory_bytes), format_byte_size(held),
                        format_byte_size(memory_budget_bytes)),
            job.row->layer, "Raise --memory, or leave the layer out of the plan"};
    return {};
}

void Execution::warn_of_requantizing() const
{
    const auto stored = [this](const Job& job) { return model_.checkpoint().find(job.layer->weight()); };
    const auto quantized = [&](const Job& job) { return stored(job)->is_quantized(); };
    const auto count = std::count_if(jobs_.begin(), jobs_.end(), quantized);
    if (count == 0)
        return;
    const TensorInfo& first = *stored(*std::find_if(jobs_.begin(), jobs_.end(), quantized));
    monitor_.warn(fmt::format("{} of {} layers are quantized already ({}): they are quantized again, and errors are "
                              "counted from these weights, not from those they were made of.",
                              count, jobs_.size(), first.type_name()));
}

Status Execution::prepare(std::uint64_t memory_budget_bytes, Propagation* propagation)
{
    propagation_ = propagation;
    if (plan_.checkpoint_hash != model_.checkpoint().header_hash())
        return bad_input("the plan was made for another checkpoint than this", model_.path().string(),
                         "Make a plan for this checkpoint with rankscope-cli plan");
    if (auto legal = plan_.check(model_); !legal)
        return legal.error();
    if (calibration_) {
        if (auto fits = calibration_->check(model_); !fits)
            return fits.error();
    }
    for (const LayerPlan& row : plan_.rows) {
        if (!row.include)
            continue;
        Job job{&row, model_.find_linear(row.layer), find_method(row.method)};
        const bool with_hessian = calibration_ || propagation_;
        job.memory_bytes = estimated_job_bytes(row, *job.layer, with_hessian);
        job.device_bytes = estimated_device_bytes(row, *job.layer, with_hessian);
        if (auto possible = refuse_impossible(job, memory_budget_bytes); !possible)
            return possible.error();
        (learns_from_blocks(row) ? block_jobs_ : jobs_).push_back(job);
    }
    if (jobs_.empty() && block_jobs_.empty())
        return usage_error("the plan includes no layer", {}, "Include at least one");
    warn_of_requantizing();
    fit_to_device();
    return {};
}

/// Layers that the device has no room for are the CPU's; said once.
void Execution::fit_to_device()
{
    const auto free = free_device_bytes(backend_);
    device_budget_ = free ? std::max<std::uint64_t>(*free, 1) : 0;
    std::string said;
    std::size_t count = 0;
    for (Job& job : jobs_) {
        if (!free || job.device_bytes <= *free)
            continue;
        if (count++ == 0)
            said = fmt::format("{} needs about {} of the device's memory, {} are free", job.row->layer,
                               format_byte_size(job.device_bytes), format_byte_size(*free));
        job.device_bytes = 0;
    }
    if (count > 0)
        monitor_.warn(fmt::format("{}: {} of {} layers are computed on the CPU.", said, count, jobs_.size()));
}

std::uint64_t Execution::missing_bytes(const std::set<std::string, std::less<>>& finished) const
{
    constexpr std::uint64_t k_index_bytes = 64 << 10;
    std::uint64_t bytes = k_index_bytes;
    for (const Job& job : block_jobs_)
        bytes += finished.contains(job.row->layer) ? 0 : layer_file_bytes(*job.row, *job.layer);
    for (const Job& job : jobs_)
        bytes += finished.contains(job.row->layer) ? 0 : layer_file_bytes(*job.row, *job.layer);
    return bytes;
}

void Execution::tell(const std::string& layer, LayerState state, const std::string& message) const
{
    if (events_.layer_changed)
        events_.layer_changed(layer, state, message);
}

void Execution::layer_failed(const Job& job, const Error& error)
{
    {
        const std::lock_guard lock(mutex_);
        if (failed_++ == 0)
            first_error_ = error;
    }
    if (error.kind == ErrorKind::NoSpace && error.where != job.row->layer)
        disk_full_ = true; // every further layer would fail in the same way
    tell(job.row->layer, LayerState::Failed, error.sentence());
}

Result<Decomposition> Execution::decompose(const Job& job, const Matrix& weight, const Moments* moments,
                                           Backend& backend, Monitor& monitor) const
{
    LayerProblem problem;
    problem.weight = backend.upload(weight);
    problem.moments = moments;
    problem.name = job.row->layer;
    problem.seed = plan_.seed;
    return job.method->decompose(problem, job.row->parameters, backend, monitor);
}

Backend& Execution::spare()
{
    const std::lock_guard lock(mutex_);
    if (!spare_)
        spare_ = make_cpu_backend();
    return *spare_;
}

Result<Decomposition> Execution::decompose_somewhere(const Job& job, const Matrix& weight,
                                                     const Moments* moments, std::string& backend_id)
{
    LayerMonitor monitor(job.row->layer, events_, monitor_);
    if (!device_lost_ && (device_budget_ == 0 || job.device_bytes > 0)) {
        try {
            backend_id = backend_.id();
            return decompose(job, weight, moments, backend_, monitor);
        } catch (const BackendFailure& failure) {
            const std::lock_guard lock(mutex_);
            if (!std::exchange(said_failure_, true)) {
                monitor_.warn(
                    fmt::format("The device failed during {}: {} Layers that fail on it are computed again "
                                "on the CPU; {} finished layers are safe.",
                                job.row->layer, failure.error().sentence(), done_.load()));
            }
            if (failure.error().kind == ErrorKind::NoDevice)
                device_lost_ = true;
        }
    }
    Backend& cpu = spare();
    backend_id = cpu.id();
    return decompose(job, weight, moments, cpu, monitor);
}

Status Execution::save(const Job& job, const Decomposition& decomposition, LayerResult result,
                       RunIndex& index)
{
    // File first, row second: a row without its file must never be seen.
    if (auto written = write_layer_file(layer_file_path(folder_, job.row->layer), *job.row, decomposition);
        !written)
        return written;
    const std::lock_guard lock(mutex_);
    return index.insert(result);
}

Status Execution::compute(const Job& job, RunIndex& index)
{
    const auto start = std::chrono::steady_clock::now();
    auto weight = model_.weight(*job.layer);
    if (!weight)
        return weight.error();
    model_.checkpoint().release(job.layer->weight()); // the mapped bytes have served
    Moments calibrated;
    const PropagatedMoments* propagated = nullptr;
    if (propagation_) {
        propagated = &propagation_->moments(job.layer->input_group);
    } else if (calibration_) {
        if (auto same = calibration_->check_layer(model_, *job.layer); !same)
            return same.error();
        auto read = needed_moments(job.method->info(), job.row->parameters, *calibration_,
                                   job.layer->input_group);
        if (!read)
            return read.error();
        calibrated = std::move(*read);
    }
    const Moments* moments = propagated ? &propagated->seen : calibration_ ? &calibrated : nullptr;
    LayerResult result;
    auto decomposition = decompose_somewhere(job, propagated ? propagated->target(*weight) : *weight, moments,
                                             result.backend);
    if (!decomposition)
        return decomposition.error();
    monitor_.throw_if_cancelled();
    result.layer = job.row->layer;
    result.method = job.row->method;
    result.parameters = job.row->parameters.to_json();
    result.bits_per_weight = decomposition->bits_per_weight();
    result.quantization_scale = decomposition->quantization_scale;
    result.quality = measure(*weight, *decomposition, moments);
    if (propagated)
        result.quality.relative_activation_error =
            propagated->relative_error(*weight, decomposition->reconstruct());
    result.trace = decomposition->trace;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const std::string summary = fmt::format("relative activation error {:.4g}, {:.4g} bits per weight",
                                            result.quality.relative_activation_error, result.bits_per_weight);
    if (auto saved = save(job, *decomposition, std::move(result), index); !saved)
        return saved;
    tell(job.row->layer, LayerState::Done, summary);
    return {};
}

void Execution::work(const Job& job, RunIndex& index)
{
    tell(job.row->layer, LayerState::Running);
    Status status;
    try {
        status = compute(job, index);
    } catch (const Cancelled&) {
        tell(job.row->layer, LayerState::Waiting, "cancelled");
        return;
    } catch (const BackendFailure& failure) {
        status = failure.error();
    } catch (const std::bad_alloc&) {
        status = Error{ErrorKind::NoSpace, "memory ran out", job.row->layer, "Lower --memory or --threads"};
    } catch (const std::exception& problem) {
        status = internal_error(problem.what(), job.row->layer);
    }
    if (status)
        monitor_.report(++done_, total_, "layer");
    else if (status.error().where.find(job.row->layer) != std::string::npos)
        layer_failed(job, status.error());
    else
        layer_failed(job, status.error().in(job.row->layer));
}

std::vector<Job> Execution::missing_jobs(const RunFolder& target)
{
    std::vector<Job> missing;
    total_ = jobs_.size();
    for (const Job& job : jobs_) {
        if (target.finished.contains(job.row->layer)) {
            ++done_;
            tell(job.row->layer, LayerState::Done, "finished before");
        } else {
            missing.push_back(job);
            tell(job.row->layer, LayerState::Waiting);
        }
    }
    monitor_.report(done_, total_, "layer");
    return missing;
}

void Execution::run_jobs(const std::vector<Job>& jobs, std::uint64_t memory_budget_bytes, RunIndex& index)
{
    std::vector<JobBytes> costs;
    for (const Job& job : jobs)
        costs.push_back({job.memory_bytes, job.device_bytes});
    // What the process holds already is part of the budget.
    const std::uint64_t held = resident_bytes();
    const std::uint64_t free = memory_budget_bytes > held ? memory_budget_bytes - held : 1;
    run_within_budget(
        costs, {memory_budget_bytes > 0 ? free : 0, device_budget_}, [&](std::size_t i) { work(jobs[i], index); },
        [&] { return monitor_.cancelled() || disk_full_ || paused(); }, [&] { return urgent(jobs); });
}

/// Those that are asked for, as places among the jobs.
std::vector<std::size_t> Execution::urgent(const std::vector<Job>& jobs) const
{
    std::vector<std::size_t> places;
    for (const std::string& layer : control_ ? control_->wanted() : std::vector<std::string>()) {
        const auto found =
            std::find_if(jobs.begin(), jobs.end(), [&](const Job& job) { return job.row->layer == layer; });
        if (found != jobs.end())
            places.push_back(static_cast<std::size_t>(found - jobs.begin()));
    }
    return places;
}

Status Execution::outcome() const
{
    if (failed_ > 0) {
        Error error = first_error_;
        error.message =
            fmt::format("{} of {} layers failed; the first one: {}", failed_, total_, error.message);
        if (error.remedy.empty())
            error.remedy = "The finished layers are saved; go on with --resume";
        return error;
    }
    if (done_ < total_)
        return Error{
            ErrorKind::Cancelled,
            fmt::format("stopped on request; {} of {} layers are finished and saved", done_.load(), total_),
            folder_.string(), "Go on with --resume"};
    return {};
}

Status Execution::run(RunFolder& target, std::uint64_t memory_budget_bytes)
{
    run_jobs(missing_jobs(target), memory_budget_bytes, target.index);
    return outcome();
}

Status Execution::run_propagated(RunFolder& target, std::uint64_t memory_budget_bytes,
                                 const std::shared_ptr<const Model>& model)
{
    std::map<int, std::vector<Job>> blocks;
    for (const Job& job : missing_jobs(target))
        blocks[job.layer->block].push_back(job);
    if (blocks.empty())
        return {};
    if (auto started = propagation_->start(folder_); !started)
        return started;
    const int last = blocks.rbegin()->first;
    for (int block = 0; block <= last; ++block) {
        if (const auto missing = blocks.find(block); missing != blocks.end()) {
            std::set<std::string> groups;
            for (const Job& job : missing->second)
                groups.insert(job.layer->input_group);
            if (auto collected = propagation_->collect(block, groups); !collected)
                return collected;
            run_jobs(missing->second, memory_budget_bytes, target.index);
            // What comes next would see this block as it must not be.
            if (failed_ > 0 || monitor_.cancelled() || paused())
                break;
        }
        if (block == last)
            break;
        auto run = Run::open(folder_);
        if (!run)
            return run.error();
        if (auto advanced = propagation_->advance(block, *run_weights(model, *run)); !advanced)
            return advanced;
    }
    return outcome();
}

Result<RunFolder> open_folder(const fs::path& folder, const RunManifest& manifest, const Plan& plan,
                              const RunOptions& options, const Execution& execution)
{
    std::error_code problem;
    if (options.resume && Run::is_run(folder))
        return RunFolder::resume(folder, manifest, plan);
    const bool taken =
        fs::exists(folder, problem) && !(fs::is_directory(folder, problem) && fs::is_empty(folder, problem));
    if (taken && !options.replace)
        return bad_input(
            Run::is_run(folder) ? "this run exists already" : "this exists already and is no run",
            folder.string(),
            Run::is_run(folder) ? "Go on with it with --resume, replace it with --force, or choose another "
                                  "folder"
                                : "Choose another folder");
    if (auto enough = require_free_disk(folder, execution.missing_bytes({})); !enough)
        return enough.error();
    return RunFolder::create(folder, manifest, plan, options.replace);
}

} // namespace

Status Run::execute(std::shared_ptr<const Model> model, const Plan& plan,
                    std::shared_ptr<const CalibrationStore> calibration, const fs::path& folder,
                    const RunOptions& options, Backend& backend, Monitor& monitor, const RunEvents& events)
{
    Plan complete = plan;
    if (calibration) {
        if (complete.calibration_id.empty())
            complete.calibration_id = calibration->id();
        if (complete.calibration_id != calibration->id())
            return bad_input("the plan was made with another calibration than this",
                             calibration->path().string(),
                             "Give the calibration that the plan was made with, or make the plan again");
    }
    try {
        Execution execution(*model, complete, calibration.get(), folder, backend, monitor, events);
        execution.obey(options.control.get());
        std::unique_ptr<Propagation> propagation;
        if (options.propagate) {
            auto prepared = Propagation::prepare(model, options, backend, monitor);
            if (!prepared)
                return prepared.error();
            propagation = std::move(*prepared);
        }
        if (auto ready = execution.prepare(options.memory_budget_bytes, propagation.get()); !ready)
            return ready;
        if (auto served = check_block_rows(*model, complete, options); !served)
            return served;
        std::error_code problem;
        const fs::path checkpoint = fs::absolute(model->path(), problem).lexically_normal();
        RunManifest manifest{checkpoint, complete.checkpoint_hash, complete.calibration_id, {}};
        if (const RotationManifest* rotation = model->rotation())
            manifest.rotation_seed = rotation->seed;
        if (propagation)
            manifest.propagation = propagation->id();
        auto target = open_folder(folder, manifest, complete, options, execution);
        if (!target)
            return target.error();
        if (auto enough = require_free_disk(folder, execution.missing_bytes(target->finished)); !enough)
            return enough;
        auto done = propagation ? execution.run_propagated(*target, options.memory_budget_bytes, model)
                                : execution.run(*target, options.memory_budget_bytes);
        if (!done)
            return done;
        return run_blocks(*model, complete, calibration.get(), folder, options, *target, backend, monitor, events);
    } catch (const Cancelled&) {
        return Error{ErrorKind::Cancelled, "stopped on request; finished layers are saved", folder.string(),
                     "Go on with --resume"};
    } catch (const BackendFailure& failure) {
        return failure.error();
    } catch (const std::bad_alloc&) {
        return Error{ErrorKind::NoSpace, "memory ran out", folder.string(), "Lower --memory or --threads"};
    }
}

bool Run::is_run(const fs::path& folder)
{
    std::error_code problem;
    if (!fs::is_regular_file(folder / k_manifest_name, problem))
        return false;
    auto manifest = Json::read(folder / k_manifest_name);
    return manifest && (*manifest)["format"].string() == "rankscope.run";
}

Result<std::shared_ptr<const Run>> Run::open(const fs::path& folder)
{
    std::error_code problem;
    if (!fs::exists(folder / k_manifest_name, problem))
        return bad_input("this is no run: there is no run.json", folder.string(),
                         "Make one with rankscope-cli compress");
    auto manifest = RunManifest::read(folder);
    if (!manifest)
        return manifest.error();
    auto plan = Plan::read(folder / k_plan_name);
    if (!plan)
        return plan.error();
    auto index = RunIndex::open(folder / k_index_name, false);
    if (!index)
        return index.error();
    auto rows = index->rows();
    if (!rows)
        return rows.error();
    std::shared_ptr<Run> run(new Run);
    run->folder_ = folder;
    run->checkpoint_path_ = manifest->checkpoint;
    run->plan_ = std::move(*plan);
    std::map<std::string_view, LayerResult*> by_name;
    for (LayerResult& row : *rows)
        by_name.emplace(row.layer, &row);
    for (const LayerPlan& row : run->plan_.rows) {
        if (const auto found = by_name.find(row.layer); found != by_name.end())
            run->results_.push_back(*found->second);
    }
    return std::shared_ptr<const Run>(std::move(run));
}

std::vector<LayerResult> Run::results() const { return results_; }

bool Run::complete() const
{
    const auto included =
        std::count_if(plan_.rows.begin(), plan_.rows.end(), [](const LayerPlan& row) { return row.include; });
    return static_cast<std::size_t>(included) == results_.size();
}

Result<Decomposition> Run::decomposition(std::string_view layer) const
{
    const auto found = std::find_if(results_.begin(), results_.end(),
                                    [&](const LayerResult& row) { return row.layer == layer; });
    if (found == results_.end())
        return bad_input("the run holds no finished layer of this name",
                         folder_.string() + ": " + std::string(layer));
    auto decomposition = read_layer_file(layer_file_path(folder_, layer));
    if (!decomposition)
        return decomposition.error();
    decomposition->trace = found->trace;
    return decomposition;
}

Result<std::shared_ptr<const Model>> Run::model() const
{
    auto opened = Model::open(checkpoint_path_);
    if (!opened)
        return opened.error().in("the checkpoint of the run " + folder_.string());
    if ((*opened)->checkpoint().header_hash() != plan_.checkpoint_hash)
        return bad_input("this is not the checkpoint that the run was made from", checkpoint_path_.string(),
                         "Put the original one back, or compress again");
    return opened;
}

} // namespace rankscope
