// SPDX-License-Identifier: GPL-3.0-or-later
// A model has to fit: a folder of shards is dropped, gets a preset, is measured, squeezed into a size by the
// slider with two layers locked, run, closed at 40 %, resumed, exported and read back. And a measurement is stopped and
// gone on with.
#include "core/methods/method.h"
#include "core/plan/plan_budget.h"
#include "tests/app/walk.h"
#include "tests/support/sample_model.h"
#include "tests/support/wide_model.h"

#include <QComboBox>
#include <QLineEdit>
#include <QMessageBox>
#include <QPushButton>
#include <QSlider>
#include <QStyleOptionSlider>

using namespace rankscope;
using namespace rankscope::test;

class TestWalkBudget : public QObject, Walk {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { beginWalks(); }
    void init() { openWindow(); }
    void cleanup() { endWindow(); }
    void fit_into_a_size();
    void measuring_can_be_stopped();
    void cleanupTestCase() { endWalks(); }

private:
    void dropTheShards();
    void choosePreset();
    void measure();
    std::size_t measured() const;
    void lockTwoLayers();
    void dragTheBudget();
    void typeTheSize();
    void closeAtFortyPercent();
    void resumeAndExport();
    int rowOf(const char* layer) const { return window_->planDock().model().rowOf(QLatin1String(layer)); }
    PlanSize size() const { return planned_size(window_->session().plan(), *window_->session().model()); }

    QString folder_;
    std::vector<std::int64_t> locked_ranks_;
};

namespace {

constexpr std::size_t k_layers = 35;
constexpr const char* k_locked[] = {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"};

} // namespace

void TestWalkBudget::dropTheShards()
{
    folder_ = settings_.path(QStringLiteral("shards"));
    QVERIFY(shard_sample(toPath(folder_)));
    WALK(drop(folder_));
    QVERIFY(window_->session().model() && !window_->startPageVisible());
    enter(QStringLiteral("calibrating"));
    QTRY_VERIFY(bannerButton(QStringLiteral("Use built-in text")));
    click(bannerButton(QStringLiteral("Use built-in text")));
    WALK(waitUntilCalibrated());
}

void TestWalkBudget::choosePreset()
{
    enter(QStringLiteral("choosing a preset"));
    auto* presets = window_->findChild<QComboBox*>(QStringLiteral("plan_presets"));
    QVERIFY(presets && presets->isVisible());
    presets->setFocus();
    QTest::keyClick(presets, Qt::Key_End);
    QCOMPARE(window_->session().plan().rows.front().method, std::string("rtn"));
    QTest::keyClick(presets, Qt::Key_Home);
    QVERIFY2(presets->currentText().startsWith(QStringLiteral("ODLRI 2-bit")), qPrintable(presets->currentText()));
    for (const LayerPlan& row : window_->session().plan().rows)
        QVERIFY(row.method == "odlri" && row.parameters.integer("bits") == 2);
}

/// A small model is measured unasked.
void TestWalkBudget::measure()
{
    enter(QStringLiteral("measuring"));
    QTRY_COMPARE_WITH_TIMEOUT(measured(), k_layers, k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
}

std::size_t TestWalkBudget::measured() const
{
    const auto& rows = window_->session().plan().rows;
    return static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [&](const LayerPlan& row) {
        return window_->session().spectrum(toQString(row.layer)) != nullptr;
    }));
}

void TestWalkBudget::measuring_can_be_stopped()
{
    const QString wide = settings_.path(QStringLiteral("wide"));
    QVERIFY(write_wide_model(toPath(wide)));
    WALK(drop(wide));
    enter(QStringLiteral("stopping a measurement"));
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() && window_->runner().idle(), k_long);
    auto* button = window_->findChild<QPushButton*>(QStringLiteral("plan_measure"));
    const auto title = [&] { return window_->runner().info(window_->runner().jobs().back()).title; };
    const std::size_t before = measured(); // the selected layer's picture
    QVERIFY(before < k_layers);
    click(button);
    QCOMPARE(title(), QStringLiteral("Measure %1 layers").arg(k_layers - before));
    QTRY_VERIFY_WITH_TIMEOUT(measured() > before, k_long);
    QTest::keyClick(window_.get(), Qt::Key_Period, Qt::ControlModifier);
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    const std::size_t stopped = measured();
    QVERIFY2(stopped > before && stopped < k_layers, qPrintable(QString::number(stopped)));
    QTRY_VERIFY(button->isEnabled());
    click(button);
    QCOMPARE(title(), QStringLiteral("Measure %1 layers").arg(k_layers - stopped)); // what is known stays
    QTRY_COMPARE_WITH_TIMEOUT(measured(), k_layers, k_long);
}

void TestWalkBudget::lockTwoLayers()
{
    enter(QStringLiteral("locking"));
    PlanModel& plan = window_->planDock().model();
    for (const char* layer : k_locked) {
        const int row = rowOf(layer);
        clickCell(window_->planDock().table(), plan.index(row, PlanModel::Layer));
        clickBox(window_->planDock().table(), plan.index(row, PlanModel::Locked));
        const LayerPlan& locked = window_->session().plan().rows[static_cast<std::size_t>(row)];
        QVERIFY(locked.locked);
        locked_ranks_.push_back(locked.parameters.integer("rank"));
    }
}

