// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/random.h"
#include "core/tensor/magnitude_pyramid.h"

#include <QtTest>

#include <cmath>
#include <limits>

using namespace rankscope;

class TestMagnitudePyramid : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void every_level_equals_brute_force_data()
    {
        QTest::addColumn<int>("rows");
        QTest::addColumn<int>("cols");
        for (const auto& [rows, cols] : {std::pair(1, 1), {1, 7}, {9, 1}, {64, 64}, {65, 130}, {257, 33}})
            QTest::addRow("%d x %d", rows, cols) << rows << cols;
    }

    void every_level_equals_brute_force()
    {
        QFETCH(int, rows);
        QFETCH(int, cols);
        const RandomStream stream(1, "pyramid");
        std::uint64_t next = 0;
        const Matrix values =
            Matrix::NullaryExpr(rows, cols, [&] { return static_cast<float>(stream.uniform(next++) - 0.5); });
        const MagnitudePyramid pyramid(values);
        QCOMPARE(pyramid.rows(), Index{rows});
        QCOMPARE(pyramid.cols(), Index{cols});
        QCOMPARE(pyramid.level(pyramid.levels() - 1).size(), Index{1});
        QCOMPARE(pyramid.largest(), static_cast<double>(values.cwiseAbs().maxCoeff()));
        QVERIFY(
            std::abs(pyramid.rms() - std::sqrt(values.cast<double>().squaredNorm() / double(values.size())))
            < 1e-12);
        for (int k = 0; k < pyramid.levels(); ++k) {
            const Index side = Index{1} << k;
            const Matrix& level = pyramid.level(k);
            QCOMPARE(level.rows(), (rows + side - 1) / side);
            QCOMPARE(level.cols(), (cols + side - 1) / side);
            for (Index i = 0; i < level.rows(); ++i) {
                for (Index j = 0; j < level.cols(); ++j) {
                    const auto covered = values.block(i * side, j * side, std::min(side, rows - i * side),
                                                      std::min(side, cols - j * side));
                    Index row = 0;
                    Index col = 0;
                    covered.cwiseAbs().maxCoeff(&row, &col);
                    QCOMPARE(level(i, j), covered(row, col));
                }
            }
        }
    }

    void what_is_not_finite_stays_seen()
    {
        Matrix values = Matrix::Constant(33, 70, 0.5F);
        values(32, 69) = std::numeric_limits<float>::quiet_NaN();
        values(0, 3) = -std::numeric_limits<float>::infinity();
        values(9, 9) = -2.0F;
        const MagnitudePyramid pyramid(values);
        QCOMPARE(pyramid.not_finite(), std::uint64_t{2});
        QCOMPARE(pyramid.largest(), 2.0);
        QVERIFY(std::isnan(pyramid.level(3)(4, 8)));
        QVERIFY(std::isnan(pyramid.level(2)(0, 0)));
        QCOMPARE(pyramid.level(3)(1, 1), -2.0F);
        QVERIFY(MagnitudePyramid(Matrix(0, 4)).empty());
        values.setConstant(std::numeric_limits<float>::quiet_NaN());
        QCOMPARE(MagnitudePyramid(values).largest(), 0.0);
    }

    void a_difference_is_the_second_less_the_first()
    {
        const RandomStream stream(2, "pyramid");
        std::uint64_t next = 0;
        const auto random = [&] { return static_cast<float>(stream.uniform(next++) - 0.5); };
        const Matrix a = Matrix::NullaryExpr(131, 67, random);
        Matrix b = Matrix::NullaryExpr(131, 67, random);
        b(130, 66) = std::numeric_limits<float>::infinity();
        const MagnitudePyramid difference = difference_of(MagnitudePyramid(a), MagnitudePyramid(b));
        for (Index i = 0; i < a.size() - 1; ++i)
            QCOMPARE(difference.level(0).data()[i], b.data()[i] - a.data()[i]);
        QCOMPARE(difference.not_finite(), std::uint64_t{1});
        QVERIFY(difference_of(MagnitudePyramid(a), MagnitudePyramid(Matrix::Ones(67, 131))).empty());
        QVERIFY(difference_of(MagnitudePyramid(), MagnitudePyramid()).empty());
    }
};

QTEST_GUILESS_MAIN(TestMagnitudePyramid)
#include "test_magnitude_pyramid.moc"
