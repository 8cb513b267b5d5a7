// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test_cases.h"
#include "gpu/vulkan_backend.h"

namespace rankscope {

Result<std::vector<SelfTestRow>> self_test(Backend& backend)
{
    try {
        const auto reference = make_cpu_backend();
        std::vector<SelfTestRow> rows;
        for (const gpu::SelfTestCase& item : gpu::self_test_cases()) {
            const double error = item.error(backend, *reference);
            rows.push_back({item.name, error, item.tolerance, error <= item.tolerance});
        }
        return rows;
    } catch (const BackendFailure& failure) {
        return failure.error().in("self-test");
    }
}

} // namespace rankscope
