// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/detail/evaluation_state.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view k_format = "rankscope.evaluation-state";
constexpr std::int64_t k_version = 1;
constexpr Index k_chunk_tokens = Index{1} << 14;

/// Everything that a record depends on beside the weights, which the caller names.
Json key_of(const ScoredText& text, const PerplexityOptions& options, std::string_view kind)
{
    Json key;
    key.set("kind", kind);
    key.set("subject", options.state_key);
    key.set("program", RANKSCOPE_VERSION);
    key.set("protocol", id(options.protocol));
    key.set("text_hash", text.hash);
    key.set("length", std::int64_t{text.windows.length});
    key.set("stride", std::int64_t{text.stride});
    key.set("windows", std::int64_t{text.windows.count()});
    return key;
}

Json to_json(const WindowRecord& record)
{
    Json divergences(Json::Array{});
    for (const float kl : record.divergences)
        divergences.push_back(static_cast<double>(kl));
    Json json;
    json.set("targets", std::int64_t{record.targets});
    json.set("after", record.after);
    json.set("before", record.before);
    json.set("kl", record.kl);
    json.set("same_top", record.same_top);
    json.set("divergences", std::move(divergences));
    return json;
}

Result<WindowRecord> record_of(const Json& json, std::string_view kind)
{
    WindowRecord record;
    record.targets = json["targets"].is_integer() ? json["targets"].integer() : 0;
    record.after = json["after"].number(NAN);
    record.before = json["before"].number(NAN);
    record.kl = json["kl"].number(NAN);
    const std::int64_t same = json["same_top"].is_integer() ? json["same_top"].integer() : -1;
    const Json::Array* divergences = json["divergences"].array_if();
    const bool comparison = kind == "comparison";
    if (record.targets < 1 || !std::isfinite(record.after) || !std::isfinite(record.before)
        || !std::isfinite(record.kl) || same < 0 || same > record.targets || !divergences
        || static_cast<Index>(divergences->size()) != (comparison ? record.targets : 0))
        return bad_input("a window is not as it was written");
    record.same_top = static_cast<std::uint64_t>(same);
    for (const Json& kl : *divergences) {
        if (!kl.is_number() || !std::isfinite(kl.number()))
            return bad_input("a window is not as it was written");
        record.divergences.push_back(static_cast<float>(kl.number()));
    }
    return record;
}

Result<std::vector<WindowRecord>> read_state(const fs::path& file, const Json& key)
{
    constexpr char k_remedy[] = "Remove it, or name another file";
    std::error_code problem;
    if (!fs::exists(file, problem))
        return std::vector<WindowRecord>();
    const auto json = Json::read(file);
    if (!json)
        return json.error();
    const Json::Array* windows = (*json)["windows"].array_if();
    if ((*json)["format"].string() != k_format || (*json)["version"].integer() != k_version || !windows)
        return bad_input("this holds no evaluation to go on with", file.string(), k_remedy);
    if ((*json)["key"] != key)
        return bad_input("this belongs to an evaluation of other weights, another text or other options",
                         file.string(), k_remedy);
    if (static_cast<Index>(windows->size()) > key["windows"].integer())
        return bad_input("this holds more windows than the text has", file.string(), k_remedy);
    std::vector<WindowRecord> records;
    for (const Json& window : *windows) {
        auto record = record_of(window, key["kind"].string());
        if (!record)
            return record.error().in(fmt::format("{}, window {}", file.string(), records.size()));
        records.push_back(std::move(*record));
    }
    return records;
}

Status write_state(const fs::path& file, const Json& key, const std::vector<WindowRecord>& records)
{
    Json windows(Json::Array{});
    for (const WindowRecord& record : records)
        windows.push_back(to_json(record));
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("key", key);
    json.set("windows", std::move(windows));
    return write_text_file(file, json.dump(-1) + "\n", true);
}

ScoredText stretch(const ScoredText& text, Index first, Index count)
{
    ScoredText part = text;
    part.first_window = first;
    const auto tokens = text.windows.range(first, count);
    part.windows.tokens.assign(tokens.begin(), tokens.end());
    return part;
}

} // namespace

Result<std::vector<WindowRecord>> measure_windows(const ScoredText& text, const PerplexityOptions& options,
                                                  std::string_view kind, Monitor& monitor,
                                                  const ChunkMeasurement& measure)
{
    if (options.state.empty())
        return measure(text, monitor);
    const Json key = key_of(text, options, kind);
    auto records = read_state(options.state, key);
    if (!records)
        return records.error();
    // Whole batches: the products are the same whether the text is cut or not.
    const Index batch = windows_per_batch(text.windows.length);
    const Index step = std::max<Index>(1, k_chunk_tokens / (batch * text.windows.length)) * batch;
    const Index windows = text.windows.count();
    if (const auto known = static_cast<Index>(records->size()); known % step != 0 && known != windows)
        return bad_input(fmt::format("this holds {} windows, and they are written {} at a time", known, step),
                         options.state.string(), "Remove it, or name another file");
    for (auto first = static_cast<Index>(records->size()); first < windows; first += step) {
        const Index count = std::min(step, windows - first);
        StageMonitor stage(monitor,
                           fmt::format("windows {} to {} of {}, ", first + 1, first + count, windows));
        auto measured = measure(stretch(text, first, count), stage);
        if (!measured)
            return measured.error();
        records->insert(records->end(), std::make_move_iterator(measured->begin()),
                        std::make_move_iterator(measured->end()));
        if (auto kept = write_state(options.state, key, *records); !kept)
            return kept.error();
    }
    std::error_code ignored;
    fs::remove(options.state, ignored);
    return records;
}

std::string what_remains(const PerplexityOptions& options)
{
    return options.state.empty() ? "nothing was measured"
                                 : "finished windows are kept; the same command goes on from them";
}

} // namespace rankscope::detail
