// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/linalg/weighted_low_rank.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope::golden {
namespace {

/// Half-steps decide early: a float32 build follows the known run over the first two and then goes its own
/// way, which the bands judge.
void compare_half_steps(const GoldenCase& golden, const Decomposition& result, Verdict& verdict)
{
    int half_step = 0;
    for (const IterationReport& report : result.trace) {
        if (report.stage == "start")
            continue;
        const std::string name = fmt::format("step_{}_{}_error", half_step++, report.stage);
        if (golden.json()["scalars"].find(name))
            verdict.scalar(name, report.relative_activation_error);
    }
}

void compare_outcome(const GoldenCase& golden, const Decomposition& result, Verdict& verdict)
{
    const Moments damped = damped_moments(golden);
    verdict.tensor("W_hat", result.reconstruct());
    verdict.band("relative_activation_error",
                 measure(golden.single("W"), result, &damped).relative_activation_error);
    verdict.band("quantization_scale", result.quantization_scale);
    verdict.leave_to_bands("ratio_QX");
    verdict.leave_to_bands("ratio_LRX");
}

/// ‖L₀·R₀·H_o^½‖ / ‖W·H_o^½‖ over the outlier channels.
double captured_energy(const GoldenCase& golden, const Decomposition& result, Backend& backend)
{
    const auto& outliers = result.outlier_channels;
    const Index k = static_cast<Index>(outliers.size());
    MatrixD block(k, k);
    for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j)
            block(i, j) = golden.tensor("H")(outliers[static_cast<std::size_t>(i)],
                                             outliers[static_cast<std::size_t>(j)]);
    const Buffer hessian = backend.upload(block);
    const auto energy = [&](const Matrix& matrix) {
        return weighted_squared_norm(backend.gather_columns(backend.upload(matrix), outliers), hessian,
                                     backend);
    };
    return std::sqrt(energy(result.start_low_rank) / energy(golden.single("W")));
}

Status check_caldera(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    const auto result = run_method("caldera", golden, &moments, backend);
    if (!result)
        return result.error();
    compare_half_steps(golden, *result, verdict);
    compare_outcome(golden, *result, verdict);
    return {};
}

Status check_odlri(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    const auto result = run_method("odlri", golden, &moments, backend);
    if (!result)
        return result.error();
    MatrixD outliers(1, static_cast<Index>(result->outlier_channels.size()));
    for (Index i = 0; i < outliers.size(); ++i)
        outliers(0, i) = static_cast<double>(result->outlier_channels[static_cast<std::size_t>(i)]);
    verdict.tensor("outlier_channels", outliers);
    verdict.tensor("LR_start", result->start_low_rank);
    verdict.scalar("captured_outlier_energy", captured_energy(golden, *result, backend));
    compare_half_steps(golden, *result, verdict);
    compare_outcome(golden, *result, verdict);
    return {};
}

} // namespace

std::vector<Handler> joint_handlers()
{
    return {{"caldera", {"W", "H"}, check_caldera}, {"odlri", {"W", "H"}, check_odlri}};
}

} // namespace rankscope::golden
