// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/project.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/base/sha256.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view k_format = "rankscope.project";
constexpr std::int64_t k_schema = 1;
constexpr std::string_view k_suffix = ".rankscope.json";
constexpr std::size_t k_hash_digits = 64;

fs::path made_absolute(const fs::path& path)
{
    std::error_code problem;
    return fs::absolute(path, problem).lexically_normal();
}

/// As it stands in the file: relative to the project, so that both can move together.
std::string stored_path(const fs::path& path, const fs::path& home)
{
    const fs::path relative = path.lexically_relative(home);
    return (relative.empty() ? path : relative).generic_string();
}

bool is_hash(const std::string& text)
{
    return text.size() == k_hash_digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// A name of one folder, not a way out of the project's.
bool is_plain_name(const std::string& name)
{
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos
           && name.find('\0') == std::string::npos;
}

Error wrong(std::string_view key, std::string_view expected)
{
    return bad_input(fmt::format("\"{}\" must be {}", key, expected));
}

Result<fs::path> path_of(const Json& json, std::string_view key, const fs::path& home)
{
    const std::string* text = json[key].string_if();
    if (!text || text->empty() || text->find('\0') != std::string::npos)
        return wrong(key, "a path");
    return (home / *text).lexically_normal();
}

Result<std::int64_t> count_of(const Json& json, std::string_view key, std::int64_t least)
{
    const Json& value = json[key];
    if (!value.is_integer() || value.integer() < least)
        return wrong(key, fmt::format("a whole number from {} up", least));
    return value.integer();
}

/// Seeds go beyond what a JSON number holds exactly.
Result<std::uint64_t> seed_of(const Json& json, std::string_view key)
{
    const std::string* text = json[key].string_if();
    std::uint64_t seed = 0;
    if (text && !text->empty() && text->size() <= 20
        && text->find_first_not_of("0123456789") == std::string::npos) {
        bool fits = true;
        for (const char digit : *text) {
            const auto value = static_cast<std::uint64_t>(digit - '0');
            fits = fits && seed <= (UINT64_MAX - value) / 10;
            seed = seed * 10 + value;
        }
        if (fits)
            return seed;
    }
    return wrong(key, "a seed: a whole number below 2^64 in quotation marks");
}

Json to_json(const ProjectCalibration& calibration, const fs::path& home)
{
    Json json;
    json.set("text", stored_path(calibration.text, home));
    json.set("text_hash", calibration.text_hash);
    json.set("samples", std::int64_t{calibration.samples});
    json.set("length", std::int64_t{calibration.length});
    json.set("tokens", calibration.tokens);
    json.set("seed", std::to_string(calibration.seed));
    json.set("activation_bits", calibration.activations.bits);
    json.set("activation_clip", calibration.activations.clip);
    return json;
}

Result<ProjectCalibration> calibration_of(const Json& json, const fs::path& home)
{
    ProjectCalibration result;
    auto text = path_of(json, "text", home);
    auto samples = count_of(json, "samples", 1);
    auto length = count_of(json, "length", 2);
    auto tokens = count_of(json, "tokens", 1);
    auto seed = seed_of(json, "seed");
    if (!text || !seed)
        return text ? seed.error() : text.error();
    for (const auto* count : {&samples, &length, &tokens}) {
        if (!*count)
            return count->error();
    }
    result.text = std::move(*text);
    result.text_hash = json["text_hash"].string();
    if (!is_hash(result.text_hash))
        return wrong("text_hash", "64 hexadecimal digits");
    result.samples = *samples;
    result.length = *length;
    result.tokens = static_cast<std::uint64_t>(*tokens);
    result.seed = *seed;
    const std::int64_t bits = json["activation_bits"].integer(-1);
    result.activations.clip = json["activation_clip"].number(-1.0);
    if (bits < 2 || bits > 16)
        return wrong("activation_bits", "a whole number from 2 to 16");
    if (!(result.activations.clip > 0.0 && result.activations.clip <= 1.0))
        return wrong("activation_clip", "a number above 0 and up to 1");
    result.activations.bits = static_cast<int>(bits);
    return result;
}

Json to_json(const ProjectRun& run)
{
    Json json;
    json.set("name", run.name);
    json.set("program", run.program);
    json.set("backend", run.backend);
    json.set("threads", run.threads);
    json.set("seconds", run.seconds);
    json.set("plan_hash", run.plan_hash);
    return json;
}

Result<ProjectRun> run_of(const Json& json)
{
    ProjectRun run{json["name"].string(),      json["program"].string(),     json["backend"].string(),
                   json["threads"].integer(0), json["seconds"].number(-1.0), json["plan_hash"].string()};
    if (!is_plain_name(run.name))
        return wrong("name", "the name of a folder of the project");
    if (run.threads < 1)
        return wrong("threads", "a whole number from 1 up");
    if (!std::isfinite(run.seconds) || run.seconds < 0.0)
        return wrong("seconds", "a number from 0 up");
    if (!is_hash(run.plan_hash))
        return wrong("plan_hash", "64 hexadecimal digits");
    return run;
}

std::uint64_t bytes_of(const Model& model)
{
    std::uint64_t bytes = 0;
    std::error_code problem;
    for (const fs::path& file : model.checkpoint().files())
        bytes += static_cast<std::uint64_t>(fs::file_size(file, problem));
    return bytes;
}

Result<Project> from_json(const Json& json, const fs::path& home)
{
    Project project;
    if (json["format"].string() != k_format)
        return bad_input("this is no project: \"format\" is not \"rankscope.project\"");
    auto schema = count_of(json, "schema", 1);
    if (!schema)
        return schema.error();
    project.schema = *schema;
    const Json& checkpoint = json["checkpoint"];
    auto path = path_of(checkpoint, "path", home);
    auto bytes = count_of(checkpoint, "bytes", 1);
    if (!path || !bytes)
        return (path ? bytes.error() : path.error()).in("checkpoint");
    project.checkpoint = std::move(*path);
    project.checkpoint_bytes = static_cast<std::uint64_t>(*bytes);
    project.architecture = checkpoint["architecture"].string();
    auto plan = Plan::from_json(json["plan"]);
    if (!plan)
        return plan.error().in("plan");
    project.plan = std::move(*plan);
    if (checkpoint["hash"].string() != project.plan.checkpoint_hash)
        return bad_input("\"hash\" of the checkpoint is not the one that the plan was made for");
    if (!json["calibration"].is_null()) {
        auto calibration = calibration_of(json["calibration"], home);
        if (!calibration)
            return calibration.error().in("calibration");
        project.calibration = std::move(*calibration);
    }
    project.propagate = json["propagate"].boolean();
    project.budget = json["budget"].string();
    const Json::Array* runs = json["runs"].array_if();
    if (!runs)
        return wrong("runs", "a list");
    for (const Json& entry : *runs) {
        auto run = run_of(entry);
        if (!run)
            return run.error().in(fmt::format("run {}", project.runs.size() + 1));
        const bool twice = std::any_of(project.runs.begin(), project.runs.end(),
                                       [&](const ProjectRun& other) { return other.name == run->name; });
        if (twice)
            return bad_input(fmt::format("the run {} is there twice", run->name));
        project.runs.push_back(std::move(*run));
    }
    return project;
}

} // namespace

