// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test_cases.h"
#include "gpu/vulkan_backend.h"

#include <algorithm>
#include <iterator>

namespace rankscope {

Result<std::vector<SelfTestRow>> self_test(Backend& backend, bool large)
{
    try {
        const auto reference = make_cpu_backend();
        std::vector<SelfTestRow> rows;
        std::vector<gpu::SelfTestCase> cases = gpu::self_test_cases();
        constexpr Index k_side = 192; // of the operations that the benchmark times at other sizes
        std::ranges::move(gpu::sized_self_test_cases(k_side), std::back_inserter(cases));
        if (large)
            std::ranges::move(gpu::large_self_test_cases(), std::back_inserter(cases));
        for (const gpu::SelfTestCase& item : cases) {
            const double error = item.error(backend, *reference);
            rows.push_back({item.name, error, item.tolerance, error <= item.tolerance});
        }
        return rows;
    } catch (const BackendFailure& failure) {
        return failure.error().in("self-test");
    }
}

} // namespace rankscope
