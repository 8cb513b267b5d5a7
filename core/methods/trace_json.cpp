// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/trace_json.h"

namespace rankscope {

Json trace_to_json(const std::vector<IterationReport>& trace)
{
    Json list(Json::Array{});
    for (const IterationReport& report : trace) {
        Json entry;
        entry.set("step", report.step);
        entry.set("stage", report.stage);
        entry.set("relative_activation_error", report.relative_activation_error);
        entry.set("quantization_scale", report.quantization_scale);
        entry.set("ratio_qx", report.ratio_qx);
        entry.set("ratio_lrx", report.ratio_lrx);
        list.push_back(std::move(entry));
    }
    return list;
}

} // namespace rankscope