void TestWalkBudget::dragTheBudget()
{
    enter(QStringLiteral("dragging the budget"));
    auto* slider = window_->findChild<QSlider*>(QStringLiteral("plan_budget"));
    QTRY_VERIFY_WITH_TIMEOUT(slider->isEnabled(), k_long);
    const auto handle = [&] {
        QStyleOptionSlider option;
        option.initFrom(slider);
        option.orientation = Qt::Horizontal;
        option.maximum = slider->maximum();
        option.sliderPosition = option.sliderValue = slider->value();
        return slider->style()->subControlRect(QStyle::CC_Slider, &option, QStyle::SC_SliderHandle, slider).center();
    };
    const std::uint64_t before = size().planned_bytes;
    const int steps = window_->session().undoStack().count();
    std::vector<std::uint64_t> seen;
    dragAcross(slider, handle(), QPoint(slider->width() * 3 / 4, slider->height() / 2), 12,
               [&] { seen.push_back(size().planned_bytes); });
    QVERIFY(size().planned_bytes > before);
    QVERIFY2(std::is_sorted(seen.begin(), seen.end()) && seen.front() < seen.back(), "the plan follows while dragging");
    QCOMPARE(window_->session().undoStack().count(), steps + 1);
    auto* outcome = window_->findChild<QLabel*>(QStringLiteral("plan_budget_outcome"));
    QVERIFY2(outcome->text().contains(QStringLiteral("worst layer")), qPrintable(outcome->text()));
}

void TestWalkBudget::typeTheSize()
{
    enter(QStringLiteral("typing a size"));
    const std::uint64_t goal = size().planned_bytes * 9 / 10;
    auto* target = window_->findChild<QLineEdit*>(QStringLiteral("plan_budget_target"));
    click(target);
    QTest::keyClick(target, Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(target, QStringLiteral("%1 kB").arg(static_cast<double>(goal) / 1000.0));
    QTest::keyClick(target, Qt::Key_Return);
    QVERIFY2(size().planned_bytes <= goal, qPrintable(QString::number(size().planned_bytes)));
    QVERIFY(size().planned_bytes > goal * 95 / 100); // and it is made use of
    for (std::size_t i = 0; i < std::size(k_locked); ++i)
        QCOMPARE(window_->session().plan().find(k_locked[i])->parameters.integer("rank"), locked_ranks_[i]);
    // Undone and done again it is the same.
    const Plan fitted = window_->session().plan();
    clickCell(window_->planDock().table(), window_->planDock().model().index(5, PlanModel::Layer));
    QTest::keyClick(&window_->planDock().table(), Qt::Key_Z, Qt::ControlModifier);
    QVERIFY(window_->session().plan().rows != fitted.rows);
    QTest::keyClick(&window_->planDock().table(), Qt::Key_Z, Qt::ControlModifier | Qt::ShiftModifier);
    QCOMPARE(window_->session().plan().rows, fitted.rows);
}

void TestWalkBudget::closeAtFortyPercent()
{
    enter(QStringLiteral("closing during a run"));
    Plan slow = window_->session().plan(); // long enough to be met in the middle on any machine
    QVERIFY(apply_setting(slow, "*:iterations=60,early_stop=false"));
    window_->session().editPlan(QStringLiteral("slow"), slow);
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(finishedLayers() >= static_cast<qsizetype>(k_layers * 4 / 10), k_long);
    window_->close();
    auto* question = window_->findChild<QMessageBox*>(QStringLiteral("close_question"));
    QTRY_VERIFY(question && question->isVisible());
    QVERIFY(QTest::qWaitForWindowActive(question));
    click(question->defaultButton());
    QTRY_VERIFY_WITH_TIMEOUT(!window_->isVisible(), k_long);
    window_.reset();
}

void TestWalkBudget::resumeAndExport()
{
    WALK(openWindow());
    WALK(drop(folder_));
    enter(QStringLiteral("resuming"));
    QTRY_VERIFY_WITH_TIMEOUT(bannerButton(QStringLiteral("Resume")), k_long);
    const std::size_t done = window_->session().run()->results().size();
    QVERIFY2(done >= k_layers * 4 / 10 && done < k_layers, qPrintable(QString::number(done)));
    click(bannerButton(QStringLiteral("Resume")));
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY(window_->session().run()->complete());
    for (std::size_t i = 0; i < std::size(k_locked); ++i)
        QCOMPARE(window_->session().run()->plan().find(k_locked[i])->parameters.integer("rank"), locked_ranks_[i]);

    WALK(openExport(settings_.path(QStringLiteral("fitted"))));
    ExportDialog& dialog = *window_->exportDialog();
    click(&dialog.exportButton());
    QTRY_VERIFY_WITH_TIMEOUT(dialog.checkPassed(), k_long);
    dialog.close();
}

void TestWalkBudget::fit_into_a_size()
{
    WALK(dropTheShards());
    WALK(choosePreset());
    WALK(measure());
    WALK(lockTwoLayers());
    WALK(dragTheBudget());
    WALK(typeTheSize());
    WALK(closeAtFortyPercent());
    WALK(resumeAndExport());
}

QTEST_MAIN(TestWalkBudget)
#include "test_walk_budget.moc"
