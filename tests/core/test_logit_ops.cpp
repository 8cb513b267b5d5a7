// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "tests/support/numbers.h"

#include <QtTest>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

Buffer upload(Backend& backend, const MatrixD& values, bool twice)
{
    return twice ? backend.upload(values) : backend.upload(Matrix(values.cast<float>()));
}

/// Values that both precisions hold exactly.
MatrixD logits_of(std::uint64_t seed, Index rows = 19, Index cols = 1333)
{
    return (8.0 * random_matrix(rows, cols, seed)).cast<float>().cast<double>();
}

MatrixD log_softmax(const MatrixD& x)
{
    MatrixD result = x;
    for (Index i = 0; i < x.rows(); ++i) {
        const double most = x.row(i).maxCoeff();
        result.row(i).array() -= most + std::log((x.row(i).array() - most).exp().sum());
    }
    return result;
}

} // namespace

/// What evaluation asks of logits, against the definitions in float64.
class TestLogitOps : public QObject {
    Q_OBJECT

private slots:
    void divergence_matches_its_definition_data();
    void divergence_matches_its_definition();
    void equal_logits_do_not_diverge();
    void divergence_ignores_a_shift_of_all_logits();
    void nan_is_not_hidden();
    void largest_element_of_each_row();
    void thread_count_does_not_change_bytes();

private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestLogitOps::divergence_matches_its_definition_data()
{
    QTest::addColumn<bool>("twice");
    QTest::addColumn<int>("columns");
    for (const int columns : {1, 2, 511, 512, 1333}) {
        QTest::addRow("float32 %d", columns) << false << columns;
        QTest::addRow("float64 %d", columns) << true << columns;
    }
}

void TestLogitOps::divergence_matches_its_definition()
{
    QFETCH(bool, twice);
    QFETCH(int, columns);
    const MatrixD p = logits_of(1, 7, columns);
    const MatrixD q = (p + random_matrix(7, columns, 2)).cast<float>().cast<double>();
    const VectorD found = backend_->kl_divergence(upload(*backend_, p, twice), upload(*backend_, q, twice));
    const MatrixD log_p = log_softmax(p);
    const MatrixD log_q = log_softmax(q);
    for (Index i = 0; i < p.rows(); ++i) {
        const double expected = (log_p.row(i).array().exp() * (log_p.row(i) - log_q.row(i)).array()).sum();
        QVERIFY2(std::abs(found[i] - expected) < 1e-11, qPrintable(QString::number(found[i] - expected)));
    }
}

void TestLogitOps::equal_logits_do_not_diverge()
{
    const Buffer p = upload(*backend_, logits_of(3), false);
    const VectorD zero = backend_->kl_divergence(p, p);
    QVERIFY(zero.minCoeff() >= 0.0 && zero.maxCoeff() < 1e-13);
}

void TestLogitOps::divergence_ignores_a_shift_of_all_logits()
{
    const MatrixD p = logits_of(4);
    const MatrixD q = logits_of(5);
    const Buffer reference = upload(*backend_, p, true);
    const VectorD plain = backend_->kl_divergence(reference, upload(*backend_, q, true));
    const VectorD shifted =
        backend_->kl_divergence(reference, upload(*backend_, (q.array() + 900.0).matrix(), true));
    QVERIFY((plain - shifted).cwiseAbs().maxCoeff() < 1e-10);
    QVERIFY(plain.minCoeff() > 0.1);
}

void TestLogitOps::nan_is_not_hidden()
{
    Matrix bad = Matrix::Zero(2, 5);
    bad(1, 3) = std::numeric_limits<float>::quiet_NaN();
    const Buffer sane = backend_->upload(Matrix(Matrix::Zero(2, 5)));
    QVERIFY(std::isnan(backend_->kl_divergence(sane, backend_->upload(bad))[1]));
    QVERIFY(std::isnan(backend_->kl_divergence(backend_->upload(bad), sane)[1]));
    QCOMPARE(backend_->kl_divergence(sane, backend_->upload(bad))[0], 0.0);
}

void TestLogitOps::largest_element_of_each_row()
{
    MatrixD x = logits_of(6);
    x.row(2).setConstant(-4.0); // equals: the first one
    x(3, 1332) = 1e6;
    x(4, 0) = 1e6;
    x(5, 40) = x(5, 900) = 1e6;
    for (const bool twice : {false, true}) {
        const std::vector<Index> found = backend_->row_argmax(upload(*backend_, x, twice));
        QCOMPARE(found.size(), std::size_t{19});
        QCOMPARE(found[2], Index{0});
        QCOMPARE(found[3], Index{1332});
        QCOMPARE(found[4], Index{0});
        QCOMPARE(found[5], Index{40});
        for (Index i = 0; i < x.rows(); ++i)
            QCOMPARE(x(i, found[static_cast<std::size_t>(i)]), x.row(i).maxCoeff());
    }
}

void TestLogitOps::thread_count_does_not_change_bytes()
{
    const Buffer p = upload(*backend_, logits_of(7, 300), false);
    const Buffer q = upload(*backend_, logits_of(8, 300), false);
    set_thread_count(1);
    const VectorD one = backend_->kl_divergence(p, q);
    set_thread_count(5);
    const VectorD five = backend_->kl_divergence(p, q);
    set_thread_count(0);
    QVERIFY(same_bytes(one, five));
}

QTEST_GUILESS_MAIN(TestLogitOps)
#include "test_logit_ops.moc"
