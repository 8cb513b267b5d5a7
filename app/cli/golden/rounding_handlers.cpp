// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/quantize/lattice_rounding.h"
#include "core/quantize/rounding.h"

#include <algorithm>
#include <cmath>

namespace rankscope::golden {
namespace {

void compare_quantized(const Decomposition& result, Verdict& verdict)
{
    verdict.tensor("Q", result.quantized.dequantize());
    verdict.tensor("codes", MatrixD(result.quantized.codes.cast<double>()));
    verdict.tensor("scales", result.quantized.scales);
    verdict.tensor("zeros", result.quantized.zeros);
}

/// The symmetric `full` rule puts the largest weight of each group exactly on a tie (methods-joint §1.1):
/// whether it rounds to one code or to its neighbor hangs on the last bit of the scale, in float64 as well.
/// Such a code counts as the expected one when it is at most one step away from it; nothing else is forgiven.
void settle_extreme_ties(const GoldenCase& golden, QuantizedMatrix& quantized)
{
    const UniformGrid& grid = quantized.grid;
    const MatrixD& expected = golden.tensor("expect.codes");
    const Index rows = quantized.codes.rows();
    const Index cols = quantized.codes.cols();
    if (!grid.symmetric || grid.rule != SymmetricRule::Full || grid.clip != ClipSearch::None || grid.group < 0
        || expected.rows() != rows || expected.cols() != cols)
        return;
    const Matrix weight = golden.single("W");
    for (Index row = 0; row < rows; ++row) {
        for (Index first = 0; first < cols; first += grid.group_width(cols)) {
            const Index width = std::min(grid.group_width(cols), cols - first);
            const float extreme = weight.row(row).segment(first, width).cwiseAbs().maxCoeff();
            for (Index col = first; col < first + width; ++col) {
                std::int16_t& code = quantized.codes(row, col);
                if (std::abs(weight(row, col)) == extreme && std::abs(code - expected(row, col)) <= 1.0)
                    code = static_cast<std::int16_t>(expected(row, col));
            }
        }
    }
}

Status check_rtn(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    auto result = run_method("rtn", golden, nullptr, backend);
    if (!result)
        return result.error();
    settle_extreme_ties(golden, result->quantized);
    compare_quantized(*result, verdict);
    return {};
}

Status check_gptq(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments moments = case_moments(golden);
    const auto result = run_method("gptq", golden, &moments, backend);
    if (!result)
        return result.error();
    compare_quantized(*result, verdict);
    // The cases state errors with the damped H.
    const Moments damped = damped_moments(golden);
    const Matrix weight = golden.single("W");
    verdict.scalar("relative_activation_error", measure(weight, *result, &damped).relative_activation_error);
    const Buffer w = backend.upload(weight);
    const GridBuffers grid = backend.fit_grid(w, grid_parameter(golden));
    Decomposition nearest;
    nearest.quantized = to_host(backend.round_nearest(w, grid), grid, backend);
    verdict.scalar("relative_activation_error_rtn",
                   measure(weight, nearest, &damped).relative_activation_error);
    return {};
}

/// Width 8: the lattice's blocks, their D as rows of 64.
Status check_block_ldl(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const auto feedback =
        LatticeFeedback::make(damped_moments(golden).hessian, false, backend, silent_monitor());
    if (!feedback)
        return feedback.error();
    verdict.tensor("U", feedback->factor());
    MatrixD diagonal(static_cast<Index>(feedback->diagonal().size()), 64);
    for (Index i = 0; i < diagonal.rows(); ++i) {
        const MatrixD& block = feedback->diagonal()[static_cast<std::size_t>(i)];
        if (block.size() != diagonal.cols())
            return usage_error("the size of H is no multiple of 8");
        diagonal.row(i) = block.reshaped<Eigen::RowMajor>().transpose();
    }
    verdict.tensor("D", diagonal);
    return {};
}

/// Block LDLQ to the lattice, in the basis of the weight.
Status check_ldlq(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Moments damped = damped_moments(golden);
    const auto feedback = LatticeFeedback::make(damped.hessian, false, backend, silent_monitor());
    if (!feedback)
        return feedback.error();
    const Matrix weight = golden.single("W");
    const int bits = static_cast<int>(integer_parameter(golden, "bits", 2));
    const E8Matrix rounded =
        to_host(feedback->round(backend.upload(weight), bits, backend, silent_monitor()), backend);
    Decomposition result;
    result.quantized = to_quantized(rounded, bits);
    verdict.tensor("Q", result.quantized.dequantize());
    verdict.scalar("scale", rounded.scales(0));
    verdict.scalar("relative_activation_error", measure(weight, result, &damped).relative_activation_error);
    result.quantized = to_quantized(e8p_round(weight, bits, k_e8p_scale, false), bits);
    verdict.scalar("relative_activation_error_nearest",
                   measure(weight, result, &damped).relative_activation_error);
    return {};
}

Status check_ldl(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Index block = integer_parameter(golden, "block", 1);
    if (block == 8)
        return check_block_ldl(golden, backend, verdict);
    if (block != 1)
        return usage_error("only blocks of width 1 and 8 are factorised");
    const auto factor =
        FeedbackFactor::make(damped_moments(golden).hessian, false, backend, silent_monitor());
    if (!factor)
        return factor.error();
    verdict.tensor("U", backend.download(factor->factor()));
    verdict.tensor("D", MatrixD(factor->diagonal()));
    return {};
}

/// Activations, one range a token: the grid of a weight whose rows are the tokens.
Status check_per_token(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Buffer x = backend.upload(golden.single("x"));
    verdict.tensor("x_q", backend.download(
                              backend.round_nearest(x, backend.fit_grid(x, grid_parameter(golden))).values));
    return {};
}

} // namespace

std::vector<Handler> rounding_handlers()
{
    return {{"rtn", {"W"}, check_rtn},
            {"gptq", {"W", "H"}, check_gptq},
            {"ldl", {"H"}, check_ldl},
            {"ldlq", {"W", "H"}, check_ldlq},
            {"per_token_asymmetric", {"x"}, check_per_token}};
}

} // namespace rankscope::golden
