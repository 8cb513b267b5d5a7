// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/block_curves.h"

#include "core/base/atomic_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr char k_folder[] = "curves";
constexpr char k_format[] = "rankscope.curve";
/// Whose inputs a block rounds: linears that read one tensor share it.
constexpr std::array k_ranged{LinearRole::Query, LinearRole::Output, LinearRole::Up, LinearRole::Down};

Json point_json(const LossPoint& point)
{
    Json json;
    json.set("step", std::int64_t{point.step});
    json.set("training", point.training);
    json.set("held_out", point.held_out < 0.0 ? Json() : Json(point.held_out));
    return json;
}

Result<LossPoint> point_of(const Json& json)
{
    if (!json["step"].is_integer() || !json["training"].is_number())
        return bad_input("a point of the curve needs \"step\" and \"training\"");
    LossPoint point{static_cast<Index>(json["step"].integer()), json["training"].number(), -1.0};
    if (json["held_out"].is_number())
        point.held_out = json["held_out"].number();
    return point;
}

Result<BlockCurve> curve_of(const Json& json)
{
    const Json::Array* points = json["curve"].array_if();
    if (json["format"].string() != k_format || !json["block"].is_integer() || !points || points->empty()
        || !json["best_step"].is_integer() || !json["learning_rate"].is_number()
        || !json["halvings"].is_integer())
        return bad_input("this is no curve of a learned block");
    BlockCurve curve;
    curve.block = static_cast<int>(json["block"].integer());
    curve.best_step = static_cast<Index>(json["best_step"].integer());
    curve.learning_rate = json["learning_rate"].number();
    curve.halvings = static_cast<Index>(json["halvings"].integer());
    for (const Json& entry : *points) {
        auto point = point_of(entry);
        if (!point)
            return point.error();
        curve.points.push_back(*point);
    }
    for (const LinearRole role : k_ranged) {
        const Json::Array* range = json["ranges"][short_name(role)].array_if();
        if (!range)
            continue;
        if (range->size() != 2 || !range->front().is_number() || !range->back().is_number())
            return bad_input("a range needs two numbers");
        curve.ranges[role] = {range->front().number(), range->back().number()};
    }
    return curve;
}

} // namespace

const LossPoint& BlockCurve::best() const
{
    return *std::min_element(points.begin(), points.end(),
                             [](const LossPoint& a, const LossPoint& b) { return a.training < b.training; });
}

Status write_block_curve(const fs::path& run, const BlockCurve& curve)
{
    Json points(Json::Array{});
    for (const LossPoint& point : curve.points)
        points.push_back(point_json(point));
    Json json;
    json.set("format", k_format);
    json.set("block", curve.block);
    json.set("best_step", std::int64_t{curve.best_step});
    json.set("learning_rate", curve.learning_rate);
    json.set("halvings", std::int64_t{curve.halvings});
    json.set("curve", std::move(points));
    if (!curve.ranges.empty()) {
        Json ranges;
        for (const auto& [role, range] : curve.ranges)
            ranges.set(std::string(short_name(role)), Json(Json::Array{range.first, range.second}));
        json.set("ranges", std::move(ranges));
    }
    std::error_code problem;
    fs::create_directories(run / k_folder, problem);
    return write_text_file(run / k_folder / fmt::format("{:03}.json", curve.block), json.dump(2) + "\n",
                           true);
}

Result<std::vector<BlockCurve>> read_block_curves(const fs::path& run)
{
    std::vector<BlockCurve> curves;
    std::error_code problem;
    for (fs::directory_iterator entry(run / k_folder, problem), end; !problem && entry != end;
         entry.increment(problem)) {
        if (entry->path().extension() != ".json")
            continue;
        auto json = Json::read(entry->path());
        if (!json)
            return json.error();
        auto curve = curve_of(*json);
        if (!curve)
            return curve.error().in(entry->path().string());
        curves.push_back(std::move(*curve));
    }
    std::sort(curves.begin(), curves.end(),
              [](const BlockCurve& a, const BlockCurve& b) { return a.block < b.block; });
    return curves;
}

} // namespace rankscope
