// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/backend.h"
#include "tests/support/numbers.h"

#include <Eigen/Cholesky>
#include <Eigen/LU>

#include <QTest>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

UniformGrid grid_of(int bits, Index group, bool symmetric = false, SymmetricRule rule = SymmetricRule::Full,
                    ClipSearch clip = ClipSearch::None)
{
    UniformGrid grid;
    grid.bits = bits;
    grid.group = group;
    grid.symmetric = symmetric;
    grid.rule = rule;
    grid.clip = clip;
    return grid;
}

struct Plain {
    double scale, zero;
};

Plain plain_rule(double low, double high, const UniformGrid& grid)
{
    low = std::min(low, 0.0);
    high = std::max(high, 0.0);
    const double levels = std::pow(2.0, grid.bits) - 1.0;
    if (grid.symmetric) {
        const double most = std::max(-low, high);
        const double step = grid.rule == SymmetricRule::Full ? 2.0 * most / levels
                                                             : most / (std::pow(2.0, grid.bits - 1) - 1.0);
        return {std::max(step, 1e-8), 0.0};
    }
    const double scale = std::max((high - low) / levels, 1e-8);
    return {scale, std::clamp(-std::nearbyint(low / scale), 0.0, levels)};
}

double plain_code(double w, const Plain& p, const UniformGrid& grid)
{
    const double low = grid.symmetric ? -std::pow(2.0, grid.bits - 1) : -p.zero;
    return std::clamp(std::nearbyint(w / p.scale), low, low + std::pow(2.0, grid.bits) - 1.0);
}

double plain_error(const VectorD& w, const Plain& p, const UniformGrid& grid)
{
    double sum = 0.0;
    for (const double x : w)
        sum += std::pow(std::abs(p.scale * plain_code(x, p, grid) - x), grid.clip_norm);
    return sum;
}

/// The searches, candidate by candidate.
Plain plain_fit(const VectorD& w, const UniformGrid& grid)
{
    const double low = std::min(w.minCoeff(), 0.0);
    const double high = std::max(w.maxCoeff(), 0.0);
    std::vector<Plain> candidates;
    if (grid.clip == ClipSearch::Shrink) {
        for (int i = 0; i < 80; ++i)
            candidates.push_back(plain_rule(low * (1.0 - i / 100.0), high * (1.0 - i / 100.0), grid));
    } else if (grid.clip == ClipSearch::Grid) {
        const int levels = (1 << grid.bits) - 1;
        for (int i = 1; i <= 100; ++i) {
            if (grid.symmetric) {
                const double most = std::max(-low, high) * i / 100.0;
                candidates.push_back(plain_rule(-most, most, grid));
            }
            for (int zero = 0; !grid.symmetric && zero <= levels; ++zero)
                candidates.push_back(
                    {std::max((high - low) * i / 100.0 / levels, 1e-8), static_cast<double>(zero)});
        }
    } else {
        candidates.push_back(plain_rule(low, high, grid));
    }
    Plain best = candidates.front();
    double least = std::numeric_limits<double>::infinity();
    for (const Plain& candidate : candidates) {
        const double error = plain_error(w, candidate, grid);
        if (error < least) {
            least = error;
            best = candidate;
        }
    }
    return best;
}

/// U with H = U·D·Uᵀ, unit upper triangular, through the Cholesky factor of the flipped matrix.
MatrixD upper_factor(const MatrixD& h)
{
    const MatrixD flipped = h.reverse();
    const MatrixD lower = Eigen::LLT<Eigen::MatrixXd>(flipped).matrixL();
    MatrixD upper = lower.reverse();
    for (Index k = 0; k < h.cols(); ++k)
        upper.col(k) /= upper(k, k);
    return upper;
}

/// GPTQ as published: after each column its error is spread by the Cholesky factor of H⁻¹.
MatrixD textbook_gptq(MatrixD w, const MatrixD& h, const MatrixD& scales, const MatrixD& zeros,
                      const UniformGrid& grid, std::span<const Index> group_column = {})
{
    const Eigen::MatrixXd inverse = h.inverse();
    const Eigen::MatrixXd upper = Eigen::LLT<Eigen::MatrixXd>(inverse).matrixU();
    MatrixD codes(w.rows(), w.cols());
    for (Index j = 0; j < w.cols(); ++j) {
        const Index group = (group_column.empty() ? j : group_column[static_cast<std::size_t>(j)])
                            / grid.group_width(w.cols());
        for (Index i = 0; i < w.rows(); ++i) {
            const Plain p{scales(i, group), zeros(i, group)};
            codes(i, j) = plain_code(w(i, j), p, grid);
            const double error = (w(i, j) - p.scale * codes(i, j)) / upper(j, j);
            for (Index k = j + 1; k < w.cols(); ++k)
                w(i, k) -= error * upper(j, k);
        }
    }
    return codes;
}

