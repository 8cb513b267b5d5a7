// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/base/random.h"
#include "core/base/thread_pool.h"
#include "core/calibration/activation_statistics.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/copying_backend.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

using namespace rankscope;

namespace {

/// Channels of very different size and offset: the case that raw fourth powers cannot stand.
MatrixD uneven_tokens(Index tokens, Index channels)
{
    const RandomStream random(7, "statistics");
    MatrixD x(tokens, channels);
    for (Index token = 0; token < tokens; ++token) {
        for (Index channel = 0; channel < channels; ++channel) {
            const double spread = std::exp2(static_cast<double>(channel % 11) - 5.0);
            const double offset = channel % 5 == 0 ? 1000.0 * spread : 0.0;
            x(token, channel) =
                offset + spread * random.normal(static_cast<std::uint64_t>(token * channels + channel));
        }
    }
    return x;
}

double relative_difference(const VectorD& a, const VectorD& b)
{
    const double scale = std::max(a.cwiseAbs().maxCoeff(), 1e-300);
    return (a - b).cwiseAbs().maxCoeff() / scale;
}

ActivationStatistics accumulate(const MatrixD& x, const std::vector<Index>& cuts)
{
    ActivationStatistics statistics(x.cols());
    Index first = 0;
    for (const Index cut : cuts) {
        statistics.add(x.middleRows(first, cut - first));
        first = cut;
    }
    statistics.add(x.middleRows(first, x.rows() - first));
    return statistics;
}

/// Every figure of both within `tolerance`, relative to the largest of its kind; counts equal.
void compare_all(const ActivationStatistics& a, const ActivationStatistics& b, double tolerance)
{
    QCOMPARE(a.tokens(), b.tokens());
    const MatrixD rows_a = a.to_rows();
    const MatrixD rows_b = b.to_rows();
    for (Index row = 0; row < rows_a.rows(); ++row) {
        // Each channel has its own scale, so each is compared by itself; odd moments by the scale of their
        // even ones.
        for (Index channel = 0; channel < rows_a.cols(); ++channel) {
            const double n = static_cast<double>(a.tokens());
            const double sigma = std::sqrt(rows_a(1, channel) / n);
            const double floor = row == 2 ? n * sigma * sigma * sigma : 0.0;
            const double scale = std::max({std::abs(rows_a(row, channel)), floor, 1e-300});
            const double difference = std::abs(rows_a(row, channel) - rows_b(row, channel)) / scale;
            QVERIFY2(difference <= tolerance,
                     qPrintable(QString("row %1 channel %2: %3").arg(row).arg(channel).arg(difference)));
        }
    }
    QVERIFY(a.histogram() == b.histogram());
    QCOMPARE(a.zeros(), b.zeros());
}

MatrixD read_double(const CheckpointReader& reader, const std::string& name)
{
    const auto view = reader.view(name);
    if (!view || view->dtype != DType::F64)
        return {};
    MatrixD matrix(view->shape.size() > 1 ? view->shape[0] : 1, view->shape.back());
    std::memcpy(matrix.data(), view->bytes.data(), view->bytes.size());
    return matrix;
}

} // namespace

class TestStatistics : public QObject {
    Q_OBJECT

private slots:
    void equals_direct_formulas();
    void any_cut_gives_the_same_data();
    void any_cut_gives_the_same();
    void merged_halves_equal_the_whole();
    void threads_do_not_change_bytes();
    void rows_restore_everything();
    void rows_apart_and_others_make_the_whole();
    void says_which_row_is_not_finite();
    void float_and_double_agree();
    void backends_gather_the_same();
    void further_thresholds_are_counted();
    void token_crests();
    void histogram_takes_every_magnitude();
    void constant_and_empty_channels();
    void counts_outliers();
    void golden_stream();
};

