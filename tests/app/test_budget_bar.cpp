// SPDX-License-Identifier: GPL-3.0-or-later
// The budget slider with real mouse and key events, on made-up spectra of the sample's layers.
#include "app/workbench/budget_bar.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "tests/app/gui_support.h"
#include "tests/support/sample_model.h"

#include <QLineEdit>
#include <QSignalSpy>
#include <QSlider>
#include <QStyle>
#include <QStyleOptionSlider>

#include <set>

using namespace rankscope;
using namespace rankscope::test;

class TestBudgetBar : public QObject {
    Q_OBJECT

    PrivateSettings settings_;
    std::unique_ptr<Session> session_;
    std::unique_ptr<PlanDock> dock_;

    BudgetBar& bar() { return dock_->budget(); }
    Plan plan() const { return session_->plan(); }
    PlanSize size() const { return planned_size(session_->plan(), *session_->model()); }
    std::set<std::int64_t> ranks() const
    {
        std::set<std::int64_t> all;
        for (const LayerPlan& row : session_->plan().rows)
            all.insert(rowInteger(row, "rank").value_or(-1));
        return all;
    }
    QPoint handle()
    {
        QStyleOptionSlider option;
        option.initFrom(&bar().slider());
        option.orientation = Qt::Horizontal;
        option.minimum = bar().slider().minimum();
        option.maximum = bar().slider().maximum();
        option.sliderPosition = option.sliderValue = bar().slider().value();
        return bar()
            .slider()
            .style()
            ->subControlRect(QStyle::CC_Slider, &option, QStyle::SC_SliderHandle, &bar().slider())
            .center();
    }
    void measureAll()
    {
        double decay = 0.02;
        for (const LayerPlan& row : session_->plan().rows) {
            const LinearLayer& layer = *session_->model()->find_linear(row.layer);
            const Index count = std::min(layer.out, layer.in);
            auto spectrum = std::make_shared<LayerSpectrum>();
            spectrum->weight = VectorD::Ones(count);
            spectrum->residual =
                (VectorD::LinSpaced(count, 0.0, static_cast<double>(count - 1)) * -decay).array().exp();
            spectrum->weight_norm = 10.0;
            session_->addSpectrum(session_->spectrumKey(toQString(row.layer)), spectrum);
            decay = decay < 0.3 ? decay * 1.5 : 0.02;
        }
    }

private Q_SLOTS:
    void init()
    {
        session_ = std::make_unique<Session>();
        dock_ = std::make_unique<PlanDock>(*session_);
        dock_->resize(900, 400);
        dock_->show();
        QVERIFY(QTest::qWaitForWindowExposed(dock_.get()));
        OpenedModel opened;
        opened.model = sample_model();
        session_->open(opened);
        const auto presets = planPresets();
        const auto chosen = std::find_if(presets.cbegin(), presets.cend(),
                                         [](const PlanPreset& preset) { return preset.method == "odlri"; });
        session_->resetPlan(*presetPlan(*chosen, *session_->model()));
    }

    void waits_for_measured_layers()
    {
        QTRY_VERIFY(!bar().slider().isEnabled());
        QVERIFY(!bar().slider().toolTip().isEmpty());
        measureAll();
        QTRY_VERIFY(bar().slider().isEnabled());
        QVERIFY(bar().outcome().contains(QStringLiteral("predicted error")));
        // It shows where the plan lies: same rank everywhere, neither the least nor the most.
        QVERIFY(bar().slider().value() > 0 && bar().slider().value() < bar().slider().maximum());
        QCOMPARE(ranks().size(), std::size_t{1});
    }

    void a_drag_is_one_step_and_ranks_follow()
    {
        measureAll();
        QTRY_VERIFY(bar().slider().isEnabled());
        const Plan before = plan();
        const auto bytes_before = size().planned_bytes;
        const QSignalSpy edited(&bar(), &BudgetBar::edited);
        const QPoint from = handle();
        QTest::mousePress(&bar().slider(), Qt::LeftButton, {}, from);
        for (int step = 1; step <= 5; ++step)
            QTest::mouseMove(&bar().slider(), from + QPoint(20 * step, 0));
        const auto during = size().planned_bytes;
        QVERIFY(during > bytes_before); // live, before the button is released
        QTest::mouseRelease(&bar().slider(), Qt::LeftButton, {}, from + QPoint(100, 0));
        QVERIFY(ranks().size() > 3);
        QCOMPARE(edited.count(), 1);
        QVERIFY(bar().target().text().endsWith(QStringLiteral("bpw")));
        QCOMPARE(session_->undoStack().count(), 1);
        session_->undoStack().undo();
        QVERIFY(plan().rows == before.rows);
    }

    void typed_budgets_are_kept()
    {
        measureAll();
        QTRY_VERIFY(bar().slider().isEnabled());
        // A locked row stays as it is.
        Plan locked = plan();
        locked.rows[3].locked = true;
        session_->editPlan(QStringLiteral("lock"), locked);
        bar().target().setText(QStringLiteral("120 kB"));
        QTest::keyClick(&bar().target(), Qt::Key_Return);
        QVERIFY2(size().planned_bytes <= 120'000 && size().planned_bytes > 115'000,
                 qPrintable(QString::number(size().planned_bytes)));
        QVERIFY(plan().rows[3] == locked.rows[3]);

        const Plan kept = plan();
        const QSignalSpy refused(&bar(), &BudgetBar::refused);
        for (const char* nonsense : {"much", "-1bpw", "1 kB", ""}) {
            bar().target().setText(QString::fromLatin1(nonsense));
            QTest::keyClick(&bar().target(), Qt::Key_Return);
        }
        QCOMPARE(refused.count(), 4);
        QVERIFY(plan().rows == kept.rows);
    }

    void keys_move_it()
    {
        measureAll();
        QTRY_VERIFY(bar().slider().isEnabled());
        bar().slider().setFocus();
        const auto before = size().planned_bytes;
        for (int i = 0; i < 5; ++i)
            QTest::keyClick(&bar().slider(), Qt::Key_Right);
        QVERIFY(size().planned_bytes > before);
        QSignalSpy edited(&bar(), &BudgetBar::edited);
        QVERIFY(edited.wait(5000)); // the keys rest: the proven ranks
        QCOMPARE(session_->undoStack().count(), 1);
    }
};

QTEST_MAIN(TestBudgetBar)
#include "test_budget_bar.moc"