Index differing(const Matrix& a, const MatrixD& b) { return (a.cast<double>().array() != b.array()).count(); }

} // namespace

class TestRoundingOps : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    Matrix rounded_codes(const Matrix& w, const UniformGrid& grid)
    {
        const Buffer buffer = backend_->upload(w);
        return backend_->download(backend_->round_nearest(buffer, backend_->fit_grid(buffer, grid)).codes);
    }

private Q_SLOTS:
    void grids_match_the_definition_data()
    {
        QTest::addColumn<int>("bits");
        QTest::addColumn<int>("group");
        QTest::addColumn<int>("kind"); // 0 asymmetric, 1 full, 2 restricted
        QTest::addColumn<int>("clip");
        for (const int bits : {2, 3, 4, 8}) {
            for (const int group : {-1, 0, 1, 16, 32, 1000}) {
                for (const int kind : {0, 1, 2}) {
                    for (const int clip : {0, 1, 2}) {
                        if (clip != 2 || bits < 8)
                            QTest::addRow("b%d g%d kind %d clip %d", bits, group, kind, clip)
                                << bits << group << kind << clip;
                    }
                }
            }
        }
    }
    void grids_match_the_definition()
    {
        QFETCH(int, bits);
        QFETCH(int, group);
        QFETCH(int, kind);
        QFETCH(int, clip);
        const UniformGrid grid =
            grid_of(bits, group, kind != 0, kind == 2 ? SymmetricRule::Restricted : SymmetricRule::Full,
                    static_cast<ClipSearch>(clip));
        const Matrix w =
            random_floats(5, 43, 40 + static_cast<std::uint64_t>(bits)); // 43: the last group is shorter
        const Buffer buffer = backend_->upload(w);
        const GridBuffers fitted = backend_->fit_grid(buffer, grid);
        const Matrix scales = backend_->download(fitted.scales);
        const Matrix zeros = backend_->download(fitted.zeros);
        const RoundedBuffers rounded = backend_->round_nearest(buffer, fitted);
        const Matrix codes = backend_->download(rounded.codes);
        const Matrix values = backend_->download(rounded.values);
        const Index width = grid.group_width(43);
        QCOMPARE(scales.cols(), grid.groups(43));
        QCOMPARE(scales.rows(), Index{5});
        const MatrixD wide = w.cast<double>();
        for (Index i = 0; i < 5; ++i) {
            for (Index g = 0; g < scales.cols(); ++g) {
                const Index count = std::min(width, 43 - g * width);
                const VectorD members = group < 0
                                            ? VectorD(Eigen::Map<const VectorD>(wide.data(), wide.size()))
                                            : VectorD(wide.row(i).segment(g * width, count).transpose());
                const Plain expected = plain_fit(members, grid);
                const double scale = static_cast<double>(scales(i, g));
                const Plain chosen{scale, static_cast<double>(zeros(i, g))};
                // For a weight alone several candidates are equally near but for rounding noise; any of them
                // will do.
                const bool as_good = clip != 0 && count == 1
                                     && plain_error(members, chosen, grid)
                                            <= plain_error(members, expected, grid) * (1.0 + 1e-4) + 1e-15;
                if (!as_good) {
                    QVERIFY(std::abs(scale - expected.scale) <= 1e-6 * expected.scale);
                    QCOMPARE(chosen.zero, expected.zero);
                }
                for (Index j = g * width; j < g * width + count; ++j) {
                    // Division in float32 may fall on the other side of a tie; anything else must be equal.
                    const double ratio = wide(i, j) / scale;
                    const double code = plain_code(wide(i, j), chosen, grid);
                    const bool tie = std::abs(std::abs(ratio - std::floor(ratio)) - 0.5) < 1e-5;
                    QVERIFY(tie || static_cast<double>(codes(i, j)) == code);
                    QCOMPARE(values(i, j), scales(i, g) * codes(i, j));
                }
            }
        }
    }

    void ties_go_to_even()
    {
        // Range [0, 15] at 4 bits: the scale is exactly 1, the zero point 0.
        Matrix w(1, 8);
        w << 0.0F, 15.0F, 0.5F, 1.5F, 2.5F, 3.5F, 4.5F, 14.5F;
        Matrix expected(1, 8);
        expected << 0.0F, 15.0F, 0.0F, 2.0F, 2.0F, 4.0F, 4.0F, 14.0F;
        QVERIFY(rounded_codes(w, grid_of(4, 0)) == expected);
        w << -15.0F, 0.0F, -0.5F, -1.5F, -2.5F, -3.5F, -4.5F, -14.5F;
        expected << -15.0F, 0.0F, 0.0F, -2.0F, -2.0F, -4.0F, -4.0F, -14.0F;
        QVERIFY(rounded_codes(w, grid_of(4, 0)) == expected);
    }

    void one_sided_rows_and_zero_rows_hold_zero()
    {
        Matrix w(3, 4);
        w << 3.0F, 4.0F, 5.0F, 6.0F,    // all positive: range 0 … 6
            -3.0F, -4.0F, -5.0F, -6.0F, // all negative
            0.0F, 0.0F, 0.0F, 0.0F;
        const Buffer buffer = backend_->upload(w);
        const GridBuffers fitted = backend_->fit_grid(buffer, grid_of(2, 0));
        const Matrix scales = backend_->download(fitted.scales);
        const Matrix zeros = backend_->download(fitted.zeros);
        QCOMPARE(scales(0, 0), 2.0F);
        QCOMPARE(scales(1, 0), 2.0F);
        QCOMPARE(scales(2, 0), 1e-8F);
        QCOMPARE(zeros(0, 0), 0.0F);
        QCOMPARE(zeros(1, 0), 3.0F);
        QCOMPARE(zeros(2, 0), 0.0F);
        QCOMPARE(backend_->download(backend_->round_nearest(buffer, fitted).values).row(2).norm(), 0.0F);
        for (const ClipSearch clip : {ClipSearch::Shrink, ClipSearch::Grid}) {
            for (const bool symmetric : {false, true}) {
                const auto searched =
                    backend_->fit_grid(buffer, grid_of(3, 2, symmetric, SymmetricRule::Full, clip));
                QVERIFY((backend_->download(searched.scales).array() > 0.0F).all());
            }
        }
    }

    void codes_stay_in_range()
    {
        const Matrix w = random_floats(9, 50, 41);
        const Buffer buffer = backend_->upload(w);
        for (const int bits : {2, 5, 8}) {
            for (const bool symmetric : {false, true}) {
                const auto grid = backend_->fit_grid(
                    buffer, grid_of(bits, 16, symmetric, SymmetricRule::Full, ClipSearch::Shrink));
                const Matrix zeros = backend_->download(grid.zeros);
                // Weights far outside the grid must saturate, not wrap.
                const auto rounded = backend_->round_nearest(backend_->upload(Matrix(1e6F * w)), grid);
                const Matrix codes = backend_->download(rounded.codes);
                const float span = static_cast<float>((1 << bits) - 1);
                for (Index i = 0; i < 9; ++i) {
                    for (Index j = 0; j < 50; ++j) {
                        const float low =
                            symmetric ? -static_cast<float>(1 << (bits - 1)) : -zeros(i, j / 16);
                        QVERIFY(codes(i, j) == low || codes(i, j) == low + span);
                    }
                }
            }
        }
    }

    void what_is_not_finite_neither_hangs_nor_crashes()
    {
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
              -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max()}) {
            Matrix w = random_floats(3, 20, 42);
            w(1, 7) = bad;
            w(1, 8) = -bad;
            const Buffer buffer = backend_->upload(w);
            for (const ClipSearch clip : {ClipSearch::None, ClipSearch::Shrink, ClipSearch::Grid}) {
                for (const int group : {-1, 0, 8}) {
                    for (const bool symmetric : {false, true}) {
                        const auto grid = backend_->fit_grid(
                            buffer, grid_of(4, group, symmetric, SymmetricRule::Full, clip));
                        const Matrix codes = backend_->download(backend_->round_nearest(buffer, grid).codes);
                        const Matrix identity = Matrix::Identity(20, 20);
                        (void)backend_->round_with_feedback(buffer, backend_->upload(identity), grid, {});
                        if (group >= 0)
                            QVERIFY(codes.row(0).allFinite() && codes.row(2).allFinite());
                    }
                }
            }
        }
    }

    void empty_and_single()
    {
        const Buffer none = backend_->allocate(0, 8);
        const auto grid = backend_->fit_grid(none, grid_of(4, 4));
        QCOMPARE(grid.scales.cols(), Index{2});
        QCOMPARE(backend_->round_nearest(none, grid).codes.rows(), Index{0});
        const Buffer thin = backend_->allocate(3, 0);
        QCOMPARE(backend_->fit_grid(thin, grid_of(4, 4)).scales.cols(), Index{0});
        const Matrix one = Matrix::Constant(1, 1, -0.25F);
        QCOMPARE(rounded_codes(one, grid_of(4, 128))(0, 0), -15.0F);
    }

    void feedback_by_identity_is_nearest()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {65, 257}, {130, 128}}) {
            const Buffer w = backend_->upload(random_floats(rows, cols, 43));
            for (const int group : {-1, 0, 16}) {
                const auto grid = backend_->fit_grid(w, grid_of(3, group));
                const auto nearest = backend_->round_nearest(w, grid);
                const Buffer identity = backend_->upload(Matrix(Matrix::Identity(cols, cols)));
                const auto fed = backend_->round_with_feedback(w, identity, grid, {});
                QVERIFY(backend_->download(nearest.codes) == backend_->download(fed.codes));
                QVERIFY(backend_->download(nearest.values) == backend_->download(fed.values));
            }
        }
    }

    void feedback_equals_textbook_gptq_data()
    {
        QTest::addColumn<int>("rows");
        QTest::addColumn<int>("cols");
        QTest::addColumn<int>("group");
        QTest::addColumn<bool>("symmetric");
        QTest::newRow("1x1") << 1 << 1 << 0 << false;
        QTest::newRow("17x33") << 17 << 33 << 8 << false;
        QTest::newRow("65x129") << 65 << 129 << 32 << false;
        QTest::newRow("70x300 per row, symmetric") << 70 << 300 << 0 << true;
        QTest::newRow("10x257 ragged") << 10 << 257 << 100 << false;
    }
    void feedback_equals_textbook_gptq()
    {
        QFETCH(int, rows);
        QFETCH(int, cols);
        QFETCH(int, group);
        QFETCH(bool, symmetric);
        const Matrix w = random_floats(rows, cols, 44);
        const MatrixD h = random_moments(cols, 45);
        const Buffer buffer = backend_->upload(w);
        const auto grid = backend_->fit_grid(buffer, grid_of(3, group, symmetric, SymmetricRule::Restricted));
        const MatrixD expected = textbook_gptq(w.cast<double>(), h, backend_->download_double(grid.scales),
                                               backend_->download_double(grid.zeros), grid.grid);
        const MatrixD u = upper_factor(h);
        for (const bool twice : {false, true}) { // the factor may come in either precision
            const Buffer factor = twice ? backend_->upload(u) : backend_->upload(Matrix(u.cast<float>()));
            const auto result = backend_->round_with_feedback(buffer, factor, grid, {});
            // A sum in float32 next to a tie may fall on its other side and shift later codes of that row.
            QVERIFY(differing(backend_->download(result.codes), expected) <= rows * cols / 500);
            const auto nearest = backend_->round_nearest(buffer, grid);
            const auto loss = [&](const Buffer& values) {
                const MatrixD e = w.cast<double>() - backend_->download_double(values);
                return (e * h).cwiseProduct(e).sum();
            };
            if (cols > 1)
                QVERIFY(loss(result.values) < loss(nearest.values));
        }
    }

    void feedback_in_another_order_keeps_each_column_in_its_group()
    {
        const Index n = 40;
        const Matrix w = random_floats(12, n, 46);
        const MatrixD h = random_moments(n, 47);
        const Buffer buffer = backend_->upload(w);
        const auto grid = backend_->fit_grid(buffer, grid_of(4, 8));
        std::vector<Index> order(static_cast<std::size_t>(n));
        for (Index i = 0; i < n; ++i)
            order[static_cast<std::size_t>(i)] = (i * 17 + 5) % n;
        MatrixD permuted(n, n);
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < n; ++j)
                permuted(i, j) = h(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
        }
        const Buffer columns = backend_->gather_columns(buffer, order);
        const auto result = backend_->round_with_feedback(
            columns, backend_->upload(Matrix(upper_factor(permuted).cast<float>())), grid, order);
        const MatrixD expected = textbook_gptq(backend_->download_double(columns), permuted,
                                               backend_->download_double(grid.scales),
                                               backend_->download_double(grid.zeros), grid.grid, order);
        QVERIFY(differing(backend_->download(result.codes), expected) <= 1);
    }
};

QTEST_GUILESS_MAIN(TestRoundingOps)
#include "test_rounding_ops.moc"
