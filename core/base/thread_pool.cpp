// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <fstream>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

extern "C" void openblas_set_num_threads(int threads);

namespace rankscope {
namespace {

struct Pool {
    std::mutex mutex;
    std::unique_ptr<tbb::global_control> limit;
    std::shared_ptr<tbb::task_arena> arena;
    int threads = 0;

    void make_arena()
    {
        // TBB caps its workers at the number of CPUs unless told otherwise; of several limits the lowest
        // counts.
        limit.reset();
        limit = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                      static_cast<std::size_t>(threads));
        arena = std::make_shared<tbb::task_arena>(threads);
    }
};

Pool& pool()
{
    static Pool instance;
    return instance;
}

std::shared_ptr<tbb::task_arena> current_arena()
{
    Pool& p = pool();
    const std::lock_guard lock(p.mutex);
    if (!p.arena) {
        openblas_set_num_threads(1);
        if (p.threads <= 0)
            p.threads = physical_cores();
        p.make_arena();
    }
    return p.arena;
}

} // namespace

int physical_cores()
{
    // Hyper-threads share the floating-point units; count distinct (package, core) pairs.
    std::set<std::string> cores;
    const unsigned logical = std::max(1U, std::thread::hardware_concurrency());
    for (unsigned cpu = 0; cpu < logical; ++cpu) {
        const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        std::ifstream package(base + "physical_package_id");
        std::ifstream core(base + "core_id");
        std::string package_id;
        std::string core_id;
        if (!(package >> package_id) || !(core >> core_id))
            return static_cast<int>(logical);
        cores.insert(package_id + ':' + core_id);
    }
    return static_cast<int>(cores.size());
}

void set_thread_count(int threads)
{
    openblas_set_num_threads(1);
    Pool& p = pool();
    const std::lock_guard lock(p.mutex);
    p.threads = threads > 0 ? threads : physical_cores();
    p.make_arena();
}

int thread_count()
{
    current_arena();
    return pool().threads;
}

void parallel_for(std::int64_t begin, std::int64_t end, const std::function<void(std::int64_t)>& body)
{
    if (end <= begin)
        return;
    const auto arena = current_arena();
    arena->execute([&] { tbb::parallel_for(begin, end, [&](std::int64_t i) { body(i); }); });
}

void isolate(const std::function<void()>& body) { tbb::this_task_arena::isolate(body); }

} // namespace rankscope
