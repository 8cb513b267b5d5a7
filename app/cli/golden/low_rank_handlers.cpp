// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/linalg/weighted_low_rank.h"
#include "core/plan/layer_spectrum.h"
#include "core/quantize/quantized_factors.h"

#include <cmath>

namespace rankscope::golden {
namespace {

Matrix product(const LowRankBuffers& factors, Backend& backend)
{
    return backend.download(backend.multiply(factors.left, factors.right));
}

MatrixD as_row(const VectorD& values) { return values.transpose(); }

/// Where rounding sends the alternation hangs on the last bit, so that the bands judge its end.
Status check_quantized_factors(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Json& given = golden.parameters();
    FactorOptions options;
    options.bits = static_cast<int>(given["factor_bits"].integer(4));
    options.per_component = given["factor_scale"].string("component") == "component";
    options.iterations = static_cast<int>(given["iterations"].integer(10));
    const Buffer w = backend.upload(golden.single("W"));
    const Buffer hessian = backend.upload(damped_moments(golden).hessian);
    const Index rank = integer_parameter(golden, "rank", 0);
    verdict.scalar("objective_unquantised", weighted_low_rank(w, hessian, rank, backend).tail);
    const Matrix low_rank =
        product(quantized_low_rank(w, hessian, rank, options, backend, silent_monitor()), backend);
    verdict.tensor("LR", low_rank);
    verdict.band("objective", weighted_squared_norm(backend.upload(Matrix(golden.single("W") - low_rank)),
                                                    hessian, backend));
    return {};
}

Status check_weighted_low_rank(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Buffer w = backend.upload(golden.single("W"));
    const Buffer hessian = backend.upload(damped_moments(golden).hessian);
    const Index rank = integer_parameter(golden, "rank", 0);
    const LowRankBuffers best = weighted_low_rank(w, hessian, rank, backend);
    const Matrix low_rank = product(best, backend);
    const auto objective = [&](const Matrix& approximation) {
        return weighted_squared_norm(backend.difference(w, backend.upload(approximation)), hessian, backend);
    };
    verdict.tensor("LR", low_rank);
    verdict.scalar("objective", objective(low_rank));
    verdict.scalar("tail", best.tail);
    verdict.scalar("objective_plain_svd",
                   objective(product(weighted_low_rank(w, {}, rank, backend), backend)));
    return {};
}

/// How the corrections and the rank-only methods weigh the input channels.
VectorD channel_weights(const GoldenCase& golden, const Moments& moments)
{
    if (golden.method() == "lqer") {
        const VectorD floored = moments.mean_abs.cwiseMax(1e-4);
        return floored / std::sqrt(floored.minCoeff() * floored.maxCoeff());
    }
    if (golden.method() == "qera_approx")
        return moments.hessian.diagonal().cwiseMax(0.0).cwiseSqrt();
    if (golden.method() == "asvd")
        return (moments.mean_abs.array().pow(golden.parameters()["alpha"].number(0.5)) + 1e-6).matrix();
    return VectorD::Ones(moments.hessian.rows());
}

bool weighs_by_hessian(const GoldenCase& golden)
{
    return golden.method() == "qera_exact" || golden.method() == "svd_llm";
}

VectorD weighted_values(const GoldenCase& golden, const Buffer& a, const Moments& moments, Backend& backend)
{
    if (weighs_by_hessian(golden))
        return weighted_spectrum(a, backend.upload(moments.hessian), backend).cwiseMax(0.0).cwiseSqrt();
    Buffer scaled = backend.copy(a);
    backend.scale_columns(scaled, channel_weights(golden, moments));
    return backend.singular_values(scaled);
}

void compare_errors(const GoldenCase& golden, const Decomposition& result, const Moments& moments,
                    Verdict& verdict)
{
    const DecompositionQuality quality = measure(golden.single("W"), result, &moments);
    verdict.scalar("relative_error", quality.relative_error);
    verdict.scalar("relative_activation_error", quality.relative_activation_error);
}

Result<Decomposition> truncated(const GoldenCase& golden, const Moments& moments, Backend& backend)
{
    const Method& method = *find_method("asvd");
    const auto parameters = Parameters::make(
        method.info(), {{"rank", std::int64_t{integer_parameter(golden, "rank", 0)}}, {"alpha", 0.0}});
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(golden.single("W"));
    problem.moments = &moments;
    problem.name = golden.name();
    return method.decompose(problem, *parameters, backend, silent_monitor());
}

/// W itself truncated, without a Q; plain SVD is ASVD that weighs no input.
Status check_rank_only(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    Result<Decomposition> result = golden.method() == "svd"
                                       ? truncated(golden, moments, backend)
                                       : run_method(golden.method(), golden, &moments, backend);
    if (!result)
        return result.error();
    verdict.tensor("W_hat", result->reconstruct());
    verdict.tensor("singular_values",
                   as_row(weighted_values(golden, backend.upload(golden.single("W")), moments, backend)));
    compare_errors(golden, *result, moments, verdict);
    return {};
}

Status check_correction(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    const std::string id = golden.method() == "svd" ? "svd_residual" : golden.method();
    const auto result = run_method(id, golden, &moments, backend);
    if (!result)
        return result.error();
    const Matrix q = result->quantized.dequantize();
    verdict.tensor("Q", q);
    verdict.tensor("LR", Matrix(result->low_rank.left * result->low_rank.right));
    verdict.tensor("W_hat", result->reconstruct());
    const Buffer error = backend.upload(Matrix(golden.single("W") - q));
    verdict.tensor("singular_values", as_row(weighted_values(golden, error, moments, backend)));
    compare_errors(golden, *result, moments, verdict);
    Decomposition uncorrected;
    uncorrected.quantized = result->quantized;
    verdict.scalar("relative_activation_error_without",
                   measure(golden.single("W"), uncorrected, &moments).relative_activation_error);
    return {};
}

/// Cases named svd are of both kinds: with a grid it corrects a rounding, without one it truncates W.
Status check_svd(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    return golden.parameters().find("bits") ? check_correction(golden, backend, verdict)
                                            : check_rank_only(golden, backend, verdict);
}

/// Least squared error at every rank, from the predicted relative one.
MatrixD tail_curve(const LayerSpectrum& spectrum, double norm)
{
    MatrixD curve(1, spectrum.residual.size() + 1);
    for (Index rank = 0; rank < curve.cols(); ++rank)
        curve(0, rank) = std::pow(spectrum.predicted_error(rank) * norm, 2.0);
    return curve;
}

Status check_tail_curve(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    const UniformGrid grid = grid_parameter(golden);
    const Matrix weight = golden.single("W");
    const LayerSpectrum plain = layer_spectrum(weight, nullptr, grid, backend, silent_monitor());
    const LayerSpectrum weighted = layer_spectrum(weight, &moments, grid, backend, silent_monitor());
    verdict.tensor("curve_plain", tail_curve(plain, plain.weight_norm));
    verdict.tensor("curve_H", tail_curve(weighted, weighted.weighted_norm));
    return {};
}

void compare_spectrum(const std::string& prefix, const VectorD& values, const MatrixD& matrix,
                      Verdict& verdict)
{
    const SpectrumSummary summary = summarize_spectrum(values);
    verdict.scalar(prefix + ".stable_rank", summary.stable_rank);
    verdict.scalar(prefix + ".effective_rank", summary.effective_rank);
    verdict.scalar(prefix + ".participation", summary.participation);
    verdict.scalar(prefix + ".r90", static_cast<double>(summary.rank_90));
    verdict.scalar(prefix + ".r99", static_cast<double>(summary.rank_99));
    verdict.scalar(prefix + ".incoherence", incoherence(matrix));
}

Status check_spectrum(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    if (golden.parameters()["residual"].string() != "W - rtn(W, 3 bit, group 32)")
        return usage_error("only the residual 'W - rtn(W, 3 bit, group 32)' is known");
    UniformGrid grid;
    grid.bits = 3;
    grid.group = 32;
    const Moments moments = case_moments(golden);
    const Matrix weight = golden.single("W");
    const LayerSpectrum spectrum = layer_spectrum(weight, &moments, grid, backend, silent_monitor());
    const SymmetricEigen eigen = backend.top_eigen(backend.upload(moments.hessian), moments.hessian.rows());
    const MatrixD vectors = backend.download_double(eigen.vectors);
    const MatrixD root = vectors * eigen.values.cwiseMax(0.0).cwiseSqrt().asDiagonal() * vectors.transpose();
    const Buffer w = backend.upload(weight);
    const Matrix q = backend.download(backend.round_nearest(w, backend.fit_grid(w, grid)).values);
    compare_spectrum("W", spectrum.weight, golden.tensor("W"), verdict);
    compare_spectrum("WHhalf", spectrum.weighted, golden.tensor("W") * root, verdict);
    compare_spectrum("residual", spectrum.residual, (weight - q).cast<double>(), verdict);
    return {};
}

} // namespace

std::vector<Handler> low_rank_handlers()
{
    return {{"weighted_low_rank", {"W", "H"}, check_weighted_low_rank},
            {"lplr", {"W", "H"}, check_quantized_factors},
            {"svd", {"W", "H"}, check_svd},
            {"lqer", {"W", "X"}, check_correction},
            {"qera_approx", {"W", "H"}, check_correction},
            {"qera_exact", {"W", "H"}, check_correction},
            {"svd_llm", {"W", "H"}, check_rank_only},
            {"asvd", {"W", "X"}, check_rank_only},
            {"tail_curve", {"W", "H"}, check_tail_curve},
            {"spectrum", {"W", "H"}, check_spectrum}};
}

} // namespace rankscope::golden
