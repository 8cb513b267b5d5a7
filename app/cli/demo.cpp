// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/report.h"
#include "app/cli/sample.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/calibration/calibration_store.h"
#include "core/export/exporter.h"

#include <fmt/format.h>

#include <chrono>

namespace rankscope::cli {
namespace {

constexpr std::int64_t k_bits = 2;
constexpr std::int64_t k_group = 64;
constexpr std::int64_t k_rank = 8;
constexpr const char* k_methods[] = {"rtn", "gptq", "svd_residual", "caldera", "odlri"};

struct DemoOptions {
    std::filesystem::path out;
    std::filesystem::path sample;
};

/// One method's way through plan, compression and evaluation.
struct MethodResult {
    std::string method;
    std::shared_ptr<const Run> run;
    RunSummary summary;
    PerplexityResult perplexity;
    double seconds = 0.0;
};

class Demo {
public:
    Demo(const DemoOptions& options, Session& session) : options_(options), session_(session) {}
    Result<Output> run();

private:
    Status prepare();
    Result<PerplexityResult> evaluate(const std::shared_ptr<const Run>& run);
    Result<MethodResult> try_method(const std::string& method);
    Status export_last();
    std::string method_table() const;
    std::string layer_comparison(Json& worse) const;
    Json document(const Json& worse) const;

