// SPDX-License-Identifier: GPL-3.0-or-later
// The first minute: a stranger starts the program, opens the sample, sees an outlier channel that lasts through the
// model, and gives its layer the rank that carries most of it. In eight actions, without a dialog; and once more where
// people write 5,2 for 5.2.
#include "tests/app/walk.h"

#include <QLineEdit>
#include <QLocale>
#include <QProcess>

#include <algorithm>
#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

class TestWalkFirstMinute : public QObject, Walk {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { beginWalks(); }
    void init() { openWindow(); }
    void cleanup() { endWindow(); }
    void outlier_to_rank();
    void with_a_decimal_comma();
    void files_know_no_comma();
    void cleanupTestCase() { endWalks(); }

private:
    void openWithEnter();
    void clickTheLine();
    void dragToNinetyPercent();

    int actions_ = 0;
};

namespace {

/// The channel that is the strongest of the most rows.
int lastingChannel(const OverviewPlot& overview, int& rows)
{
    QHash<int, int> times;
    const auto table = overview.table();
    for (qsizetype i = 1; i < table.size(); ++i)
        ++times[table[i][2].toInt()];
    int found = -1;
    rows = 0;
    for (auto time = times.cbegin(); time != times.cend(); ++time) {
        if (time.value() > rows) {
            found = time.key();
            rows = time.value();
        }
    }
    return found;
}

/// How light the picture is in the middle of a cell; a lighter cell is a larger activation in the light theme's map.
int lightnessAt(QCustomPlot& canvas, const QImage& picture, double x, double y)
{
    const double ratio = picture.devicePixelRatio();
    const QPoint place(qRound(canvas.xAxis->coordToPixel(x) * ratio), qRound(canvas.yAxis->coordToPixel(y) * ratio));
    return qGray(picture.pixel(place));
}

/// Whether that column stands out of its neighbors in most of the rows drawn.
bool isALine(QCustomPlot& canvas, int channel, int rows)
{
    const QImage picture = canvas.grab().toImage();
    int brighter = 0;
    for (int row = 0; row < rows; ++row) {
        const int own = lightnessAt(canvas, picture, channel, row);
        brighter += own > lightnessAt(canvas, picture, channel - 2, row)
                            && own > lightnessAt(canvas, picture, channel + 2, row)
                        ? 1
                        : 0;
    }
    return 2 * brighter > rows;
}

} // namespace

void TestWalkFirstMinute::openWithEnter()
{
    enter(QStringLiteral("Enter on the sample"));
    QVERIFY(window_->startPageVisible());
    QTRY_VERIFY(QApplication::focusWidget() != nullptr);
    QCOMPARE(QApplication::focusWidget()->objectName(), QStringLiteral("start_sample"));
    QTest::keyClick(QApplication::focusWidget(), Qt::Key_Return);
    ++actions_;
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
    waitUntilCalibrated();
}

void TestWalkFirstMinute::clickTheLine()
{
    enter(QStringLiteral("clicking an outlier line"));
    auto* overview = window_->findChild<OverviewPlot*>(QStringLiteral("overview_plot"));
    QTRY_VERIFY(overview && overview->isVisible()); // without a click: the whole model comes first
    QTRY_VERIFY_WITH_TIMEOUT(overview->rowCount() > 0, k_long);
    QTest::qWait(200); // the queued replot lays the axes out
    int rows = 0;
    const int channel = lastingChannel(*overview, rows);
    QVERIFY2(rows >= 2, "the sample has a channel that is the strongest of several blocks");
    auto* canvas = overview->findChild<QCustomPlot*>();
    QVERIFY(isALine(*canvas, channel, overview->rowCount()));
    const int row = overview->rowCount() - 1;
    click(canvas, QPoint(static_cast<int>(canvas->xAxis->coordToPixel(channel)),
                         static_cast<int>(canvas->yAxis->coordToPixel(row))));
    ++actions_;
    QCOMPARE(window_->session().selection().channel, channel);
    const QString group = overview->table()[row + 1][0];
    QCOMPARE(window_->session().selection().layer, group);
    QCOMPARE(window_->planDock().model().layerAt(window_->planDock().table().currentIndex().row()), group);
}

