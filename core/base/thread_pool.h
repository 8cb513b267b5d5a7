// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <functional>

namespace rankscope {

/// The one thread pool of core. BLAS inside it runs on a single thread (set at the first call), so that the
/// number of threads changes the time but not the bytes: callers cut work into tiles of a fixed size.
void set_thread_count(int threads); ///< before heavy work; 0 = physical cores
int thread_count();
int physical_cores();

/// Calls body(i) for each i in [begin, end), on the pool. Nested calls share the same threads. An exception
/// of a body (Cancelled) stops the rest and is rethrown.
void parallel_for(std::int64_t begin, std::int64_t end, const std::function<void(std::int64_t)>& body);

/// Runs body with nested parallel_for calls kept on the calling thread's own share (TBB task isolation), so
/// that a waiting layer job never picks up a sibling's long task.
void isolate(const std::function<void()>& body);

} // namespace rankscope
