// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/random.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/compute/e8p.h"
#include "tests/support/test_paths.h"

#include <QTest>

#include <cmath>
#include <set>

using namespace rankscope;

namespace {

float squared_distance(const E8Point& a, const E8Point& b)
{
    float sum = 0.0F;
    for (std::size_t i = 0; i < 8; ++i)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

E8Point random_point(std::uint64_t index, double spread)
{
    const RandomStream random(3, "e8p");
    E8Point x{};
    for (std::uint64_t i = 0; i < 8; ++i)
        x[i] = static_cast<float>(spread * random.normal(8 * index + i));
    return x;
}

} // namespace

class TestE8p : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void all_codewords_differ_and_lie_in_the_lattice()
    {
        std::set<E8Point> points;
        for (unsigned code = 0; code < 65'536; ++code) {
            const E8Point point = e8p_decode(static_cast<std::uint16_t>(code));
            points.insert(point);
            // Minus the shift it is a vector of half-odd numbers with an even sum: D8 + ½.
            bool member = false;
            for (const float shift : {0.25F, -0.25F}) {
                float sum = 0.0F;
                bool half_odd = true;
                for (const float value : point) {
                    const float part = value - shift;
                    half_odd &= std::abs(part - std::floor(part) - 0.5F) < 1e-6F;
                    sum += part;
                }
                member |= half_odd && std::abs(std::remainder(sum, 2.0F)) < 1e-6F;
            }
            QVERIFY(member);
        }
        QCOMPARE(points.size(), std::size_t{65'536});
    }

    void every_codeword_is_nearest_to_itself()
    {
        for (unsigned code = 0; code < 65'536; ++code) {
            const auto nearest = e8p_nearest(e8p_decode(static_cast<std::uint16_t>(code)));
            QCOMPARE(static_cast<unsigned>(nearest.code), code);
        }
    }

    void nearest_equals_exhaustive_search()
    {
        std::vector<E8Point> all(65'536);
        for (unsigned code = 0; code < 65'536; ++code)
            all[code] = e8p_decode(static_cast<std::uint16_t>(code));
        for (std::uint64_t n = 0; n < 60; ++n) {
            const E8Point x = random_point(n, n < 30 ? 1.0 : n < 45 ? 0.3 : 4.0);
            float best = 1e30F;
            for (const E8Point& point : all)
                best = std::min(best, squared_distance(x, point));
            const auto nearest = e8p_nearest(x);
            QVERIFY(squared_distance(x, nearest.value) <= best * (1 + 1e-5F) + 1e-6F);
            QVERIFY(e8p_decode(nearest.code) == nearest.value);
        }
    }

    void sixteen_at_a_time_are_found_as_one_by_one()
    {
        for (std::uint64_t turn = 0; turn < 20; ++turn) {
            E8Lanes points{};
            for (std::uint64_t lane = 0; lane < k_e8_lanes; ++lane) {
                const E8Point x = random_point(5000 + turn * k_e8_lanes + lane, turn < 15 ? 1.0 : 3.0);
                for (std::size_t i = 0; i < 8; ++i)
                    points.coordinate[i][lane] = x[i];
            }
            E8NearestLanes nearest;
            e8p_nearest_lanes(points, 4, nearest);
            for (std::uint64_t lane = 0; lane < k_e8_lanes; ++lane) {
                const E8Nearest4 alone =
                    e8p_nearest_4bit(random_point(5000 + turn * k_e8_lanes + lane, turn < 15 ? 1.0 : 3.0));
                QCOMPARE(nearest.codes[0][lane], alone.codes[0]);
                QCOMPARE(nearest.codes[1][lane], alone.codes[1]);
                for (std::size_t i = 0; i < 8; ++i)
                    QCOMPARE(nearest.values.coordinate[i][lane], alone.value[i]);
            }
        }
    }

    void gaussian_error_is_the_published_one()
    {
        double sum2 = 0.0;
        double sum4 = 0.0;
        const int blocks = 4000;
        for (int n = 0; n < blocks; ++n) {
            E8Point x = random_point(static_cast<std::uint64_t>(n) + 1000, k_e8p_scale); // in codebook units
            sum2 += squared_distance(x, e8p_nearest(x).value);
            sum4 += squared_distance(x, e8p_nearest_4bit(x).value);
        }
        const double unit = 8.0 * blocks * k_e8p_scale * k_e8p_scale;
        QVERIFY2(std::abs(sum2 / unit - 0.0925) < 0.003, qPrintable(QString::number(sum2 / unit)));
        QVERIFY2(std::abs(sum4 / unit - 0.0100) < 0.001, qPrintable(QString::number(sum4 / unit)));
    }

    void matrices_of_any_width()
    {
        for (const Index cols : {1, 7, 8, 9, 40}) {
            Matrix w(3, cols);
            for (Index i = 0; i < w.size(); ++i)
                w.data()[i] = static_cast<float>(RandomStream(1).normal(static_cast<std::uint64_t>(i)));
            for (const int bits : {2, 4}) {
                for (const bool per_row : {false, true}) {
                    const E8Matrix rounded = e8p_round(w, bits, k_e8p_scale, per_row);
                    QVERIFY(rounded.values.allFinite());
                    QCOMPARE(rounded.scales.size(), per_row ? Index{3} : Index{1});
                    QVERIFY((rounded.values - w).norm() < (bits == 2 ? 0.75F : 0.35F) * w.norm());
                }
            }
        }
        const E8Matrix zero = e8p_round(Matrix::Zero(2, 8), 2, k_e8p_scale, false);
        QCOMPARE(zero.scales[0], 1.0);
    }

    void golden_codebook()
    {
        const auto shared = rankscope::test::shared_folder();
        if (!shared)
            QSKIP(rankscope::test::k_no_shared);
        const auto file = CheckpointReader::open(*shared / "golden/joint/e8p_codebook.safetensors");
        QVERIFY(file);
        const auto x = (*file)->read("x");
        const auto codes = (*file)->view("codes");
        const auto values = (*file)->read("expect.values");
        const auto nearest = (*file)->read("expect.nearest");
        const auto nearest4 = (*file)->read("expect.nearest_4bit");
        QVERIFY(x && codes && values && nearest && nearest4);
        const Matrix code_values = codes->to_matrix();
        for (Index r = 0; r < x->rows(); ++r) {
            const E8Point decoded = e8p_decode(static_cast<std::uint16_t>(code_values(0, r)));
            E8Point point{};
            for (Index i = 0; i < 8; ++i) {
                QCOMPARE(decoded[static_cast<std::size_t>(i)], (*values)(r, i));
                point[static_cast<std::size_t>(i)] = (*x)(r, i);
            }
            const auto two = e8p_nearest(point);
            const auto four = e8p_nearest_4bit(point);
            float expected2 = 0.0F;
            float expected4 = 0.0F;
            for (Index i = 0; i < 8; ++i) {
                expected2 += ((*nearest)(r, i) - (*x)(r, i)) * ((*nearest)(r, i) - (*x)(r, i));
                expected4 += ((*nearest4)(r, i) - (*x)(r, i)) * ((*nearest4)(r, i) - (*x)(r, i));
            }
            QVERIFY(std::abs(squared_distance(point, two.value) - expected2) <= 1e-4F * expected2 + 1e-6F);
            QVERIFY(std::abs(squared_distance(point, four.value) - expected4) <= 1e-2F * expected4 + 1e-6F);
        }
    }
};

QTEST_GUILESS_MAIN(TestE8p)
#include "test_e8p.moc"
