// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::gpu::self_test {

namespace {

/// Sums over two batches of rows, some of them apart, far from zero in some columns.
ColumnTotals column_totals(Index rows, Index cols, float bad, Backend& backend)
{
    Matrix x = normal_matrix(rows, cols, "x");
    x.col(cols / 2) *= 100.0F;
    x.col(cols - 1).array() += 40.0F;
    x(0, 0) = 0.0F;
    std::vector<Index> apart;
    for (Index row = 0; row < rows; row += 5)
        apart.push_back(row);
    const auto accumulator = backend.column_accumulator({cols, {6.0, 0.5}, true});
    accumulator->add(backend.upload(x), apart);
    (void)accumulator->totals(); // looking does not end it
    x.array() *= 1.25F;
    x(rows - 1, cols / 3) = bad;
    accumulator->add(backend.upload(x), {});
    accumulator->add(backend.upload(Matrix(x.topRows(1))), std::vector<Index>{0});
    if (accumulator->first_not_finite() != accumulator->totals().first_not_finite)
        throw BackendFailure(internal_error("two answers about what is not finite"));
    return accumulator->totals();
}

} // namespace

void add_column_statistics(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {17, 3}, {300, 45}, {131, 259}, {18'000, 2}};
    const std::pair<const char*, VectorD ColumnStatistics::*> sums[] = {
        {"mean", &ColumnStatistics::mean},       {"m2", &ColumnStatistics::m2},
        {"m3", &ColumnStatistics::m3},           {"m4", &ColumnStatistics::m4},
        {"minimum", &ColumnStatistics::minimum}, {"maximum", &ColumnStatistics::maximum},
        {"sum_abs", &ColumnStatistics::sum_abs}};
    for (const auto& [rows, cols] : k_sizes) {
        const std::string shape = fmt::format(" {}x{}", rows, cols);
        const auto totals = [=](Backend& backend) { return column_totals(rows, cols, 0.25F, backend); };
        for (const auto& [name, sum] : sums) {
            add(cases, std::string("column_accumulator ") + name + shape, 2e-6, [=](Backend& backend) {
                const ColumnTotals both = totals(backend);
                MatrixD result(2, cols);
                result << (both.apart.*sum).transpose(), (both.others.*sum).transpose();
                return result;
            });
        }
        add(cases, "column_accumulator counts" + shape, 0.0, [=](Backend& backend) {
            const ColumnTotals both = totals(backend);
            MatrixD result = MatrixD::Zero(6, std::max<Index>(cols, ColumnStatistics::k_histogram_bins + 3));
            Index row = 0;
            for (const ColumnStatistics* side : {&both.apart, &both.others}) {
                result.block(row, 0, 2, cols) = side->above;
                for (std::size_t bin = 0; bin < side->histogram.size(); ++bin)
                    result(row + 2, static_cast<Index>(bin)) = static_cast<double>(side->histogram[bin]);
                result(row + 2, result.cols() - 1) = static_cast<double>(side->zeros);
                result(row + 2, result.cols() - 2) = static_cast<double>(side->rows);
                row += 3;
            }
            return result;
        });
        add(cases, "column_accumulator rows" + shape, k_float_tolerance, [=](Backend& backend) {
            const ColumnTotals both = totals(backend);
            VectorD result(static_cast<Index>(both.row_maxima.size()) + 4);
            for (std::size_t row = 0; row < both.row_maxima.size(); ++row)
                result[static_cast<Index>(row)] = static_cast<double>(both.row_maxima[row]);
            result.tail(4) << both.apart.crest_sum, both.apart.crest_max, both.others.crest_sum,
                both.others.crest_max;
            return MatrixD(result);
        });
        cases.push_back({"column_accumulator not finite" + shape, 0.0, [=](Backend& device, Backend& host) {
                             for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                                                     -std::numeric_limits<float>::infinity()}) {
                                 const auto found = column_totals(rows, cols, bad, device).first_not_finite;
                                 if (found != column_totals(rows, cols, bad, host).first_not_finite)
                                     return k_infinity;
                             }
                             return 0.0;
                         }});
    }
}

} // namespace rankscope::gpu::self_test
