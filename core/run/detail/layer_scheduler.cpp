// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/layer_scheduler.h"

#include "core/base/thread_pool.h"
#include "core/methods/method.h"

#include <malloc.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <numeric>
#include <optional>

namespace rankscope {
namespace {

/// What a job has freed goes back to the system: glibc keeps matrices of up to 32 MB for the next ones
/// otherwise, and a thread's are of no use to another.
void return_free_memory()
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

class Scheduler {
public:
    Scheduler(const std::vector<JobBytes>& costs, const JobBytes& budget,
              const std::function<void(std::size_t)>& job, const std::function<bool()>& stop,
              const std::function<std::vector<std::size_t>()>& urgent)
        : costs_(costs), budget_(budget), job_(job), stop_(stop), urgent_(urgent), waiting_(costs.size())
    {
        std::iota(waiting_.begin(), waiting_.end(), std::size_t{0});
    }

    void run()
    {
        const auto workers = std::min<std::size_t>(static_cast<std::size_t>(thread_count()), costs_.size());
        parallel_for(0, static_cast<std::int64_t>(workers), [this](std::int64_t) { drain(); });
    }

private:
    bool fits(std::size_t index) const { return running_ == 0 || leaves_room(used_, costs_[index]); }

    bool leaves_room(const JobBytes& used, const JobBytes& cost) const
    {
        return (budget_.host == 0 || used.host + cost.host <= budget_.host)
               && (budget_.device == 0 || used.device + cost.device <= budget_.device);
    }

    std::optional<std::size_t> take()
    {
        const std::vector<std::size_t> urgent = urgent_();
        const std::lock_guard lock(mutex_);
        for (auto wanted = urgent.rbegin(); wanted != urgent.rend(); ++wanted)
            if (const auto it = std::find(waiting_.begin(), waiting_.end(), *wanted); it != waiting_.end())
                waiting_.splice(waiting_.begin(), waiting_, it);
        for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
            if (!fits(*it))
                continue;
            const std::size_t index = *it;
            waiting_.erase(it);
            used_.host += costs_[index].host;
            used_.device += costs_[index].device;
            ++running_;
            return index;
        }
        parked_ += waiting_.empty() ? 0 : 1;
        return std::nullopt;
    }

    /// Gives the memory back; true when a thread that went away is wanted again.
    bool release(std::size_t index)
    {
        const std::lock_guard lock(mutex_);
        used_.host -= costs_[index].host;
        used_.device -= costs_[index].device;
        --running_;
        if (parked_ == 0)
            return false;
        JobBytes used = used_;
        int startable = 0;
        for (const std::size_t other : waiting_) {
            if (leaves_room(used, costs_[other])) {
                used.host += costs_[other].host;
                used.device += costs_[other].device;
                ++startable;
            }
        }
        if (startable < 2)
            return false;
        --parked_;
        return true;
    }

    void drain()
    {
        while (!stop_()) {
            const auto index = take();
            if (!index)
                return;
            isolate([&] { job_(*index); });
            if (budget_.host > 0)
                return_free_memory();
            if (release(*index)) {
                parallel_for(0, 2, [this](std::int64_t) { drain(); });
                return;
            }
        }
    }

    const std::vector<JobBytes>& costs_;
    const JobBytes budget_;
    const std::function<void(std::size_t)>& job_;
    const std::function<bool()>& stop_;
    const std::function<std::vector<std::size_t>()>& urgent_;
    std::mutex mutex_;
    std::list<std::size_t> waiting_;
    JobBytes used_;
    int running_ = 0;
    int parked_ = 0;
};

} // namespace

std::uint64_t estimated_job_bytes(const LayerPlan& row, const LinearLayer& layer, bool with_hessian)
{
    // Measured on layers of 576 × 1536 with one thread, rounded up.
    constexpr std::uint64_t k_weight_copies =
        12; // W, Q, codes, L·R, residuals and what a product needs for a while
    constexpr std::uint64_t k_hessian_copies =
        5; // H, its damped copy, the factor and its float32 form, a Gram product
    constexpr std::uint64_t k_repeated_copies =
        7; // of methods that come back to it: one more factor, an inverse
    constexpr std::uint64_t k_scratch_bytes = 4 << 20; // of products, whatever the layer
    constexpr std::uint64_t k_covariance_copies =
        6; // of rounded activations: two covariances, damped moments, their factors and forms in float32
    const auto out = static_cast<std::uint64_t>(layer.out);
    const auto in = static_cast<std::uint64_t>(layer.in);
    const Method* method = find_method(row.method);
    const bool repeats = method && (method->info().find("iterations") || method->info().find("steps"));
    std::uint64_t bytes = k_scratch_bytes + k_weight_copies * 4 * out * in;
    if (with_hessian)
        bytes += (repeats ? k_repeated_copies : k_hessian_copies) * 8 * in * in;
    if (method && method->info().needs.quantized_activations)
        bytes += k_covariance_copies * 8 * in * in;
    if (row.parameters.values().contains("rank"))
        bytes += 3 * 8 * out * out; // A·H·Aᵀ, its eigenvectors and their workspace
    return bytes;
}

std::uint64_t estimated_device_bytes(const LayerPlan& row, const LinearLayer& layer, bool with_hessian)
{
    constexpr std::uint64_t k_weight_copies =
        12; // W, target, codes, values, residual, L·R; of each a copy under way
    constexpr std::uint64_t k_learned_copies =
        18; // FlexRound: parameter, gradient, two moments and the best copy
    constexpr std::uint64_t k_hessian_copies = 4; // H, its factor, ODLRI's start, one under way
    constexpr std::uint64_t k_factor_copies = 8;
    constexpr std::uint64_t k_scratch_bytes = 2 << 20;
    const auto out = static_cast<std::uint64_t>(layer.out);
    const auto in = static_cast<std::uint64_t>(layer.in);
    const Method* method = find_method(row.method);
    const bool learns = method && method->info().find("steps");
    std::uint64_t floats = (learns ? k_learned_copies : k_weight_copies) * out * in;
    if (with_hessian)
        floats += k_hessian_copies * in * in;
    if (row.parameters.values().contains("rank")) { // fitted in a subspace of 1.5 times the rank
        const auto rank =
            static_cast<std::uint64_t>(std::max<std::int64_t>(row.parameters.integer("rank"), 0));
        floats += k_factor_copies * (rank + rank / 2) * (out + in);
    }
    return k_scratch_bytes + sizeof(float) * floats;
}

void run_within_budget(const std::vector<JobBytes>& costs, const JobBytes& budget,
                       const std::function<void(std::size_t)>& job, const std::function<bool()>& stop,
                       const std::function<std::vector<std::size_t>()>& urgent)
{
    Scheduler(costs, budget, job, stop, urgent).run();
}

} // namespace rankscope
