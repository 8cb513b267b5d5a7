// SPDX-License-Identifier: GPL-3.0-or-later
// NormalFloat and MXINT: levels, scales, nearest and feedback rounding, storage, export, plans.
#include "core/compute/grid_levels.h"
#include "core/export/detail/qlr_layer.h"
#include "core/methods/common_parameters.h"
#include "core/plan/layer_plan.h"
#include "core/quantize/rounding.h"
#include "core/run/detail/layer_file.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_layer.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

ScalarGrid grid_of_levels(GridLevels levels, int bits, Index group)
{
    ScalarGrid grid;
    grid.levels = levels;
    grid.bits = bits;
    grid.group = group;
    grid.symmetric = true;
    return grid;
}

/// LDLQ written out plainly in float64: every level is tried for every weight.
MatrixD plain_feedback(const Matrix& weight, const MatrixD& upper, const std::vector<Index>& order,
                       const ScalarGrid& grid, const Matrix& scales)
{
    const Index n = weight.cols();
    MatrixD values(weight.rows(), n);
    for (Index row = 0; row < weight.rows(); ++row) {
        VectorD missed = VectorD::Zero(n); // by place in the sweep
        for (Index k = 0; k < n; ++k) {
            const Index column = order[static_cast<std::size_t>(k)];
            const auto scale = static_cast<double>(scales(row, column / grid.group_width(n)));
            const double target =
                static_cast<double>(weight(row, column)) + missed.head(k).dot(upper.col(k).head(k));
            double best = 0.0;
            double distance = std::numeric_limits<double>::infinity();
            const int low = static_cast<int>(lowest_code(grid, 0.0F));
            for (int code = low; code <= low + static_cast<int>(code_span(grid)); ++code) {
                const double value = scale * static_cast<double>(grid_level(grid, code));
                if (std::abs(value - target) < distance) {
                    distance = std::abs(value - target);
                    best = value;
                }
            }
            values(row, column) = best;
            missed(k) = static_cast<double>(weight(row, column)) - best;
        }
    }
    return values;
}

} // namespace

class TestScalarGrids : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    static void add_grids()
    {
        QTest::addColumn<int>("levels");
        QTest::addColumn<int>("bits");
        for (const int bits : {2, 3, 4})
            QTest::addRow("nf%d", bits) << static_cast<int>(GridLevels::NormalFloat) << bits;
        for (const int bits : {2, 3, 4, 6, 8})
            QTest::addRow("mxint%d", bits) << static_cast<int>(GridLevels::MxInt) << bits;
    }

    static ScalarGrid fetched(Index group)
    {
        QFETCH(int, levels);
        QFETCH(int, bits);
        return grid_of_levels(static_cast<GridLevels>(levels), bits, group);
    }

