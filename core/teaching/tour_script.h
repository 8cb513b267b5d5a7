// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/teaching/lesson.h"

#include <string>
#include <vector>

namespace rankscope {

/// One moment of a tour: the pictures on screen (one or two) and the term of the formula that is lit.
struct TourFrame {
    std::vector<std::string> pictures;
    std::string lit;     ///< name of a \term of the page's formula; empty: none
    bool printed = true; ///< on the exported page: of a wildcard's frames only the last one
};

/// One page. Texts hold figures of the lesson as {name}, {name:%} or {name:n}.
struct TourPage {
    std::string title;
    std::string text;
    std::string formula; ///< in the notation of app/workbench/tour/formula.h
    std::vector<TourFrame> frames;
    std::string question;
    std::string answer;
    std::string adjust; ///< what may be changed on this page: "outliers"; empty: nothing
};

struct TourScript {
    std::string id;
    std::string title;
    std::string summary;
    std::vector<TourPage> pages;
};

/// Errors: BadInput that names the page and what is wrong with it.
Result<TourScript> tour_script(const Json& json);

/// The script on one lesson: wildcards in frames become the lesson's numbered pictures, figures become
/// numbers. Errors: BadInput when the script names a picture or a figure that the lesson does not have.
Result<TourScript> tour_on(const TourScript& script, const Lesson& lesson);

/// `text` with {name} as a number of at most four digits, {name:%} as a percentage and {name:n} as a whole
/// number. Errors: BadInput for an unknown name or form, or a brace without its partner.
Result<std::string> with_figures(std::string_view text,
                                 const std::map<std::string, double, std::less<>>& figures);

} // namespace rankscope
