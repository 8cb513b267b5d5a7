// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope::gpu {

/// One operation on data of one shape, on two backends. The one table that the test and
/// `devices --self-test` read: 1 × 1, primes, sizes off every tile.
struct SelfTestCase {
    std::string name;
    double tolerance = 0.0;
    /// How far the device is from the reference: normalised, infinite if something is plainly wrong.
    std::function<double(Backend& device, Backend& reference)> error;
};

std::vector<SelfTestCase> self_test_cases();
/// The same on matrices that no device needs to bind at once (137 MiB): some seconds each on a CPU.
std::vector<SelfTestCase> large_self_test_cases();

/// ‖a − b‖ / ‖b‖ in the Frobenius norm; infinite for other shapes or anything not finite.
double normalized_error(const MatrixD& a, const MatrixD& b);

} // namespace rankscope::gpu