void TestStatistics::equals_direct_formulas()
{
    const MatrixD x = uneven_tokens(257, 37);
    const auto statistics = accumulate(x, {});
    const auto n = static_cast<double>(x.rows());
    const VectorD mean = x.colwise().mean().transpose();
    const MatrixD centred = x.rowwise() - mean.transpose();
    const VectorD m2 = centred.array().square().colwise().sum().transpose();
    const VectorD m4 = centred.array().square().square().colwise().sum().transpose();
    QVERIFY(relative_difference(mean, statistics.mean()) < 1e-14);
    const VectorD kurtosis = (m4.array() * n / m2.array().square()).matrix();
    QVERIFY(relative_difference(kurtosis, statistics.channel_kurtosis()) < 1e-12);
    QVERIFY(relative_difference(x.cwiseAbs().colwise().maxCoeff().transpose(), statistics.max_abs()) == 0.0);
    QVERIFY(relative_difference(x.cwiseAbs().colwise().mean().transpose(), statistics.mean_abs()) < 1e-14);
    QVERIFY(relative_difference((x.colwise().squaredNorm().transpose() / n).cwiseSqrt(), statistics.rms())
            < 1e-14);
    const double all_mean = x.mean();
    const double all_m2 = (x.array() - all_mean).square().mean();
    const double all_m4 = (x.array() - all_mean).square().square().mean();
    QVERIFY(std::abs(statistics.tensor_kurtosis() / (all_m4 / (all_m2 * all_m2)) - 1.0) < 1e-12);
    QVERIFY(std::abs(statistics.crest() - x.cwiseAbs().maxCoeff() / std::sqrt(x.array().square().mean()))
            < 1e-9);
}

void TestStatistics::any_cut_gives_the_same_data()
{
    QTest::addColumn<QList<int>>("cuts");
    QTest::newRow("single tokens at both ends") << QList<int>{1, 499};
    QTest::newRow("uneven") << QList<int>{1, 2, 17, 100, 101, 333};
    QTest::newRow("empty pieces") << QList<int>{0, 0, 250, 250, 500};
    QList<int> each;
    for (int token = 1; token < 500; ++token)
        each << token;
    QTest::newRow("token by token") << each;
}

void TestStatistics::any_cut_gives_the_same()
{
    QFETCH(QList<int>, cuts);
    const MatrixD x = uneven_tokens(500, 40);
    compare_all(accumulate(x, {}), accumulate(x, {cuts.begin(), cuts.end()}), 1e-11);
}

void TestStatistics::merged_halves_equal_the_whole()
{
    const MatrixD x = uneven_tokens(1001, 33);
    const auto whole = accumulate(x, {});
    ActivationStatistics first(33);
    ActivationStatistics second(33);
    first.add(x.topRows(400));
    second.add(x.bottomRows(601));
    ActivationStatistics merged = first;
    merged.merge(second);
    compare_all(whole, merged, 1e-12);
    ActivationStatistics other_way = second;
    other_way.merge(first);
    compare_all(whole, other_way, 1e-12);
    ActivationStatistics empty;
    empty.merge(whole);
    compare_all(whole, empty, 0.0);
    merged = whole;
    merged.merge(ActivationStatistics(33));
    compare_all(whole, merged, 0.0);
}

void TestStatistics::threads_do_not_change_bytes()
{
    const MatrixD x = uneven_tokens(300, 211);
    const int before = thread_count();
    set_thread_count(1);
    const auto one = accumulate(x, {64, 100});
    set_thread_count(4);
    const auto four = accumulate(x, {64, 100});
    set_thread_count(before);
    compare_all(one, four, 0.0);
}

void TestStatistics::rows_restore_everything()
{
    const auto before = accumulate(uneven_tokens(90, 12), {33});
    const auto& histogram = before.histogram();
    ColumnStatistics sums = ActivationStatistics::sums_of_rows(before.to_rows());
    sums.rows = before.tokens();
    sums.histogram = histogram;
    sums.zeros = before.zeros();
    const ActivationStatistics after(sums, before.thresholds());
    compare_all(before, after, 0.0);
    QCOMPARE(after.tensor_kurtosis(), before.tensor_kurtosis());
    QCOMPARE(after.quantile_abs(0.25), before.quantile_abs(0.25));
}

