// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/grid_levels.h"
#include "core/plan/layer_parts.h"
#include "tests/support/sample_layer.h"
#include "tests/support/test_monitor.h"

#include <QtTest>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const SampleShape k_odd{23, 75, 150, 2}; // the last group of 32 is short

ScalarGrid grid_with(int bits, Index group, GridLevels levels = GridLevels::Integers, bool symmetric = false)
{
    ScalarGrid grid;
    grid.bits = bits;
    grid.group = group;
    grid.levels = levels;
    grid.symmetric = symmetric;
    return grid;
}

/// Nearest rounding of a matrix, with its codes.
QuantizedMatrix rounded(const Matrix& values, const ScalarGrid& grid, Backend& backend)
{
    const Buffer w = backend.upload(values);
    const GridBuffers fitted = backend.fit_grid(w, grid);
    return to_host(backend.round_nearest(w, fitted), fitted, backend);
}

Decomposition decomposition_of(const Matrix& weight, bool rotated, Backend& backend)
{
    Decomposition result;
    Buffer w = backend.upload(weight);
    if (rotated) {
        result.transform = Incoherence::random(weight.rows(), weight.cols(), 3, "layer");
        w = result.transform.weight(w, backend);
    }
    Matrix rest = backend.download(w);
    result.low_rank.left = rest.leftCols(2);
    result.low_rank.right = Matrix::Identity(2, rest.cols());
    rest -= result.low_rank.left * result.low_rank.right;
    result.quantized = rounded(rest, grid_with(2, 32), backend);
    return result;
}

} // namespace

