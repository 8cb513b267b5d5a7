// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/channel_map.h"
#include "core/methods/method.h"
#include "core/teaching/picture.h"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace rankscope {

/// The layer that a lesson is taught on, with what its inputs looked like.
struct LessonInput {
    std::string layer;
    Matrix weight;                   ///< out × in
    Moments moments;                 ///< H and the magnitudes of the inputs
    MatrixD tokens;                  ///< sampled inputs, tokens × in; empty: none were kept
    const ChannelMap* map = nullptr; ///< the whole model's channels; null: not known
    Index outliers = 0;              ///< k; 0: as the lesson proposes
    std::uint64_t seed = 0;
};

/// What a lesson shows and tells, computed by the real methods on one layer: pictures and figures by name, as
/// the tour's script calls them. A name "residual.*" in a script stands for residual.0, residual.1, …
struct Lesson {
    std::string layer;
    std::map<std::string, LessonPicture, std::less<>> pictures;
    std::map<std::string, double, std::less<>> figures;
    std::map<std::string, Index> adjustable_to; ///< greatest value of what may be changed ("outliers")
};

/// One lesson: a pure function of its input.
struct LessonInfo {
    const char* id; ///< as in the scripts: "odlri"
    /// Errors: those of the methods it runs; BadInput when the calibration lacks what it needs. Throws
    /// Cancelled.
    Result<Lesson> (*teach)(const LessonInput& input, Backend& backend, Monitor& monitor);
};

/// All lessons. Adding one: teaching/foo_lesson.cpp, a line in lesson.cpp and a script in resources/tours.
std::span<const LessonInfo> lessons();
/// Null when there is no such lesson.
const LessonInfo* find_lesson(std::string_view id);

/// Everything a lesson needs of a layer. Errors: as reading them; without sampled tokens the input has none.
Result<LessonInput> lesson_input(const CalibrationStore& store, const Model& model, const LinearLayer& layer);

/// The layer of a model on which outlier channels are seen best: where the strongest input channel stands
/// out of the others' median the most. Null without layers. Errors: Io, BadInput.
Result<const LinearLayer*> most_telling_layer(const ChannelMap& map, const Model& model);

Result<Lesson> odlri_lesson(const LessonInput& input, Backend& backend, Monitor& monitor);
Result<Lesson> outlier_lesson(const LessonInput& input, Backend& backend, Monitor& monitor);
Result<Lesson> lrc_lesson(const LessonInput& input, Backend& backend, Monitor& monitor);
Result<Lesson> lrq_lesson(const LessonInput& input, Backend& backend, Monitor& monitor);

} // namespace rankscope
