// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/linalg/incoherence.h"
#include "core/linalg/weighted_low_rank.h"

namespace rankscope::golden {
namespace {

Status check_hadamard(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Json::Array* sizes = golden.parameters()["sizes"].array_if();
    if (!sizes)
        return bad_input("the case lists no sizes");
    for (const Json& size : *sizes) {
        const std::string n = std::to_string(size.integer());
        if (!golden.has("x" + n))
            return bad_input("the case holds no tensor x" + n);
        Buffer x = backend.upload(golden.single("x" + n));
        backend.hadamard(x, Transpose::No);
        verdict.tensor("y" + n, backend.download(x));
    }
    return {};
}

Status check_rht(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Incoherence transform(golden.tensor("signs_left").transpose(),
                                golden.tensor("signs_right").transpose());
    const Buffer weight = transform.weight(backend.upload(golden.single("W")), backend);
    const MatrixD hessian = transform.hessian(golden.tensor("H"), backend);
    verdict.tensor("W_rotated", backend.download(weight));
    verdict.tensor("H_rotated", hessian);
    verdict.scalar("objective", weighted_squared_norm(weight, backend.upload(hessian), backend));
    return {};
}

} // namespace

std::vector<Handler> transform_handlers()
{
    return {{"hadamard", {}, check_hadamard}, {"rht", {"W", "H", "signs_left", "signs_right"}, check_rht}};
}

} // namespace rankscope::golden