void TestStatistics::rows_apart_and_others_make_the_whole()
{
    const Matrix x = uneven_tokens(700, 45).cast<float>();
    std::vector<Index> apart;
    for (Index row = 0; row < 700; row += 3)
        apart.push_back(row);
    const std::vector<double> thresholds = {6.0, 100.0};
    const ColumnOptions options{45, thresholds, true};
    const auto accumulator = make_cpu_backend()->column_accumulator(options);
    const auto backend = make_cpu_backend();
    accumulator->add(backend->upload(x), apart);
    const ColumnTotals totals = accumulator->totals();
    QCOMPARE(totals.apart.rows, std::uint64_t{234});
    QCOMPARE(totals.others.rows, std::uint64_t{466});
    QCOMPARE(totals.first_not_finite, std::int64_t{-1});
    for (Index row = 0; row < 700; ++row)
        QCOMPARE(totals.row_maxima[static_cast<std::size_t>(row)], x.row(row).cwiseAbs().maxCoeff());
    Matrix named(234, 45);
    for (std::size_t i = 0; i < apart.size(); ++i)
        named.row(static_cast<Index>(i)) = x.row(apart[i]);
    ActivationStatistics direct(45, {100.0});
    direct.add(named);
    compare_all(ActivationStatistics(totals.apart, thresholds), direct, 1e-12);
    ActivationStatistics all(45, {100.0});
    all.add(x);
    ColumnStatistics merged = totals.apart;
    merged.merge(totals.others);
    compare_all(ActivationStatistics(merged, thresholds), all, 1e-11);
}

void TestStatistics::says_which_row_is_not_finite()
{
    const auto backend = make_cpu_backend();
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
        const auto accumulator = backend->column_accumulator({70, {6.0}, false});
        Matrix x = uneven_tokens(300, 70).cast<float>();
        accumulator->add(backend->upload(x), {});
        QCOMPARE(accumulator->first_not_finite(), std::int64_t{-1});
        x(299, 3) = bad;
        x(211, 69) = bad;
        accumulator->add(backend->upload(x), std::vector<Index>{0, 299});
        QCOMPARE(accumulator->first_not_finite(), std::int64_t{511});
        x(5, 5) = bad; // the first one stays
        accumulator->add(backend->upload(x), {});
        QCOMPARE(accumulator->first_not_finite(), std::int64_t{511});
    }
    // Squares that overflow are no reason to complain.
    const auto accumulator = backend->column_accumulator({2, {6.0}, false});
    accumulator->add(backend->upload(Matrix::Constant(200, 2, 3e38F)), {});
    QCOMPARE(accumulator->first_not_finite(), std::int64_t{-1});
    QVERIFY(std::abs(accumulator->totals().others.mean[0] / 3e38 - 1.0) < 1e-6);
}

void TestStatistics::float_and_double_agree()
{
    const Matrix x = uneven_tokens(403, 61).cast<float>();
    ActivationStatistics single(61);
    single.add(x);
    ActivationStatistics twice(61);
    twice.add(MatrixD(x.cast<double>()));
    compare_all(single, twice, 1e-9);
    QVERIFY(std::abs(single.mean_token_crest() / twice.mean_token_crest() - 1.0) < 1e-5);
}

void TestStatistics::backends_gather_the_same()
{
    const Matrix x = uneven_tokens(150, 33).cast<float>();
    const std::vector<Index> apart = {0, 64, 149};
    test::CopyingBackend device;
    const auto cpu = make_cpu_backend();
    std::vector<ColumnTotals> totals;
    for (Backend* backend : {cpu.get(), static_cast<Backend*>(&device)}) {
        const auto accumulator = backend->column_accumulator({33, {6.0}, false});
        accumulator->add(backend->upload(x), apart);
        accumulator->add(backend->upload(Matrix(x.topRows(1))), {});
        totals.push_back(accumulator->totals());
    }
    compare_all({totals[0].apart, {6.0}}, {totals[1].apart, {6.0}}, 0.0);
    compare_all({totals[0].others, {6.0}}, {totals[1].others, {6.0}}, 0.0);
    QVERIFY(totals[0].row_maxima.empty());
}

