// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/method.h"

#include "core/base/thread_pool.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope {
namespace {

constexpr Index k_tile_rows = 256; ///< fixed, so that the sums do not depend on the number of threads
constexpr Index k_panel_columns = 256;

/// The sum over tiles of rows of what `of_rows` (first, count) gives, in a fixed order.
template <class Sum, class Function>
Sum sum_over_rows(Index rows, const Function& of_rows)
{
    const Index tiles = (rows + k_tile_rows - 1) / k_tile_rows;
    std::vector<Sum> sums(static_cast<std::size_t>(tiles));
    parallel_for(0, tiles, [&](Index tile) {
        const Index first = tile * k_tile_rows;
        sums[static_cast<std::size_t>(tile)] = of_rows(first, std::min(k_tile_rows, rows - first));
    });
    Sum total{};
    for (const Sum& sum : sums)
        total += sum;
    return total;
}

/// tr(A·H·Bᵀ) in float64; Σ A ⊙ B when H is null.
double inner_product(const Matrix& a, const MatrixD* hessian, const Matrix& b)
{
    return sum_over_rows<double>(a.rows(), [&](Index first, Index count) {
        MatrixD part = a.middleRows(first, count).cast<double>();
        if (hessian)
            part = (part * *hessian).eval();
        return part.cwiseProduct(b.middleRows(first, count).cast<double>()).sum();
    });
}

/// X·T with T upper triangular and T + Tᵀ = H: half the work of X·H, and x·H·xᵀ = 2·(x·T)·xᵀ. H is symmetric:
/// only its upper triangle is read.
MatrixD half_product(const MatrixD& x, const MatrixD& hessian)
{
    const Index n = hessian.rows();
    MatrixD product(x.rows(), n);
    for (Index first = 0; first < n; first += k_panel_columns) {
        const Index count = std::min(k_panel_columns, n - first);
        MatrixD corner = hessian.block(first, first, count, count).triangularView<Eigen::StrictlyUpper>();
        corner.diagonal() = 0.5 * hessian.diagonal().segment(first, count);
        auto panel = product.middleCols(first, count);
        panel.noalias() = x.middleCols(first, count) * corner;
        if (first > 0)
            panel.noalias() += x.leftCols(first) * hessian.block(0, first, first, count);
    }
    return product;
}

/// tr(A·H·Aᵀ) of the parts of W = Q + L·R + E, and of W − L·R.
struct Energies {
    double weight = 0.0;
    double quantized = 0.0;
    double low_rank = 0.0;
    double error = 0.0;
    double rest = 0.0;

    Energies& operator+=(const Energies& other)
    {
        weight += other.weight;
        quantized += other.quantized;
        low_rank += other.low_rank;
        error += other.error;
        rest += other.rest;
        return *this;
    }
};

/// The parts of a weight, in its own basis. `low_rank` is L·R, empty for none.
struct Parts {
    const Matrix& weight;
    const Matrix& quantized;
    const Matrix& low_rank;
    const Matrix& error;
    const LowRank* factors; ///< of `low_rank`; null where it was turned since
};

/// With W·T and E·T at hand (see half_product) Q·T is what is left of W·T: two products and a narrow one
/// serve all parts.
Energies energies(const Parts& parts, const MatrixD& hessian)
{
    const bool corrected = parts.low_rank.size() > 0;
    MatrixD narrow; // R·T
    if (corrected && parts.factors)
        narrow = half_product(parts.factors->right.cast<double>(), hessian);
    return sum_over_rows<Energies>(parts.weight.rows(), [&](Index first, Index count) {
        const auto rows = [&](const Matrix& matrix) -> MatrixD {
            return matrix.middleRows(first, count).cast<double>();
        };
        const auto energy = [](const MatrixD& product, const MatrixD& of) {
            return 2.0 * product.cwiseProduct(of).sum();
        };
        const MatrixD weight = rows(parts.weight);
        const MatrixD error = rows(parts.error);
        MatrixD left = half_product(weight, hessian);
        const MatrixD of_error = half_product(error, hessian);
        Energies sums;
        sums.weight = energy(left, weight);
        sums.error = energy(of_error, error);
        sums.rest = sums.weight;
        if (corrected) {
            const MatrixD low_rank = rows(parts.low_rank);
            const MatrixD product =
                parts.factors ? MatrixD(rows(parts.factors->left) * narrow) : half_product(low_rank, hessian);
            sums.low_rank = energy(product, low_rank);
            left -= product;
            sums.rest = energy(left, weight - low_rank);
        }
        left -= of_error;
        sums.quantized = energy(left, rows(parts.quantized));
        return sums;
    });
}

double squared_norm(const Matrix& a) { return inner_product(a, nullptr, a); }

/// From the rotated basis, if there is one, to that of the weight; on the reference backend, so that every
/// caller gets the same bytes.
Matrix restored(const Decomposition& decomposition, Matrix matrix)
{
    if (decomposition.transform.empty())
        return matrix;
    return decomposition.transform.restored_weight(matrix, *make_cpu_backend());
}

/// sqrt(part / whole); against nothing, nothing is 0 and anything is 1.
double norm_ratio(double part, double whole)
{
    if (whole > 0.0)
        return std::sqrt(part / whole);
    return part > 0.0 ? 1.0 : 0.0;
}

/// Whether the moments know the input as the layer rounds it.
bool sees_rounded(const Moments* moments, const ActivationQuantization& activations)
{
    return moments && moments->has_quantized_activations() && activations == moments->activations;
}

} // namespace