void TestWalkFirstMinute::dragToNinetyPercent()
{
    enter(QStringLiteral("dragging the rank"));
    const QString layer = window_->session().selection().layer;
    QTest::keyClick(window_.get(), Qt::Key_3, Qt::AltModifier);
    ++actions_;
    SpectrumPlot& spectrum = window_->spectrumPlot();
    QTRY_VERIFY(spectrum.isVisible());
    QTRY_VERIFY_WITH_TIMEOUT(spectrum.largestRank() > 0 && !spectrum.busy(), k_long);
    QVERIFY2(spectrum.summary().contains(layer), qPrintable(spectrum.summary())); // it followed
    int goal = 0;
    while (goal < spectrum.largestRank() && spectrum.tailEnergy(goal) > 0.1)
        ++goal;
    QVERIFY(goal > 0 && goal < spectrum.largestRank());
    QTest::qWait(200);
    auto* canvas = spectrum.findChild<QCustomPlot*>();
    const auto place = [&](int rank) {
        return QPoint(static_cast<int>(canvas->xAxis->coordToPixel(rank + 0.5)), canvas->axisRect()->center().y());
    };
    dragAcross(canvas, place(spectrum.rank()), place(goal), 10);
    ++actions_;
    QVERIFY(std::abs(spectrum.rank() - goal) <= 1);
    QVERIFY(spectrum.readout().contains(QString::number(spectrum.rank())));
    const PlanModel& plan = window_->planDock().model();
    QCOMPARE(plan.index(plan.rowOf(layer), PlanModel::Rank).data().toString(), QString::number(spectrum.rank()));
}

void TestWalkFirstMinute::outlier_to_rank()
{
    actions_ = 0;
    WALK(openWithEnter());
    QVERIFY(!anyDialog());
    WALK(clickTheLine());
    WALK(dragToNinetyPercent());
    QVERIFY(!anyDialog());
    QVERIFY(window_->banner().text().isEmpty());
    QVERIFY2(actions_ <= 8, qPrintable(QString::number(actions_)));
}

void TestWalkFirstMinute::with_a_decimal_comma()
{
    const QLocale before;
    QLocale::setDefault(QLocale(QLocale::German, QLocale::Germany));
    endWindow();
    openWindow();
    WALK(openWithEnter());
    WALK(clickTheLine());
    WALK(dragToNinetyPercent());

    enter(QStringLiteral("a budget with a comma"));
    window_->setFocus();
    auto* target = window_->findChild<QLineEdit*>(QStringLiteral("plan_budget_target"));
    QVERIFY(target);
    QTRY_VERIFY_WITH_TIMEOUT(target->isEnabled() && window_->runner().idle(), k_long);
    const QString written = target->text();
    QVERIFY2(written.contains(QLatin1Char('.')) && !written.contains(QLatin1Char(',')), qPrintable(written));
    click(target);
    QTest::keyClick(target, Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(target, QStringLiteral("5,2bpw"));
    QTest::keyClick(target, Qt::Key_Return);
    const double reached = target->text().chopped(3).toDouble();
    QVERIFY2(std::abs(reached - 5.2) < 0.2, qPrintable(target->text()));

    // What is copied and exported is read by programs: points, everywhere.
    for (const QStringList& row : window_->spectrumPlot().table().mid(1, 4))
        for (const QString& cell : row)
            QVERIFY2(!cell.contains(QLatin1Char(',')), qPrintable(cell));
    QLocale::setDefault(before);
}

/// The whole program under the user's locale: what it writes is the same.
void TestWalkFirstMinute::files_know_no_comma()
{
    QByteArray written[2];
    const char* locales[] = {"C.UTF-8", "de_DE.UTF-8"};
    for (int i = 0; i < 2; ++i) {
        const QString file = settings_.path(QStringLiteral("%1.csv").arg(QLatin1String(locales[i])));
        QProcess program;
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        environment.insert(QStringLiteral("LC_ALL"), QLatin1String(locales[i]));
        environment.insert(QStringLiteral("LANG"), QLatin1String(locales[i]));
        program.setProcessEnvironment(environment);
        program.start(QString::fromStdString((program_folder() / "rankscope").string()),
                      {QStringLiteral("--render"), QStringLiteral("spectrum"),
                       QString::fromStdString(sample_folder().string()), QStringLiteral("-o"), file});
        QVERIFY(program.waitForFinished(k_long));
        QVERIFY2(program.exitCode() == 0, program.readAllStandardError().constData());
        QFile csv(file);
        QVERIFY(csv.open(QIODevice::ReadOnly));
        written[i] = csv.readAll();
    }
    QVERIFY(written[0].size() > 1000);
    QCOMPARE(written[1], written[0]);
}

QTEST_MAIN(TestWalkFirstMinute)
#include "test_walk_first_minute.moc"
