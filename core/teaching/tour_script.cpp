// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/teaching/tour_script.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope {
namespace {

Result<TourFrame> read_frame(const Json& json)
{
    TourFrame frame;
    const Json& pictures = json["pictures"];
    if (const std::string* one = pictures.string_if())
        frame.pictures.push_back(*one);
    else if (const Json::Array* several = pictures.array_if())
        for (const Json& name : *several)
            frame.pictures.push_back(name.string());
    frame.lit = json["lit"].string();
    if (frame.pictures.empty() || frame.pictures.size() > 2)
        return bad_input("a frame shows one or two pictures");
    return frame;
}

Result<TourPage> read_page(const Json& json)
{
    TourPage page;
    page.title = json["title"].string();
    page.text = json["text"].string();
    page.formula = json["formula"].string();
    page.question = json["question"].string();
    page.answer = json["answer"].string();
    page.adjust = json["adjust"].string();
    for (const auto& [name, value] : {std::pair{"title", &page.title},
                                      {"text", &page.text},
                                      {"formula", &page.formula},
                                      {"question", &page.question},
                                      {"answer", &page.answer}})
        if (value->empty())
            return bad_input(fmt::format("there is no \"{}\"", name));
    const Json::Array* frames = json["frames"].array_if();
    if (!frames || frames->empty())
        return bad_input("there are no \"frames\"");
    for (const Json& entry : *frames) {
        auto frame = read_frame(entry);
        if (!frame)
            return frame.error();
        page.frames.push_back(std::move(*frame));
    }
    return page;
}

std::string with_number(std::string_view pattern, std::size_t number)
{
    std::string name(pattern);
    return name.replace(name.size() - 1, 1, std::to_string(number));
}

bool is_wildcard(std::string_view name) { return name.ends_with(".*"); }

/// A frame with wildcards stands for one frame a number, as long as all its pictures are there.
Result<std::vector<TourFrame>> expanded(const TourFrame& frame, const Lesson& lesson)
{
    bool wild = false;
    for (const std::string& name : frame.pictures) {
        wild = wild || is_wildcard(name);
        if (!is_wildcard(name) && !lesson.pictures.contains(name))
            return bad_input(fmt::format("the lesson has no picture \"{}\"", name));
    }
    if (!wild)
        return std::vector{frame};
    std::vector<TourFrame> frames;
    for (std::size_t number = 0;; ++number) {
        TourFrame one = frame;
        bool there = true;
        for (std::string& name : one.pictures)
            if (is_wildcard(name)) {
                name = with_number(name, number);
                there = there && lesson.pictures.contains(name);
            }
        if (!there)
            break;
        one.printed = false;
        frames.push_back(std::move(one));
    }
    if (!frames.empty())
        frames.back().printed = true;
    else
        return bad_input(fmt::format("the lesson has no picture \"{}\"", frame.pictures.front()));
    return frames;
}

Result<TourPage> page_on(const TourPage& page, const Lesson& lesson)
{
    TourPage result = page;
    result.frames.clear();
    for (const TourFrame& frame : page.frames) {
        auto frames = expanded(frame, lesson);
        if (!frames)
            return frames.error();
        result.frames.insert(result.frames.end(), frames->begin(), frames->end());
    }
    for (std::string* text : {&result.text, &result.question, &result.answer}) {
        auto filled = with_figures(*text, lesson.figures);
        if (!filled)
            return filled.error();
        *text = std::move(*filled);
    }
    return result;
}

std::string percent(double share)
{
    const double value = 100.0 * share;
    return std::abs(value) >= 10.0 || value == 0.0 ? fmt::format("{:.0f} %", value)
                                                   : fmt::format("{:.2g} %", value);
}

Result<std::string> figure_text(std::string_view field,
                                const std::map<std::string, double, std::less<>>& figures)
{
    const auto colon = field.find(':');
    const std::string_view name = field.substr(0, colon);
    const std::string_view form = colon == std::string_view::npos ? "" : field.substr(colon + 1);
    const auto found = figures.find(name);
    if (found == figures.end())
        return bad_input(fmt::format("the lesson has no figure \"{}\"", name));
    if (form == "%")
        return percent(found->second);
    if (form == "n")
        return fmt::format("{:.0f}", found->second);
    if (form.empty())
        return fmt::format("{:.4g}", found->second);
    return bad_input(fmt::format("figure \"{}\" is asked for in an unknown form \"{}\"", name, form));
}

} // namespace

Result<TourScript> tour_script(const Json& json)
{
    TourScript script;
    script.id = json["id"].string();
    script.title = json["title"].string();
    script.summary = json["summary"].string();
    const Json::Array* pages = json["pages"].array_if();
    if (script.id.empty() || script.title.empty() || script.summary.empty() || !pages || pages->empty())
        return bad_input("a tour has an \"id\", a \"title\", a \"summary\" and \"pages\"");
    for (const Json& entry : *pages) {
        auto page = read_page(entry);
        if (!page)
            return page.error().in(fmt::format("{}, page {}", script.id, script.pages.size() + 1));
        script.pages.push_back(std::move(*page));
    }
    return script;
}

Result<TourScript> tour_on(const TourScript& script, const Lesson& lesson)
{
    TourScript result = script;
    for (std::size_t i = 0; i < script.pages.size(); ++i) {
        auto page = page_on(script.pages[i], lesson);
        if (!page)
            return page.error().in(fmt::format("{}, page {}", script.id, i + 1));
        result.pages[i] = std::move(*page);
    }
    return result;
}

Result<std::string> with_figures(std::string_view text,
                                 const std::map<std::string, double, std::less<>>& figures)
{
    std::string result;
    while (!text.empty()) {
        const auto open = text.find_first_of("{}");
        result += text.substr(0, open);
        if (open == std::string_view::npos)
            break;
        const auto close = text.find('}', open);
        if (text[open] == '}' || close == std::string_view::npos)
            return bad_input("a brace has no partner");
        auto value = figure_text(text.substr(open + 1, close - open - 1), figures);
        if (!value)
            return value.error();
        result += *value;
        text.remove_prefix(close + 1);
    }
    return result;
}

} // namespace rankscope
