// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/compute/grid_levels.h"
#include "core/compute/e8p.h"
#include "core/quantize/quantized_matrix.h"

#include <cmath>
#include <span>

namespace rankscope::golden {
namespace {

constexpr Index k_dimension = 8;

void put(MatrixD& target, Index row, const E8Point& point)
{
    for (Index i = 0; i < k_dimension; ++i)
        target(row, i) = static_cast<double>(point[static_cast<std::size_t>(i)]);
}

/// The 256 patterns of absolute values: a code without flips is its row, shifted by +1/4, up to signs.
MatrixD pattern_table()
{
    MatrixD table(256, k_dimension);
    for (Index row = 0; row < table.rows(); ++row) {
        put(table, row, e8p_decode(static_cast<std::uint16_t>(row << 8)));
        table.row(row) = (table.row(row).array() - 0.25).abs().matrix();
    }
    return table;
}

void check_codebook(const GoldenCase& golden, Verdict& verdict)
{
    verdict.tensor("abs_table", pattern_table());
    const MatrixD& codes = golden.tensor("codes");
    MatrixD values(codes.size(), k_dimension);
    for (Index i = 0; i < codes.size(); ++i)
        put(values, i, e8p_decode(static_cast<std::uint16_t>(codes.data()[i])));
    verdict.tensor("values", values);

    const Matrix x = golden.single("x");
    MatrixD nearest(x.rows(), k_dimension);
    MatrixD nearest_codes(1, x.rows());
    MatrixD nearest_4bit(x.rows(), k_dimension);
    MatrixD nearest_codes_4bit(1, x.rows());
    for (Index row = 0; row < x.rows(); ++row) {
        E8Point point;
        for (Index i = 0; i < k_dimension; ++i)
            point[static_cast<std::size_t>(i)] = x(row, i);
        const E8Nearest two = e8p_nearest(point);
        const E8Nearest4 four = e8p_nearest_4bit(point);
        put(nearest, row, two.value);
        nearest_codes(0, row) = two.code;
        put(nearest_4bit, row, four.value);
        nearest_codes_4bit(0, row) = static_cast<double>(std::uint32_t{four.codes[0]} << 16 | four.codes[1]);
    }
    verdict.tensor("nearest", nearest);
    verdict.tensor("nearest_codes", nearest_codes);
    verdict.tensor("nearest_4bit", nearest_4bit);
    verdict.tensor("nearest_codes_4bit", nearest_codes_4bit);
    const MatrixD& exact = golden.tensor("x");
    verdict.scalar("mean_squared_error_2bit",
                   (exact - nearest).squaredNorm() / static_cast<double>(exact.size()));
    verdict.scalar("mean_squared_error_4bit",
                   (exact - nearest_4bit).squaredNorm() / static_cast<double>(exact.size()));
}

void check_matrix(const GoldenCase& golden, Verdict& verdict)
{
    const Matrix w = golden.single("W");
    const E8Matrix rounded =
        e8p_round(w, static_cast<int>(integer_parameter(golden, "bits", 2)), k_e8p_scale, false);
    verdict.tensor("Q", rounded.values);
    MatrixD codes(w.rows(), static_cast<Index>(rounded.codes.size()) / std::max<Index>(1, w.rows()));
    for (std::size_t i = 0; i < rounded.codes.size(); ++i)
        codes.data()[i] = rounded.codes[i];
    verdict.tensor("codes", codes);
    verdict.scalar("scale", rounded.scales(0));
}

/// Two kinds of cases bear this name: the codebook itself, and a matrix rounded to it.
Status check_e8p(const GoldenCase& golden, Backend&, Verdict& verdict)
{
    if (golden.has("W"))
        check_matrix(golden, verdict);
    else if (golden.has("x") && golden.tensor("x").cols() == k_dimension)
        check_codebook(golden, verdict);
    else
        return bad_input("the case holds neither a matrix W nor points x of eight coordinates");
    return {};
}

/// A matrix rounded to nearest on a scalar grid, by the backend.
QuantizedMatrix rounded(const GoldenCase& golden, Backend& backend)
{
    const Buffer w = backend.upload(golden.single("W"));
    const GridBuffers grid = backend.fit_grid(w, grid_parameter(golden));
    return to_host(backend.round_nearest(w, grid), grid, backend);
}

Status check_normal_float(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const QuantizedMatrix q = rounded(golden, backend);
    const auto levels = normal_float_levels(q.grid.bits);
    verdict.tensor("Q", q.dequantize());
    verdict.tensor("index", MatrixD(q.codes.cast<double>().array() + normal_float_zero(q.grid.bits)));
    verdict.tensor("scales", q.scales);
    verdict.tensor("levels",
                   MatrixD(Eigen::Map<const Matrix>(levels.data(), 1, std::ssize(levels)).cast<double>()));
    return {};
}

Status check_mxint(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const QuantizedMatrix q = rounded(golden, backend);
    verdict.tensor("Q", q.dequantize());
    verdict.tensor("exponents", MatrixD(q.scales
                                            .unaryExpr([&](float step) {
                                                return static_cast<float>(std::ilogb(step) + q.grid.bits - 2);
                                            })
                                            .cast<double>()
                                            .reshaped<Eigen::RowMajor>()
                                            .transpose()));
    return {};
}

} // namespace

std::vector<Handler> codebook_handlers()
{
    return {
        {"e8p", {}, check_e8p}, {"normal_float", {"W"}, check_normal_float}, {"mxint", {"W"}, check_mxint}};
}

} // namespace rankscope::golden