void TestStatistics::further_thresholds_are_counted()
{
    const Matrix x = uneven_tokens(257, 40).cast<float>();
    ActivationStatistics statistics(40, {1.0, 20.0});
    statistics.add(x);
    for (std::size_t k = 0; k < 3; ++k) {
        const float threshold = static_cast<float>(statistics.thresholds()[k]);
        const VectorD counts = (x.cwiseAbs().array() >= threshold).cast<double>().colwise().sum().transpose();
        QCOMPARE(statistics.threshold_counts(k), counts);
        QCOMPARE(statistics.outlier_channels(k), Index{(counts.array() > 0.0).count()});
    }
}

void TestStatistics::token_crests()
{
    Matrix x(2, 4);
    x << 3.0F, 3.0F, -3.0F, 3.0F, // 1
        0.0F, 8.0F, 0.0F, 0.0F;   // 8 / 4
    ActivationStatistics statistics(4);
    statistics.add(x);
    QCOMPARE(statistics.mean_token_crest(), 1.5);
    QCOMPARE(statistics.max_token_crest(), 2.0);
    QVERIFY(relative_difference(statistics.top_energy_curve(9),
                                (VectorD(4) << 73.0, 82.0, 91.0, 100.0).finished() / 100.0)
            < 1e-12);
}

void TestStatistics::histogram_takes_every_magnitude()
{
    const float extremes[] = {0.0f, -0.0f, 1e-45f, 1e-30f, 1.0f, -1.0f, 6.0f, 3e38f};
    Matrix x(8, 1);
    for (Index token = 0; token < 8; ++token)
        x(token, 0) = extremes[token];
    ActivationStatistics statistics(1);
    statistics.add(x);
    QCOMPARE(statistics.zeros(), std::uint64_t{2});
    QCOMPARE(statistics.histogram().front(), std::uint64_t{2}); // below 2^−40
    QCOMPARE(statistics.histogram().back(), std::uint64_t{1});  // above 2^24
    QCOMPARE(statistics.histogram()[40 * 16], std::uint64_t{2});
    QCOMPARE(ActivationStatistics::histogram_edge(40 * 16), 1.0);
    for (int bin = 0; bin < ActivationStatistics::k_histogram_bins; bin += 7) {
        // A value just above a bin's lower edge is counted in that bin.
        MatrixD value(1, 1);
        value(0, 0) = ActivationStatistics::histogram_edge(bin) * (1.0 + 1e-12);
        ActivationStatistics one(1);
        one.add(value);
        QCOMPARE(one.histogram()[static_cast<std::size_t>(bin)], std::uint64_t{1});
        // In float32 too: the first value that reaches the edge, and the last one below it.
        auto first = static_cast<float>(ActivationStatistics::histogram_edge(bin));
        if (static_cast<double>(first) < ActivationStatistics::histogram_edge(bin))
            first = std::nextafter(first, std::numeric_limits<float>::max());
        Matrix pair(2, 1);
        pair << first, std::nextafter(first, 0.0F);
        ActivationStatistics two(1);
        two.add(pair);
        QCOMPARE(two.histogram()[static_cast<std::size_t>(bin)], std::uint64_t{bin == 0 ? 2U : 1U});
        QCOMPARE(two.histogram()[static_cast<std::size_t>(std::max(0, bin - 1))],
                 std::uint64_t{bin == 0 ? 2U : 1U});
    }
    // Quantiles of a known distribution: |x| of 1 … 1000.
    MatrixD ramp(1000, 1);
    for (Index token = 0; token < 1000; ++token)
        ramp(token, 0) = static_cast<double>(token + 1);
    ActivationStatistics ramps(1);
    ramps.add(ramp);
    for (const double p : {0.1, 0.5, 0.9, 1.0})
        QVERIFY(std::abs(ramps.quantile_abs(p) / (1000.0 * p) - 1.0) < 0.025);
    QCOMPARE(ActivationStatistics(3).quantile_abs(0.5), 0.0);
}

void TestStatistics::constant_and_empty_channels()
{
    Matrix x = Matrix::Constant(10, 3, 0.1f);
    x.col(1).setZero();
    x(4, 2) = 5.0f;
    ActivationStatistics statistics(3);
    statistics.add(x);
    QCOMPARE(statistics.channel_kurtosis()[0], 0.0);
    QCOMPARE(statistics.channel_kurtosis()[1], 0.0);
    QVERIFY(statistics.channel_kurtosis()[2] > 3.0);
    const ActivationStatistics none(4);
    QCOMPARE(none.tokens(), std::uint64_t{0});
    QCOMPARE(none.tensor_kurtosis(), 0.0);
    QCOMPARE(none.crest(), 0.0);
    QCOMPARE(none.top_energy_share(0.5), 0.0);
    QCOMPARE(none.rms().size(), Index{4});
}