Matrix Decomposition::reconstruct() const
{
    Matrix result;
    if (quantized.empty()) {
        result = low_rank.left * low_rank.right;
    } else {
        result = quantized.dequantize();
        if (low_rank.rank() > 0)
            result.noalias() += low_rank.left * low_rank.right;
    }
    return restored(*this, std::move(result));
}

double Decomposition::bits_per_weight() const
{
    const double rows = static_cast<double>(quantized.empty() ? low_rank.left.rows() : quantized.rows());
    const double cols = static_cast<double>(quantized.empty() ? low_rank.right.cols() : quantized.cols());
    if (rows * cols <= 0.0)
        return 0.0;
    const double factor_bits =
        factor_storage_bits(low_rank.left.rows(), low_rank.right.cols(), low_rank.rank(), factors);
    const double sign_bits = transform.empty() ? 0.0 : rows + cols;
    return quantized.bits_per_weight() + (factor_bits + sign_bits) / (rows * cols);
}

DecompositionQuality measure(const Matrix& weight, const Decomposition& decomposition, const Moments* moments)
{
    DecompositionQuality quality;
    const MatrixD* hessian = moments && !moments->empty() ? &moments->hessian : nullptr;
    Matrix low_rank;
    if (decomposition.low_rank.rank() > 0)
        low_rank = restored(decomposition, decomposition.low_rank.left * decomposition.low_rank.right);
    const bool quantized = !decomposition.quantized.empty();
    const Matrix q = quantized ? restored(decomposition, decomposition.quantized.dequantize())
                               : Matrix::Zero(weight.rows(), weight.cols());
    Matrix error = weight - q;
    if (low_rank.size() > 0)
        error -= low_rank;
    const double plain = squared_norm(weight);
    quality.relative_error = norm_ratio(squared_norm(error), plain);
    if (!hessian) {
        quality.relative_activation_error = quality.relative_error;
        quality.ratio_qx = norm_ratio(squared_norm(q), plain);
        quality.ratio_lrx = norm_ratio(squared_norm(low_rank), plain);
        return quality;
    }
    const bool turned = !decomposition.transform.empty();
    const Energies sums =
        energies({weight, q, low_rank, error, turned ? nullptr : &decomposition.low_rank}, *hessian);
    const auto share = [&](double part) {
        return norm_ratio(std::max(part, 0.0), std::max(sums.weight, 0.0));
    };
    quality.relative_activation_error = share(sums.error);
    quality.ratio_qx = share(sums.quantized);
    quality.ratio_lrx = share(sums.low_rank);
    if (decomposition.activations.active() && sees_rounded(moments, decomposition.activations)) {
        // ‖D·X − Q·Y‖² with D = W − L·R: Q meets the rounded input only.
        const Matrix rest = error + q;
        const double seen = inner_product(q, &moments->sigma_yy, q);
        quality.ratio_qx = share(seen);
        quality.relative_activation_error =
            share(sums.rest + seen - 2.0 * inner_product(rest, &moments->sigma_xy, q));
    }
    return quality;
}

ActivationQuantization activations_of(const MethodInfo& info, const Parameters& parameters)
{
    ActivationQuantization activations;
    if (info.find("activation_bits")) {
        activations.bits = static_cast<int>(parameters.integer("activation_bits"));
        activations.clip = parameters.real("clip");
    }
    return activations;
}

