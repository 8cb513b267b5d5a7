// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/teaching/lesson.h"

#include "core/calibration/activation_statistics.h"

#include <algorithm>
#include <array>

namespace rankscope {

std::span<const LessonInfo> lessons()
{
    static constexpr std::array<LessonInfo, 4> all{{
        {"odlri", odlri_lesson},
        {"outliers", outlier_lesson},
        {"lrc", lrc_lesson},
        {"lrq", lrq_lesson},
    }};
    return all;
}

const LessonInfo* find_lesson(std::string_view id)
{
    const auto all = lessons();
    const auto found =
        std::find_if(all.begin(), all.end(), [id](const LessonInfo& info) { return info.id == id; });
    return found == all.end() ? nullptr : &*found;
}

Result<LessonInput> lesson_input(const CalibrationStore& store, const Model& model, const LinearLayer& layer)
{
    LessonInput input;
    input.layer = layer.name;
    auto weight = model.weight(layer);
    if (!weight)
        return weight.error();
    auto moments = layer_moments(store, model, layer);
    if (!moments)
        return moments.error();
    input.weight = std::move(*weight);
    input.moments = std::move(*moments);
    if (auto sample = store.sample(layer.input_group))
        input.tokens = sample->values.cast<double>();
    return input;
}

Result<const LinearLayer*> most_telling_layer(const ChannelMap& map, const Model& model)
{
    const LinearLayer* best = nullptr;
    double most = -1.0;
    for (const ChannelMap::Row& row : map.rows) {
        const VectorD energy = row.rms.cwiseAbs2();
        const double usual = median(energy);
        const double contrast = usual > 0.0 ? energy.maxCoeff() / usual : 0.0;
        const LinearLayer* layer = model.find_linear(row.group);
        if (!layer || contrast <= most)
            continue;
        most = contrast;
        best = layer;
    }
    if (!best && !model.linears().empty())
        best = &model.linears().front();
    return best;
}

} // namespace rankscope
