// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/plan/layer_plan.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace rankscope {

/// Working memory of a layer job, or what there is of it.
struct JobBytes {
    std::uint64_t host = 0;
    std::uint64_t device = 0; ///< 0 for a job that computes on the CPU
};

/// Peak working memory of one layer job on the host, from above: weight and its iterates, H and its factor,
/// Gram matrices.
std::uint64_t estimated_job_bytes(const LayerPlan& row, const LinearLayer& layer, bool with_hessian);
/// The same of a device, where everything is float32.
std::uint64_t estimated_device_bytes(const LayerPlan& row, const LinearLayer& layer, bool with_hessian);

/// Runs jobs 0 … costs.size() − 1 on core's pool, in that order, as many at a time as there are threads and
/// as fit `budget` (0: no limit). A thread that finds no job that fits goes back to the pool and helps the
/// running ones. `stop` is asked before each job, and `urgent` for those that go before the others, first one
/// first. Jobs must not throw.
void run_within_budget(const std::vector<JobBytes>& costs, const JobBytes& budget,
                       const std::function<void(std::size_t)>& job, const std::function<bool()>& stop,
                       const std::function<std::vector<std::size_t>()>& urgent);

} // namespace rankscope