class TestLayerParts : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void counts_every_value_once()
    {
        const auto backend = make_cpu_backend();
        const Matrix weight = sample_layer(k_odd, 7).weight;
        const QuantizedMatrix grid = rounded(weight, grid_with(3, 32), *backend);
        for (const GroupChoice choice :
             {GroupChoice{}, GroupChoice{22, -1}, GroupChoice{-1, 2}, GroupChoice{5, 2}}) {
            const HistogramInput input{weight, grid, choice};
            const ValueRange range = value_range(input);
            const ValueHistogram histogram = value_histogram(input, range, 37);
            const Index first = choice.group < 0 ? 0 : choice.group * 32;
            const Matrix chosen =
                weight.block(choice.row < 0 ? 0 : choice.row, first, choice.row < 0 ? weight.rows() : 1,
                             std::min<Index>(choice.group < 0 ? 75 : 32, 75 - first));
            QCOMPARE(range.low, static_cast<double>(chosen.minCoeff()));
            QCOMPARE(range.high, static_cast<double>(chosen.maxCoeff()));
            std::uint64_t sum = 0;
            for (const std::uint64_t count : histogram.counts)
                sum += count;
            QCOMPARE(sum, static_cast<std::uint64_t>(chosen.size()));
            QCOMPARE(histogram.values, sum);
            std::vector<std::uint64_t> plain(37);
            for (Index i = 0; i < chosen.size(); ++i) {
                const double share =
                    (static_cast<double>(chosen.data()[i]) - range.low) / (range.high - range.low);
                ++plain[static_cast<std::size_t>(std::min(36, static_cast<int>(share * 37)))];
            }
            std::uint64_t moved = 0; // a value on an edge may round into the neighbor
            for (std::size_t bin = 0; bin < plain.size(); ++bin)
                moved +=
                    std::max(plain[bin], histogram.counts[bin]) - std::min(plain[bin], histogram.counts[bin]);
            QVERIFY2(moved <= 2, qPrintable(QString::number(moved)));
            QVERIFY(std::abs(histogram.rms
                             - std::sqrt(chosen.cast<double>().squaredNorm() / double(chosen.size())))
                    < 1e-12 * histogram.rms);
        }
    }

    /// Rows are rounded in tiles; each kind of grid gives what it gives as a whole.
    void planned_parts_do_not_depend_on_tiles()
    {
        const auto backend = make_cpu_backend();
        const Matrix weight = sample_layer({131, 512, 300, 2}, 5).weight;
        for (const ScalarGrid& grid :
             {grid_with(3, 32), grid_with(2, 0), grid_with(4, -1), grid_with(4, 32, GridLevels::Kquant),
              grid_with(4, 64, GridLevels::NormalFloat, true)}) {
            const LayerParts parts = planned_parts(weight, grid, *backend);
            const QuantizedMatrix whole = rounded(weight, grid, *backend);
            QVERIFY(parts.weight == weight);
            QVERIFY2(parts.quantized == whole.dequantize(), qPrintable(QString::number(grid.group)));
            QVERIFY(parts.residual == Matrix(weight - parts.quantized));
            const auto histogram = layer_histogram(weight, nullptr, grid, {}, *backend, silent_monitor());
            QVERIFY(histogram.has_value());
            const GridFit fit = grid_fit({weight, whole, {}, ValueUnit::Plain});
            QCOMPARE(histogram->fit.scale, fit.scale);
            QCOMPARE(histogram->fit.zeroed, fit.zeroed);
            QCOMPARE(histogram->fit.clipped, fit.clipped);
        }
    }

    void shares_are_those_of_rounding_data()
    {
        QTest::addColumn<int>("bits");
        QTest::addColumn<int>("levels");
        QTest::addColumn<bool>("symmetric");
        QTest::newRow("2 bits") << 2 << int(GridLevels::Integers) << false;
        QTest::newRow("4 bits") << 4 << int(GridLevels::Integers) << false;
        QTest::newRow("3 bits symmetric") << 3 << int(GridLevels::Integers) << true;
        QTest::newRow("8 bits") << 8 << int(GridLevels::Integers) << false;
        QTest::newRow("NF4") << 4 << int(GridLevels::NormalFloat) << true;
        QTest::newRow("MXINT4") << 4 << int(GridLevels::MxInt) << true;
        QTest::newRow("Q3_K") << 3 << int(GridLevels::Kquant) << true;
        QTest::newRow("Q4_K") << 4 << int(GridLevels::Kquant) << false;
    }

    void shares_are_those_of_rounding()
    {
        QFETCH(int, bits);
        QFETCH(int, levels);
        QFETCH(bool, symmetric);
        const auto backend = make_cpu_backend();
        const auto kind = static_cast<GridLevels>(levels);
        const Matrix weight = sample_layer({24, 256, 300, 3}, 11).weight;
        const Index group = kind == GridLevels::Kquant ? kquant_group(bits) : 32;
        const QuantizedMatrix q = rounded(weight, grid_with(bits, group, kind, symmetric), *backend);
        const Matrix values = q.dequantize();
        Index zeros = 0;
        Index clipped = 0;
        for (Index i = 0; i < weight.rows(); ++i) {
            for (Index j = 0; j < weight.cols(); ++j) {
                zeros += values(i, j) == 0.0F ? 1 : 0;
                const GridFit own = grid_fit({weight, q, {i, j / group}});
                const double w = weight(i, j);
                clipped += w < own.clip_low || w > own.clip_high ? 1 : 0;
                // The level that rounding chose is one of those drawn.
                const auto near = std::min_element(own.levels.begin(), own.levels.end(),
                                                   [v = double(values(i, j))](double a, double b) {
                                                       return std::abs(a - v) < std::abs(b - v);
                                                   });
                QVERIFY(std::abs(*near - double(values(i, j))) <= 1e-6 * std::abs(own.scale));
            }
        }
        const GridFit fit = grid_fit({weight, q, {}});
        const double count = static_cast<double>(weight.size());
        QCOMPARE(fit.grids, q.scales.size());
        QVERIFY(std::is_sorted(fit.levels.begin(), fit.levels.end()));
        QVERIFY2(std::abs(fit.zeroed * count - double(zeros)) <= 2.0, // ties
                 qPrintable(QStringLiteral("%1 %2").arg(fit.zeroed * count).arg(zeros)));
        QCOMPARE(std::lround(fit.clipped * count), long(clipped));
    }

    void a_narrowed_grid_clips()
    {
        const auto backend = make_cpu_backend();
        Matrix weight = Matrix::Constant(4, 64, 0.1F);
        for (Index j = 0; j < 64; ++j)
            weight(1, j) = j % 2 == 0 ? -0.1F : 0.05F;
        QuantizedMatrix q = rounded(weight, grid_with(2, 64), *backend);
        q.scales *= 0.25F; // 0.05 for rows of 0.1 … : a quarter of the range is left
        const GridFit fit = grid_fit({weight, q, {}});
        QVERIFY(fit.clipped > 0.5);
        QVERIFY(fit.clip_high < 0.1);
    }

    void steps_are_alike_for_all_groups()
    {
        const auto backend = make_cpu_backend();
        const Matrix weight = sample_layer(k_odd, 5).weight;
        for (const bool symmetric : {false, true}) {
            const QuantizedMatrix q =
                rounded(weight, grid_with(3, 32, GridLevels::Integers, symmetric), *backend);
            const Matrix values = q.dequantize();
            const HistogramInput input{values, q, {}, ValueUnit::Steps};
            const GridFit fit = grid_fit(input);
            QCOMPARE(fit.levels.size(), std::size_t{8});
            QVERIFY(std::abs(fit.levels.front() - (symmetric ? -4.0 : 0.0)) < 1e-6);
            QVERIFY(std::abs(fit.levels.back() - (symmetric ? 3.0 : 7.0)) < 1e-6);
            QCOMPARE(fit.has_dead_zone, symmetric); // zero points differ
            // Values on the grid lie in the bins of the levels only.
            const ValueHistogram histogram =
                value_histogram(input, {fit.levels.front() - 0.5, fit.levels.back() + 0.5}, 80);
            for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin)
                if (bin % 10 != 4 && bin % 10 != 5)
                    QCOMPARE(histogram.counts[bin], std::uint64_t{0});
        }
    }

    void odd_values_are_counted_apart()
    {
        Matrix weight = Matrix::Constant(3, 5, 2.0F);
        const QuantizedMatrix none;
        ValueHistogram histogram = value_histogram({weight, none, {}}, value_range({weight, none, {}}), 9);
        QCOMPARE(histogram.counts, std::vector<std::uint64_t>{15}); // one value: one bin
        QVERIFY(histogram.low < 2.0 && histogram.high > 2.0);
        QCOMPARE(grid_fit({weight, none, {}}).grids, Index{0});
        weight(0, 0) = std::numeric_limits<float>::quiet_NaN();
        weight(1, 1) = std::numeric_limits<float>::infinity();
        weight(2, 2) = -1.0F;
        histogram = value_histogram({weight, none, {}}, value_range({weight, none, {}}), 4);
        QCOMPARE(histogram.not_finite, std::uint64_t{2});
        QCOMPARE(histogram.values, std::uint64_t{13});
        QCOMPARE(histogram.counts, (std::vector<std::uint64_t>{1, 0, 0, 12}));
        const Matrix empty(0, 0);
        QCOMPARE(value_histogram({empty, none, {}}, {}, 3).values, std::uint64_t{0});
        weight.setConstant(std::numeric_limits<float>::quiet_NaN());
        QCOMPARE(value_histogram({weight, none, {}}, value_range({weight, none, {}}), 4).values,
                 std::uint64_t{0});
        const auto backend = make_cpu_backend();
        const auto drawn = layer_histogram(weight, nullptr, grid_with(4, -1), {}, *backend, silent_monitor());
        QVERIFY(drawn.has_value());
        for (const double level : drawn->fit.levels)
            QVERIFY(std::isfinite(level));
    }

    void parts_add_up_data()
    {
        QTest::addColumn<bool>("rotated");
        QTest::newRow("as it is") << false;
        QTest::newRow("rotated") << true;
    }

    void parts_add_up()
    {
        QFETCH(bool, rotated);
        const auto backend = make_cpu_backend();
        const Matrix weight = sample_layer(k_odd, 9).weight;
        const Decomposition decomposition = decomposition_of(weight, rotated, *backend);
        const auto parts = layer_parts(weight, decomposition, *backend);
        QVERIFY(parts.has_value());
        const float bound = 1e-5F * weight.norm();
        QVERIFY((parts->quantized + parts->low_rank - decomposition.reconstruct()).norm() < bound);
        QVERIFY((parts->quantized + parts->low_rank + parts->residual - weight).norm() < bound);
        QVERIFY(!layer_parts(weight.leftCols(8), decomposition, *backend));
        const LayerParts planned = planned_parts(weight, grid_with(4, 32), *backend);
        QVERIFY(planned.low_rank.size() == 0);
        QVERIFY((planned.quantized + planned.residual - weight).norm() < bound);
    }

    void removing_the_low_rank_part_is_seen()
    {
        const auto backend = make_cpu_backend();
        Matrix weight = sample_layer(k_odd, 9).weight;
        weight.leftCols(2) *= 30.0F; // what L·R takes
        const Decomposition decomposition = decomposition_of(weight, false, *backend);
        const auto drawn = layer_histogram(weight, &decomposition, {}, {}, *backend, silent_monitor());
        QVERIFY(drawn.has_value());
        QCOMPARE(drawn->values.size(), std::size_t{2});
        QVERIFY(drawn->values[1].series == LayerHistogram::Series::Remainder);
        const auto span = [](const ValueHistogram& h) { return h.maximum - h.minimum; };
        QVERIFY(span(drawn->values[1].histogram) < 0.2 * span(drawn->values[0].histogram));
        QCOMPARE(drawn->values[0].histogram.low, drawn->values[1].histogram.low); // one axis
        QCOMPARE(drawn->groups, Index{3});
        QVERIFY(drawn->from_run && !drawn->lattice);
        const auto turned =
            layer_histogram(weight, nullptr, grid_with(4, 32), {{}, ValueUnit::Plain, 64, true, "l"},
                            *backend, silent_monitor());
        QVERIFY(turned.has_value());
        QVERIFY(turned->values[1].series == LayerHistogram::Series::Rotated);
        QVERIFY(span(turned->values[1].histogram) < span(turned->values[0].histogram)); // outliers are spread
        for (const GroupChoice wrong : {GroupChoice{23, -1}, GroupChoice{-1, 3}}) {
            LayerHistogramOptions options;
            options.choice = wrong;
            QVERIFY(!layer_histogram(weight, &decomposition, {}, options, *backend, silent_monitor()));
        }
    }

    void a_lattice_has_no_levels()
    {
        const auto backend = make_cpu_backend();
        const Matrix weight = sample_layer({8, 32, 60, 1}, 2).weight;
        Decomposition decomposition;
        decomposition.quantized.codebook = Codebook::E8P;
        decomposition.quantized.columns = 32;
        decomposition.quantized.codes = CodeMatrix::Zero(8, 4);
        decomposition.quantized.scales = Matrix::Constant(1, 1, 0.1F);
        decomposition.quantized.grid.bits = 2;
        const auto drawn = layer_histogram(weight, &decomposition, {}, {}, *backend, silent_monitor());
        QVERIFY(drawn.has_value());
        QVERIFY(drawn->lattice && drawn->fit.levels.empty() && drawn->groups == 1);
    }
};

QTEST_GUILESS_MAIN(TestLayerParts)
#include "test_layer_parts.moc"
