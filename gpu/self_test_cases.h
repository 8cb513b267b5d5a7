// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope::gpu {

/// An operation whose data is ready.
struct SelfTestStep {
    std::function<void()> run;       ///< once more
    std::function<MatrixD()> result; ///< of the last time
};

/// One operation on data of one shape, on two backends. The one table that the test, `devices --self-test` and the
/// benchmark read: 1 × 1, primes, sizes off every tile, and each operation on square matrices of a side.
struct SelfTestCase {
    std::string name;
    double tolerance = 0.0;
    /// How far the device is from the reference: normalised, infinite if something is plainly wrong.
    std::function<double(Backend& device, Backend& reference)> error;
    /// Of cases that are timed; else empty.
    std::function<SelfTestStep(Backend& backend)> prepare{};
};

std::vector<SelfTestCase> self_test_cases();
/// The same on matrices that no device needs to bind at once (137 MiB): some seconds each on a CPU.
std::vector<SelfTestCase> large_self_test_cases();

/// Every operation once on matrices of side × side: what the benchmark times.
std::vector<SelfTestCase> sized_self_test_cases(Index side);

/// ‖a − b‖ / ‖b‖ in the Frobenius norm; infinite for other shapes or anything not finite.
double normalized_error(const MatrixD& a, const MatrixD& b);

} // namespace rankscope::gpu
