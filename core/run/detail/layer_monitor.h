// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/run/run.h"

#include <string>
#include <string_view>

namespace rankscope {

/// Hands a method's progress to the layer's events and its warnings, named, to the run's monitor.
class LayerMonitor : public Monitor {
public:
    LayerMonitor(const std::string& layer, const RunEvents& events, Monitor& run)
        : layer_(layer), events_(events), run_(run)
    {}
    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override
    {
        if (events_.layer_progress && total > 0)
            events_.layer_progress(layer_, static_cast<double>(done) / static_cast<double>(total),
                                   std::string(what));
    }
    void warn(std::string_view sentence) override { run_.warn(layer_ + ": " + std::string(sentence)); }
    bool cancelled() const override { return run_.cancelled(); }

private:
    const std::string& layer_;
    const RunEvents& events_;
    Monitor& run_;
};

} // namespace rankscope
