// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/command.h"
#include "tests/support/sparse_model.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;
using namespace rankscope::test;

/// `compress` within its working-set budget.
class TestCompressMemory : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void a_model_four_times_the_budget_stays_within_it_data();
    void a_model_four_times_the_budget_stays_within_it();
    void too_little_is_said_before_the_work_starts();

private:
    QString place(const char* name) const { return folder_.path() + '/' + name; }

    QTemporaryDir folder_;
    std::uint64_t bytes_ = 0; ///< of the checkpoint
};

void TestCompressMemory::initTestCase()
{
    SparseShape shape;
    shape.hidden = 576;
    shape.intermediate = 1536;
    shape.blocks = 36;
    shape.heads = 9;
    shape.kv_heads = 3;
    shape.vocabulary = 16000;
    VERIFY_OK(write_sparse_model(place("model").toStdString(), shape));
    const auto reader = CheckpointReader::open(place("model").toStdString());
    VERIFY_OK(reader);
    for (const auto& file : (*reader)->files())
        bytes_ += std::filesystem::file_size(file);
    QCOMPARE(
        run_cli({"plan", place("model"), "--method", "rtn", "--group", "64", "--out", place("plan.json")}).status,
        0);
}

void TestCompressMemory::a_model_four_times_the_budget_stays_within_it_data()
{
    QTest::addColumn<QStringList>("how");
    QTest::newRow("one thread") << QStringList{"--threads", "1"};
    QTest::newRow("two threads, any device") << QStringList{"--threads", "2"};
}

void TestCompressMemory::a_model_four_times_the_budget_stays_within_it()
{
    QFETCH(QStringList, how);
    const std::uint64_t budget = bytes_ / 4;
    const QJsonObject done =
        document(QStringList{"compress", place("model"), "--plan", place("plan.json"), "--out", place("run"),
                             "--force", "--memory", QString::number(budget)}
                 + how);
    const double peak = done["process"]["peak_resident_bytes"].toDouble();
    qInfo("model %.1f MB, budget %.1f MB, peak %.1f MB", static_cast<double>(bytes_) / 1e6,
          static_cast<double>(budget) / 1e6, peak / 1e6);
    QVERIFY(peak > 0.0);
    if (done["process"]["backend"].toString() != "cpu")
        QSKIP("a graphics driver is in the process, whose memory is not ours");
    QVERIFY2(peak <= static_cast<double>(budget), qPrintable(QString::number(peak)));
}

void TestCompressMemory::too_little_is_said_before_the_work_starts()
{
    const CommandResult refused = run_cli({"compress", place("model"), "--plan", place("plan.json"), "--out",
                                           place("never"), "--memory", "30MB", "--backend", "cpu"});
    QCOMPARE(refused.status, 4);
    QVERIFY2(refused.errors.contains("--memory") && refused.errors.contains("beside"), refused.errors);
    QVERIFY(!std::filesystem::exists(place("never").toStdString()));
}

QTEST_GUILESS_MAIN(TestCompressMemory)
#include "test_compress_memory.moc"