Status check_activations(const MethodInfo& info, const Parameters& parameters,
                         const ActivationQuantization& calibrated, const std::string& layer)
{
    const ActivationQuantization wanted = activations_of(info, parameters);
    if (!wanted.active())
        return {};
    if (wanted.bits > 8)
        return usage_error(
            fmt::format("activations are rounded to 2 to 8 bits, {} were asked for", wanted.bits), layer,
            "Set activation_bits to one of these, or to 16 for activations as they are");
    if (!info.needs.quantized_activations)
        return {};
    if (!calibrated.active())
        return usage_error(
            fmt::format("method {} needs the covariances of activations rounded to {} bits, and the "
                        "calibration has none",
                        info.id, wanted.bits),
            layer,
            fmt::format("Calibrate with --quantized-activations {}, or set activation_bits=16", wanted.bits));
    if (wanted == calibrated)
        return {};
    return usage_error(
        fmt::format("the calibration rounded activations to {} bits with clip {}, the method is asked for {} "
                    "bits with clip {}",
                    calibrated.bits, calibrated.clip, wanted.bits, wanted.clip),
        layer,
        fmt::format("Set activation_bits={} and clip={}, or calibrate with --quantized-activations {} "
                    "--activation-clip {}",
                    calibrated.bits, calibrated.clip, wanted.bits, wanted.clip));
}

Status check_moments(const LayerProblem& problem)
{
    const Moments* moments = problem.moments;
    if (!moments || moments->empty())
        return usage_error("this method needs the moments of the layer's input, and there are none",
                           problem.name, "Calibrate first, or choose a method that needs no calibration.");
    const Index n = problem.weight.cols();
    if (moments->hessian.rows() != n || moments->hessian.cols() != n)
        return bad_input(
            fmt::format("the calibration holds moments of {} × {} inputs, the weight has {} inputs",
                        moments->hessian.rows(), moments->hessian.cols(), n),
            problem.name, "Calibrate this checkpoint.");
    if (!moments->hessian.allFinite())
        return bad_input("the moments of the layer's input hold a value that is not finite", problem.name,
                         "Calibrate again.");
    if (moments->hessian.diagonal().minCoeff() < 0.0)
        return bad_input(
            "the moments of the layer's input have a negative diagonal, which no second moment has",
            problem.name, "Calibrate again.");
    return {};
}

namespace {

Status check_covariances(const LayerProblem& problem)
{
    const Index n = problem.weight.cols();
    for (const MatrixD* sigma : {&problem.moments->sigma_xy, &problem.moments->sigma_yy}) {
        if (sigma->rows() != n || sigma->cols() != n)
            return bad_input(
                fmt::format("the calibration holds covariances of {} × {} inputs, the weight has {} inputs",
                            sigma->rows(), sigma->cols(), n),
                problem.name, "Calibrate this checkpoint.");
        if (!sigma->allFinite())
            return bad_input("a covariance of quantized activations is not finite", problem.name,
                             "Calibrate again.");
    }
    if (problem.moments->sigma_yy.diagonal().minCoeff() < 0.0)
        return bad_input("the moments of the quantized activations have a negative diagonal, which no second "
                         "moment has",
                         problem.name, "Calibrate again.");
    return {};
}

} // namespace

Status check_problem(const LayerProblem& problem, const MethodInfo& info, const Parameters& parameters,
                     Backend& backend)
{
    const Index rows = problem.weight.rows();
    const Index cols = problem.weight.cols();
    if (rows <= 0 || cols <= 0)
        return bad_input(fmt::format("the weight is empty ({} × {})", rows, cols), problem.name);
    if (info.find("rank")) {
        const std::int64_t rank = parameters.integer("rank");
        if (rank > std::min(rows, cols))
            return usage_error(fmt::format("rank {} is beyond the weight of {} × {}: at most {} is possible",
                                           rank, rows, cols, std::min(rows, cols)),
                               problem.name, "Choose a smaller rank for this layer.");
    }
    if (!std::isfinite(backend.max_abs(problem.weight)))
        return bad_input("the weight holds a value that is not finite (NaN or infinity)", problem.name,
                         "Leave this layer out, or repair the checkpoint.");
    if (!info.needs.hessian)
        return {};
    if (auto sound = check_moments(problem); !sound)
        return sound;
    if (auto fits = check_activations(info, parameters, problem.moments->activations, problem.name); !fits)
        return fits;
    const bool rounded = info.needs.quantized_activations && activations_of(info, parameters).active();
    return rounded ? check_covariances(problem) : Status{};
}

} // namespace rankscope
