// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"
#include "core/compute/backend.h"

#include <new>

namespace rankscope {

/// The border of a long job: calls `job` (which returns a Status or a Result) and turns what travels through
/// core as an exception into the error that callers get. `remains` says what a cancelled job leaves behind.
template <class Job>
auto at_job_border(std::string_view remains, const Job& job) -> decltype(job())
{
    try {
        return job();
    } catch (const Cancelled&) {
        return Error{ErrorKind::Cancelled, "stopped on request; " + std::string(remains), {}, {}};
    } catch (const BackendFailure& failure) {
        return failure.error();
    } catch (const std::bad_alloc&) {
        return Error{
            ErrorKind::NoSpace, "memory ran out", {}, "Lower --memory or --threads, or close other programs"};
    }
}

} // namespace rankscope
