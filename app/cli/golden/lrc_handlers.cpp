// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/calibration/quantized_activations.h"
#include "core/compute/activation_quantization.h"

#include <fmt/format.h>

#include <limits>

namespace rankscope::golden {
namespace {

/// From X by the case's grid of activations, or the case's own Sigma_x, Sigma_y and Sigma_xy.
Moments lrc_moments(const GoldenCase& golden)
{
    const ActivationQuantization rounding{static_cast<int>(integer_parameter(golden, "activation_bits", 4)),
                                          golden.parameters()["clip"].number(0.9)};
    if (golden.has("X"))
        return moments_of(MatrixD(golden.tensor("X").transpose()), rounding);
    Moments moments;
    moments.hessian = golden.tensor("Sigma_x");
    moments.activations = rounding;
    moments.sigma_xy = golden.tensor("Sigma_xy");
    moments.sigma_yy = golden.tensor("Sigma_y");
    moments.mean_abs = moments.max_abs = moments.hessian.diagonal().cwiseMax(0.0).cwiseSqrt();
    return moments;
}

/// The case's objective is per token; the trace relates it to that of the whole weight, with Σ_x damped.
void compare_objectives(const GoldenCase& golden, const Decomposition& result, const Moments& moments,
                        Verdict& verdict)
{
    const MatrixD weight = golden.tensor("W");
    const double damping = golden.parameters()["damp"].number(0.01) * moments.hessian.diagonal().mean();
    const double whole =
        (weight * moments.hessian).cwiseProduct(weight).sum() + damping * weight.squaredNorm();
    double best = std::numeric_limits<double>::infinity();
    int half_step = 0;
    for (const IterationReport& report : result.trace) {
        const double objective = report.relative_activation_error * report.relative_activation_error * whole;
        if (report.stage == "start") {
            verdict.scalar("start_objective", objective);
            continue;
        }
        const bool correction = report.stage == "LR";
        verdict.scalar(fmt::format("step_{}_{}", half_step++, correction ? "UV" : "Q"), objective);
        if (correction)
            best = std::min(best, objective);
    }
    verdict.scalar("objective", best);
}

Status compare_with_tokens(const GoldenCase& golden, const Decomposition& result, const Moments& moments,
                           Backend& backend, Verdict& verdict)
{
    const Buffer tokens = backend.upload(Matrix(golden.single("X").transpose()));
    const ActivationQuantization& rounding = moments.activations;
    verdict.tensor("Y",
                   Matrix(backend.download(quantized_activations(tokens, rounding, backend)).transpose()));
    const Matrix weight = golden.single("W");
    verdict.scalar("relative_error", measure(weight, result, &moments).relative_activation_error);
    const auto without = run_method("lrc", golden, &moments, backend,
                                    {{"rank", std::int64_t{0}}, {"quantizer", std::string("gptq")}});
    if (!without)
        return without.error();
    verdict.scalar("relative_error_without", measure(weight, *without, &moments).relative_activation_error);
    return {};
}

Status check_lrc(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    if (!golden.has("X") && !(golden.has("Sigma_x") && golden.has("Sigma_y") && golden.has("Sigma_xy")))
        return bad_input("the case holds neither X nor Sigma_x, Sigma_y and Sigma_xy");
    const Moments moments = lrc_moments(golden);
    const auto result = run_method("lrc", golden, &moments, backend);
    if (!result)
        return result.error();
    verdict.tensor("Q", result->quantized.dequantize());
    verdict.tensor("LR", Matrix(result->low_rank.left * result->low_rank.right));
    verdict.tensor("LR_start", result->start_low_rank);
    compare_objectives(golden, *result, moments, verdict);
    return golden.has("X") ? compare_with_tokens(golden, *result, moments, backend, verdict) : Status{};
}

} // namespace

std::vector<Handler> lrc_handlers() { return {{"lrc", {"W"}, check_lrc}}; }

} // namespace rankscope::golden