    const DemoOptions& options_;
    Session& session_;
    std::filesystem::path sample_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const CalibrationStore> calibration_;
    PerplexityResult before_;
    std::vector<MethodResult> results_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status Demo::prepare()
{
    std::error_code problem;
    if (std::filesystem::exists(options_.out, problem) && !std::filesystem::is_empty(options_.out, problem))
        return bad_input("it exists already", options_.out.string(), "Choose a new folder");
    sample_ = options_.sample;
    if (sample_.empty()) {
        auto found = find_sample();
        if (!found)
            return found.error();
        sample_ = *found;
    }
    auto model = Model::open(sample_);
    if (!model)
        return model.error();
    model_ = *model;
    auto budget = session_.memory_budget();
    if (!budget)
        return budget.error();
    auto backend = session_.backend();
    if (!backend)
        return backend.error();
    CalibrationOptions calibration;
    calibration.memory_budget_bytes = *budget;
    session_.monitor().set_prefix("calibrate: ");
    const auto folder = options_.out / "calibration";
    if (auto done = calibrate(model_, sample_ / "calibration.txt", folder, calibration, **backend,
                              session_.monitor());
        !done)
        return done;
    auto store = CalibrationStore::open(folder);
    if (!store)
        return store.error();
    calibration_ = *store;
    session_.monitor().set_prefix("evaluate: ");
    auto before = evaluate(nullptr);
    if (!before)
        return before.error();
    before_ = std::move(*before);
    return {};
}

Result<PerplexityResult> Demo::evaluate(const std::shared_ptr<const Run>& run)
{
    auto backend = session_.backend();
    if (!backend)
        return backend.error();
    session_.monitor().set_detail("");
    const auto weights = run ? run_weights(model_, run) : checkpoint_weights(model_);
    return perplexity(model_, *weights, sample_ / "evaluation.txt", {}, **backend, session_.monitor());
}

Result<MethodResult> Demo::try_method(const std::string& method)
{
    const auto start = std::chrono::steady_clock::now();
    session_.monitor().set_prefix(method + ": ");
    PlanRequest request;
    request.method = method;
    request.bits = k_bits;
    request.group = k_group;
    request.rank = std::to_string(k_rank);
    request.seed = session_.options().seed;
    auto plan = make_plan(*model_, calibration_.get(), request);
    if (!plan)
        return plan.error();
    if (auto written = plan->write(options_.out / (method + ".plan.json"), false); !written)
        return written.error();
    auto run = compress(model_, *plan, calibration_, options_.out / method, {}, session_);
    if (!run)
        return run.error();
    auto after = evaluate(*run);
    if (!after)
        return after.error();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return MethodResult{method, *run, summarize(**run, *model_), std::move(*after), seconds};
}

Status Demo::export_last()
{
    auto exporter = require_exporter("hf");
    if (!exporter)
        return exporter.error();
    const auto folder = options_.out / "exported";
    session_.monitor().set_prefix("export: ");
    if (auto written = (*exporter)->write(*results_.back().run, *model_, folder, {}, session_.monitor());
        !written)
        return written;
    return (*exporter)->check(*results_.back().run, *model_, folder, session_.monitor());
}

std::string Demo::method_table() const
{
    Table table({"method", "activation error", "bits/weight", "perplexity before", "after", "seconds"});
    for (const MethodResult& result : results_)
        table.add({result.method, figure(result.summary.mean_activation_error),
                   figure(result.summary.bits_per_weight), figure(before_.perplexity),
                   figure(result.perplexity.perplexity), fmt::format("{:.1f}", result.seconds)});
    return table.text();
}

/// The methods' errors of each layer, and the layers on which ODLRI is not better than CALDERA's zero start.
std::string Demo::layer_comparison(Json& worse) const
{
    std::vector<std::string> header = {"activation error of"};
    for (const MethodResult& result : results_)
        header.push_back(result.method);
    Table table(header);
    std::string names;
    const auto& reference = results_[results_.size() - 2]; // caldera
    const auto& odlri = results_.back();
    const auto layers = odlri.run->results();
    for (std::size_t i = 0; i < layers.size(); ++i) {
        std::vector<std::string> row = {layers[i].layer};
        for (const MethodResult& result : results_)
            row.push_back(figure(result.run->results()[i].quality.relative_activation_error));
        table.add(std::move(row));
        if (layers[i].quality.relative_activation_error
            >= reference.run->results()[i].quality.relative_activation_error) {
            worse.push_back(layers[i].layer);
            names += (names.empty() ? "" : ", ") + layers[i].layer;
        }
    }
    return table.text()
           + (names.empty()
                  ? fmt::format("ODLRI is better than CALDERA's zero start on all {} layers.\n",
                                layers.size())
                  : fmt::format("ODLRI is not better than CALDERA's zero start on {} of {} layers: {}.\n",
                                worse.array_if()->size(), layers.size(), names));
}

Json Demo::document(const Json& worse) const
{
    Json methods(Json::Array{});
    for (const MethodResult& result : results_) {
        Json layers(Json::Array{});
        for (const LayerResult& layer : result.run->results())
            layers.push_back(to_json(layer));
        Json json = to_json(result.summary);
        json.set("method", result.method);
        json.set("perplexity", to_json(result.perplexity));
        json.set("seconds", result.seconds);
        json.set("layers", std::move(layers));
        methods.push_back(std::move(json));
    }
    Json json;
    json.set("sample", sample_.string());
    json.set("out", options_.out.string());
    json.set("original", to_json(before_));
    json.set("methods", std::move(methods));
    json.set("odlri_not_better_than_caldera", worse);
    json.set("exported", (options_.out / "exported").string());
    json.set("process", session_.process());
    return json;
}

Result<Output> Demo::run()
{
    if (auto ready = prepare(); !ready)
        return ready.error();
    for (const char* method : k_methods) {
        auto result = try_method(method);
        if (!result)
            return result.error().in(method);
        results_.push_back(std::move(*result));
    }
    if (auto exported = export_last(); !exported)
        return exported.error();
    Json worse(Json::Array{});
    const std::string comparison = layer_comparison(worse);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    Output output;
    output.document = document(worse);
    output.text =
        fmt::format("{} · {} layers · {} bit, group {}, rank {} · calibrated on {} tokens\n\n",
                    sample_.string(), model_->linears().size(), k_bits, k_group, k_rank,
                    calibration_->source().tokens)
        + method_table()
        + fmt::format("Perplexity by the {} protocol, {} windows of {} tokens of {}.\n\n",
                      id(before_.protocol), before_.windows, before_.length, before_.text_file)
        + comparison
        + fmt::format(
            "\nODLRI's model for Hugging Face transformers, read back and compared: {}\n{:.1f} s, {} of "
            "memory at most.\n",
            (options_.out / "exported").string(), seconds, format_byte_size(peak_resident_bytes()));
    return output;
}

} // namespace

void add_demo(Program& program)
{
    auto options = std::make_shared<DemoOptions>();
    CLI::App* command =
        program.add("demo", "The whole job on the sample: calibrate, plan, compress, evaluate, export",
                    [options](Session& session) { return Demo(*options, session).run(); });
    command->add_option("--out", options->out, "Folder for everything that is made")
        ->type_name("DIR")
        ->required();
    command->add_option("--sample", options->sample, "Folder with the sample model and its two texts")
        ->type_name("DIR");
}

} // namespace rankscope::cli