private slots:
    void normal_float_levels_are_the_published_ones()
    {
        // NF4 as QLoRA's release prints it.
        const double published[] = {-1.0,       -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734,
                                    -0.0910500, 0.0,        0.0795803,  0.1609302,  0.2461123,  0.3379152,
                                    0.4407098,  0.5626170,  0.7229568,  1.0};
        const auto levels = normal_float_levels(4);
        QCOMPARE(levels.size(), std::size_t{16});
        for (std::size_t i = 0; i < 16; ++i)
            QVERIFY(std::abs(static_cast<double>(levels[i]) - published[i]) < 2e-7);
        for (const int bits : {2, 3, 4}) {
            const auto all = normal_float_levels(bits);
            QCOMPARE(std::ssize(all), std::ptrdiff_t{1} << bits);
            QVERIFY(std::is_sorted(all.begin(), all.end()));
            QCOMPARE(all.front(), -1.0F);
            QCOMPARE(all.back(), 1.0F);
            QCOMPARE(all[static_cast<std::size_t>(normal_float_zero(bits))], 0.0F);
            for (std::size_t i = 0; i < all.size(); ++i)
                QCOMPARE(nearest_normal_float(all[i], bits), static_cast<int>(i));
            // A tie goes to the lower level.
            const float middle = 0.5F * (all[all.size() - 2] + all.back());
            QCOMPARE(nearest_normal_float(middle, bits), static_cast<int>(all.size()) - 2);
        }
    }

    void mx_steps_are_powers_of_two()
    {
        QCOMPARE(mx_int_step(1.0F, 4), 0.25F); // 2^(0 − 2)
        QCOMPARE(mx_int_step(1.999F, 4), 0.25F);
        QCOMPARE(mx_int_step(2.0F, 4), 0.5F);
        QCOMPARE(mx_int_step(0.3F, 2), 0.25F); // e = −2
        QCOMPARE(mx_int_step(0.0F, 2), 1.0F);
        QVERIFY(mx_int_step(1e-44F, 8) >= std::numeric_limits<float>::min());
        QVERIFY(std::isfinite(mx_int_step(3e38F, 2)));
    }

    void rounding_takes_the_nearest_level_data() { add_grids(); }
    void rounding_takes_the_nearest_level()
    {
        for (const Index group : {Index{16}, Index{7}, Index{1}, Index{0}, Index{-1}}) {
            const ScalarGrid grid = fetched(group);
            Matrix w = sample_layer({9, 45, 20, 1}, 3).weight;
            w.row(4).setZero();
            const Buffer buffer = backend_->upload(w);
            const GridBuffers fitted = backend_->fit_grid(buffer, grid);
            const QuantizedMatrix q = to_host(backend_->round_nearest(buffer, fitted), fitted, *backend_);
            const Matrix values = q.dequantize();
            QVERIFY(values.row(4).isZero(0.0F));
            QCOMPARE(q.scales.cols(), grid.groups(45));
            const int low = static_cast<int>(lowest_code(grid, 0.0F));
            for (Index i = 0; i < w.rows(); ++i) {
                for (Index j = 0; j < w.cols(); ++j) {
                    const float scale = q.scales(i, j / grid.group_width(45));
                    for (int code = low; code <= low + static_cast<int>(code_span(grid)); ++code)
                        QVERIFY(std::abs(values(i, j) - w(i, j))
                                <= std::abs(scale * grid_level(grid, code) - w(i, j)) * 1.00001F + 1e-9F);
                }
            }
        }
    }

    void scales_follow_the_definition_data() { add_grids(); }
    void scales_follow_the_definition()
    {
        const ScalarGrid grid = fetched(8);
        const Matrix w = sample_layer({5, 24, 20, 1}, 4).weight;
        const Matrix scales = backend_->download(backend_->fit_grid(backend_->upload(w), grid).scales);
        for (Index i = 0; i < 5; ++i) {
            for (Index g = 0; g < 3; ++g) {
                const float largest = w.row(i).segment(8 * g, 8).cwiseAbs().maxCoeff();
                if (grid.levels == GridLevels::NormalFloat) {
                    QCOMPARE(scales(i, g), largest);
                } else {
                    const double power = std::log2(static_cast<double>(scales(i, g))) + grid.bits - 2;
                    QCOMPARE(power, std::floor(std::log2(static_cast<double>(largest))));
                }
            }
        }
    }

    void feedback_agrees_with_a_plain_sweep_data() { add_grids(); }
    void feedback_agrees_with_a_plain_sweep()
    {
        const ScalarGrid grid = fetched(16);
        const SampleLayer layer = sample_layer({70, 50, 300, 2}, 5); // more rows than a tile
        MatrixD hessian = layer.moments.hessian;
        Matrix weight = layer.weight;
        prepare_hessian(hessian, weight, 0.01);
        for (const bool act_order : {false, true}) {
            const auto factor = FeedbackFactor::make(hessian, act_order, *backend_, silent_monitor());
            QVERIFY(factor.has_value());
            const Buffer w = backend_->upload(weight);
            const GridBuffers fitted = backend_->fit_grid(w, grid);
            const RoundedBuffers rounded = factor->round(w, fitted, *backend_, silent_monitor());
            const MatrixD upper = backend_->download(factor->factor()).cast<double>();
            const MatrixD expected =
                plain_feedback(weight, upper, factor->order(), grid, backend_->download(fitted.scales));
            const Matrix values = backend_->download(rounded.values);
            // float32 sums may tip a weight that lies midway, and the rest of its row then differs.
            Index rows = 0;
            for (Index i = 0; i < weight.rows(); ++i)
                rows += (values.row(i).cast<double>() - expected.row(i)).cwiseAbs().maxCoeff() > 1e-5 ? 1 : 0;
            QVERIFY2(rows <= 2, qPrintable(QString::number(rows)));
            // The identity of methods-joint §2.2 (D from the factor) with the losses that the sweep measured.
            QCOMPARE(rounded.column_losses.size(), weight.cols());
            const double loss = rounded.column_losses.dot(factor->diagonal());
            const double exact = objective(weight - values, hessian);
            QVERIFY2(std::abs(loss - exact) < 1e-4 * exact,
                     qPrintable(QString("%1 %2").arg(loss).arg(exact)));
            double before = exact;
            RoundedBuffers tuned = rounded;
            for (int pass = 0; pass < 2; ++pass) {
                tuned = tune_rounding(w, tuned, backend_->upload(hessian), fitted, 1, *backend_, silent_monitor());
                const double after = objective(weight - backend_->download(tuned.values), hessian);
                QVERIFY(after <= before * (1.0 + 1e-6));
                before = after;
            }
        }
    }

    void bits_are_counted_exactly()
    {
        // 45 inputs in groups of 16: three scales a row.
        QCOMPARE(grid_bits_per_weight(grid_of_levels(GridLevels::NormalFloat, 3, 16), 10, 45),
                 3.0 + 3.0 * 16.0 / 45.0);
        QCOMPARE(grid_bits_per_weight(grid_of_levels(GridLevels::MxInt, 4, 32), 10, 64), 4.25);
        QCOMPARE(grid_bits_per_weight(grid_of_levels(GridLevels::MxInt, 4, 16), 10, 64), 4.5);
        QVERIFY(!has_bits(GridLevels::NormalFloat, 5));
        QVERIFY(has_bits(GridLevels::MxInt, 8));
        for (const char* method : {"rtn", "gptq", "lqer", "caldera"}) {
            const auto made = Parameters::make(find_method(method)->info(),
                                               {{"codebook", std::string("nf")}, {"bits", std::int64_t{5}}});
            QVERIFY(!made.has_value());
            QCOMPARE(made.error().kind, ErrorKind::Usage);
        }
    }

    void layers_survive_their_file_and_export_data() { add_grids(); }
    void layers_survive_their_file_and_export()
    {
        const ScalarGrid grid = fetched(16);
        const SampleLayer layer = sample_layer({20, 44, 200, 1}, 6);
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        LayerPlan row;
        row.layer = "layer";
        row.method = "caldera";
        row.parameters = *Parameters::make(find_method("caldera")->info(),
                                           {{"codebook", codebook_name(Codebook::Uniform, grid.levels)},
                                            {"bits", std::int64_t{grid.bits}},
                                            {"group", std::int64_t{16}},
                                            {"iterations", std::int64_t{2}},
                                            {"rank", std::int64_t{3}}});
        const auto made =
            find_method("caldera")->decompose(problem, row.parameters, *backend_, silent_monitor());
        QVERIFY(made.has_value());
        QTemporaryDir folder;
        const auto file = std::filesystem::path(folder.path().toStdString()) / "layer.safetensors";
        QVERIFY(write_layer_file(file, row, *made).has_value());
        const auto read = read_layer_file(file);
        QVERIFY2(read.has_value(), read ? "" : read.error().sentence().c_str());
        QVERIFY(read->reconstruct() == made->reconstruct());
        QCOMPARE(read->bits_per_weight(), made->bits_per_weight());
        LinearLayer linear;
        linear.name = "layer";
        linear.out = 20;
        linear.in = 44;
        QVERIFY(std::abs(planned_bits_per_weight(row, linear) - made->bits_per_weight()) < 1e-9);

        const auto packed = pack_layer(*made, linear);
        QCOMPARE(packed.has_value(), grid.levels == GridLevels::MxInt);
        if (packed) { // whole-number steps: a symmetric uniform grid to the format
            const auto read_again = test::read_back(*packed, "layer");
            QVERIFY(read_again.has_value());
            QVERIFY(*read_again == rounded_to_stored(*made, *packed).reconstruct());
        } else {
            QVERIFY(packed.error().sentence().find("NormalFloat") != std::string::npos);
        }
    }
};

QTEST_GUILESS_MAIN(TestScalarGrids)
#include "test_scalar_grids.moc"