void TestStatistics::counts_outliers()
{
    Matrix x = Matrix::Ones(100, 20);
    x.col(3).setConstant(-30.0f);
    x(5, 7) = 6.0f; // once, on the threshold
    ActivationStatistics statistics(20);
    statistics.add(x);
    QCOMPARE(statistics.outlier_channels(), Index{2});
    QCOMPARE(statistics.outlier_channels_in(0.06), Index{1});
    QCOMPARE(statistics.threshold_counts()[7], 1.0);
    QCOMPARE(statistics.relative_outliers(10.0), Index{1});
    const double energy = 900.0 / (900.0 + 18.0 + (99.0 + 36.0) / 100.0);
    QVERIFY(std::abs(statistics.top_energy_share(0.01) - energy) < 1e-12);
    QCOMPARE(statistics.top_energy_share(1.0), 1.0);
}

void TestStatistics::golden_stream()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto reader = CheckpointReader::open(*shared / "golden" / "learned" / "stats_stream.safetensors");
    const auto json = Json::read(*shared / "golden" / "learned" / "stats_stream.json");
    QVERIFY2(reader, qPrintable(reader ? QString() : QString::fromStdString(reader.error().sentence())));
    QVERIFY(json);
    const MatrixD x = read_double(**reader, "x");
    QCOMPARE(x.rows(), Index{200});
    std::vector<Index> cuts;
    for (const Json& cut : *(*json)["parameters"]["cuts"].array_if())
        cuts.push_back(cut.integer());
    const Json& scalars = (*json)["scalars"];
    const double median = scalars["median_abs_exact"].number();
    for (const auto& pieces : {std::vector<Index>{}, cuts}) {
        const auto statistics = accumulate(x, pieces);
        const auto expect = [&](const char* name) {
            return VectorD(read_double(**reader, std::string("expect.") + name).row(0).transpose());
        };
        QVERIFY(relative_difference(expect("absmax"), statistics.max_abs()) < 1e-9);
        QVERIFY(relative_difference(expect("rms"), statistics.rms()) < 1e-9);
        QVERIFY(relative_difference(expect("mean"), statistics.mean()) < 1e-9);
        QVERIFY(relative_difference(expect("meanabs"), statistics.mean_abs()) < 1e-9);
        QVERIFY(relative_difference(expect("diagH"), statistics.rms().cwiseAbs2()) < 1e-9);
        QVERIFY(relative_difference(expect("channel_kurtosis"), statistics.channel_kurtosis()) < 1e-9);
        QVERIFY(std::abs(statistics.tensor_kurtosis() / scalars["tensor_kurtosis"].number() - 1.0) < 1e-9);
        QCOMPARE(std::int64_t{statistics.outlier_channels()}, scalars["outlier_channels"]["6.0"].integer(-1));
        QCOMPARE(std::int64_t{statistics.outlier_channels_in(0.06)},
                 scalars["outlier_channels_6pct"]["6.0"].integer(-1));
        for (const auto& [factor, count] : *scalars["outliers_k_median"].object_if())
            QCOMPARE(std::int64_t{statistics.relative_outliers(std::stod(factor))}, count.integer(-1));
        QVERIFY(std::abs(statistics.top_energy_share((*json)["parameters"]["topk"].number())
                             / scalars["topk_energy"].number()
                         - 1.0)
                < 1e-9);
        QVERIFY(std::abs(statistics.quantile_abs(0.5) / median - 1.0) < 0.03);
        const double ratio = statistics.max_abs().maxCoeff() / statistics.quantile_abs(0.5);
        QVERIFY(std::abs(ratio / scalars["absmax_over_median"].number() - 1.0) < 0.03);
    }
}

QTEST_GUILESS_MAIN(TestStatistics)
#include "test_statistics.moc"