Result<Project> Project::make(const Model& model, const Plan& plan, const CalibrationStore* calibration,
                              const fs::path& text, std::uint64_t calibration_seed)
{
    if (plan.checkpoint_hash != model.checkpoint().header_hash())
        return bad_input("the plan was made for another checkpoint than this", model.path().string(),
                         "Make a plan for this checkpoint with rankscope-cli plan");
    if (plan.calibration_id != (calibration ? calibration->id() : std::string()))
        return bad_input("the plan was made with another calibration than this",
                         calibration ? calibration->path().string() : std::string("--calibration"),
                         "Give the calibration that the plan was made with");
    Project project;
    project.checkpoint = made_absolute(model.path());
    project.checkpoint_bytes = bytes_of(model);
    project.architecture = std::string(model.architecture().id());
    project.plan = plan;
    if (!calibration)
        return project;
    const CalibrationSource& source = calibration->source();
    project.calibration =
        ProjectCalibration{made_absolute(text), source.text_hash, source.samples,    source.length,
                           source.tokens,  calibration_seed, source.activations};
    if (auto same = project.check_text(); !same)
        return same.error();
    return project;
}

Result<Project> Project::read(const fs::path& file)
{
    auto json = Json::read(file);
    if (!json)
        return json.error();
    auto project = from_json(*json, made_absolute(file).parent_path());
    if (!project)
        return project.error().in(file.string());
    return project;
}

Status Project::write(const fs::path& file, bool replace) const
{
    if (auto named = data_folder(file); !named)
        return named.error();
    if (schema > k_schema)
        return bad_input(
            fmt::format("the project was written by a newer program (schema {}, this one knows {})", schema,
                        k_schema),
            file.string(), "Use that program; this one only shows it");
    const fs::path home = made_absolute(file).parent_path();
    Json where;
    where.set("path", stored_path(checkpoint, home));
    where.set("bytes", checkpoint_bytes);
    where.set("hash", plan.checkpoint_hash);
    where.set("architecture", architecture);
    Json list(Json::Array{});
    for (const ProjectRun& run : runs)
        list.push_back(to_json(run));
    Json json;
    json.set("format", k_format);
    json.set("schema", k_schema);
    json.set("program", RANKSCOPE_VERSION);
    json.set("checkpoint", std::move(where));
    json.set("calibration", calibration ? to_json(*calibration, home) : Json());
    json.set("propagate", propagate);
    json.set("plan", plan.to_json());
    json.set("budget", budget);
    json.set("runs", std::move(list));
    return write_text_file(file, json.dump(2) + "\n", replace);
}

Result<std::shared_ptr<const Model>> Project::model() const
{
    auto opened = Model::open(checkpoint);
    if (!opened)
        return opened.error().in("the project's checkpoint");
    if ((*opened)->checkpoint().header_hash() != plan.checkpoint_hash
        || bytes_of(**opened) != checkpoint_bytes)
        return bad_input("this is not the checkpoint that the project was made for", checkpoint.string(),
                         "Put the original one back, or make a new project");
    return opened;
}

Status Project::check_text() const
{
    if (!calibration)
        return {};
    auto hash = sha256_file(calibration->text);
    if (!hash)
        return hash.error().in("the calibration's text");
    if (*hash != calibration->text_hash)
        return bad_input("this is not the text that the calibration was made of", calibration->text.string(),
                         "Put the original one back, or calibrate anew and make a new project");
    return {};
}

std::string Project::plan_hash() const { return sha256_hex(plan.to_json().dump()); }

Result<fs::path> Project::data_folder(const fs::path& file)
{
    const std::string name = file.filename().string();
    if (name.size() <= k_suffix.size() || !name.ends_with(k_suffix))
        return usage_error("a project's file is named NAME.rankscope.json", file.string());
    return file.parent_path() / name.substr(0, name.size() - std::string_view(".json").size());
}

} // namespace rankscope
