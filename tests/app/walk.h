// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// What the walks through the whole window share: a window on folders of the test's own, a hand that clicks and types,
// and a watchdog that fails the test when the window was ever blocked.
#include "app/workbench/actions.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/plots/qcp.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/view_tabs.h"
#include "app/workbench/widgets/data_table.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"

#include <QAbstractButton>
#include <QDialog>
#include <QDragEnterEvent>
#include <QLineEdit>
#include <QMimeData>
#include <QPushButton>
#include <QTabBar>
#include <QTabWidget>

#include <algorithm>
#include <functional>
#include <memory>

/// A step of a walk: what fails in it ends the test.
#define WALK(step)                                                                                           \
    do {                                                                                                     \
        step;                                                                                                \
        if (QTest::currentTestFailed())                                                                      \
            return;                                                                                          \
    } while (false)

namespace rankscope::test {

inline constexpr int k_long = 60000; // a loaded machine; nothing waits this long when all is well

inline void click(QWidget* widget, const QPoint& at, Qt::KeyboardModifiers modifiers = Qt::NoModifier)
{
    QTest::mouseMove(widget, at);
    QTest::mouseClick(widget, Qt::LeftButton, modifiers, at);
}

inline void click(QWidget* widget) { click(widget, widget->rect().center()); }

/// A cell of a table or tree, scrolled into view.
inline void clickCell(QAbstractItemView& view, const QModelIndex& index,
                      Qt::KeyboardModifiers modifiers = Qt::NoModifier)
{
    view.scrollTo(index);
    click(view.viewport(), view.visualRect(index).center(), modifiers);
}

/// The box of a checkable cell lies at its left edge.
inline void clickBox(QAbstractItemView& view, const QModelIndex& index)
{
    view.scrollTo(index);
    const QRect cell = view.visualRect(index);
    click(view.viewport(), QPoint(cell.left() + 12, cell.center().y()));
}

inline QModelIndex treeIndex(DataTree& tree, const QString& tensor)
{
    const auto found = tree.model()->match(tree.model()->index(0, 0), LayerTableModel::TensorRole, tensor, 1,
                                           Qt::MatchExactly | Qt::MatchRecursive);
    return found.isEmpty() ? QModelIndex() : found.first();
}

/// A drag with the left button, in as many moves as it has steps.
inline void dragAcross(QWidget* widget, const QPoint& from, const QPoint& to, int steps,
                       const std::function<void()>& after_move = [] {})
{
    QTest::mouseMove(widget, from);
    QTest::mousePress(widget, Qt::LeftButton, {}, from);
    for (int i = 1; i <= steps; ++i) {
        const QPoint place = from + (to - from) * i / steps;
        // QTest::mouseMove carries no buttons, a drag needs them.
        QMouseEvent move(QEvent::MouseMove, place, widget->mapToGlobal(place), Qt::NoButton, Qt::LeftButton, {});
        QApplication::sendEvent(widget, &move);
        QCoreApplication::processEvents();
        after_move();
    }
    QTest::mouseRelease(widget, Qt::LeftButton, {}, to);
}

class Walk {
protected:
    void beginWalks()
    {
        qputenv("QT_LOGGING_RULES", "qt.qpa.*=false"); // harmless, and only on the offscreen platform
        Theme::instance().apply(*qApp, Theme::Choice::Light);
        watchdog_ = std::make_unique<StallWatchdog>();
    }
    void endWalks()
    {
        qInfo("longest time the window did not answer: %.0f ms, in: %s", watchdog_->worstMilliseconds(),
              qPrintable(watchdog_->worstStep()));
        const double worst = watchdog_->worstMilliseconds();
        const QString step = watchdog_->worstStep();
        watchdog_.reset();
        QVERIFY2(worst < StallWatchdog::limitMilliseconds(), qPrintable(step));
    }
    void enter(const QString& step) { watchdog_->enter(step); }

    void openWindow(const QString& backend = QStringLiteral("cpu"))
    {
        enter(QStringLiteral("opening the window"));
        WindowOptions options;
        options.backend = backend;
        options.work_root = settings_.path(QStringLiteral("work"));
        options.remember_layout = false;
        options.restore_plan = false;
        window_ = std::make_unique<MainWindow>(options);
        window_->resize(1280, 800);
        window_->show();
        window_->activateWindow();
        QVERIFY(QTest::qWaitForWindowActive(window_.get()));
    }
    void endWindow()
    {
        enter(QStringLiteral("ending the window"));
        if (window_) {
            window_->runner().cancelAll();
            QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
        }
        window_.reset();
    }
    void openSampleWithTheMouse()
    {
        enter(QStringLiteral("opening the sample"));
        auto* button = window_->findChild<QAbstractButton*>(QStringLiteral("start_sample"));
        QVERIFY(button && button->isVisible());
        click(button);
        QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
        QTRY_VERIFY(!window_->startPageVisible());
    }
    void waitUntilCalibrated()
    {
        enter(QStringLiteral("calibrating"));
        QTRY_VERIFY_WITH_TIMEOUT(window_->session().calibration() != nullptr, k_long);
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    }
    void drop(const QString& path)
    {
        enter(QStringLiteral("dropping a folder"));
        QMimeData data;
        data.setUrls({QUrl::fromLocalFile(path)});
        QDragEnterEvent entering(QPoint(300, 300), Qt::CopyAction, &data, Qt::LeftButton, {});
        QApplication::sendEvent(window_.get(), &entering);
        QVERIFY(entering.isAccepted());
        QDropEvent dropping(QPointF(300, 300), Qt::CopyAction, &data, Qt::LeftButton, {});
        QApplication::sendEvent(window_.get(), &dropping);
        QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().opening(), k_long);
    }
    /// Only these rows of the plan are included, by clicks.
    void onlyRows(const QVector<int>& rows)
    {
        enter(QStringLiteral("choosing the rows to run"));
        DataTable& table = window_->planDock().table();
        PlanModel& model = window_->planDock().model();
        // All off with one click into a selection of all rows, then these on again.
        clickCell(table, model.index(0, PlanModel::Layer));
        QTest::keyClick(&table, Qt::Key_A, Qt::ControlModifier);
        clickBox(table, model.index(0, PlanModel::Include));
        QVERIFY(model.footer().contains(QStringLiteral("No layer is included")));
        for (const int row : rows) {
            clickCell(table, model.index(row, PlanModel::Layer));
            QCOMPARE(table.selectedRows(), QVector<int>{row});
            clickBox(table, model.index(row, PlanModel::Include));
        }
        QVERIFY2(model.footer().contains(QStringLiteral("%1 of %2 layers").arg(rows.size()).arg(model.rowCount())),
                 qPrintable(model.footer()));
    }
    /// The export dialog with this folder in it, ready for its button.
    void openExport(const QString& folder)
    {
        enter(QStringLiteral("exporting"));
        QTest::keyClick(window_.get(), Qt::Key_E, Qt::ControlModifier);
        QTRY_VERIFY(window_->exportDialog() && window_->exportDialog()->isVisible());
        ExportDialog& dialog = *window_->exportDialog();
        QVERIFY(QTest::qWaitForWindowActive(&dialog));
        QTRY_VERIFY_WITH_TIMEOUT(!dialog.folder().text().isEmpty(), k_long);
        click(&dialog.folder());
        QTest::keyClick(&dialog.folder(), Qt::Key_A, Qt::ControlModifier);
        QTest::keyClicks(&dialog.folder(), folder);
        QTest::qWait(400); // the outlook of the new folder
        QTRY_VERIFY_WITH_TIMEOUT(dialog.exportButton().isEnabled() && window_->runner().idle(), k_long);
    }
    QAbstractButton* bannerButton(const QString& text)
    {
        for (auto* button : window_->banner().findChildren<QAbstractButton*>()) {
            if (button->text() == text && button->isVisible())
                return button;
        }
        return nullptr;
    }
    /// Layers of the newest run that are done, as the job panel has it.
    qsizetype finishedLayers() const
    {
        const auto& jobs = window_->runner().jobs();
        for (auto id = jobs.rbegin(); id != jobs.rend(); ++id) {
            const JobInfo info = window_->runner().info(*id);
            if (!info.progress.items.isEmpty())
                return std::count_if(info.progress.items.cbegin(), info.progress.items.cend(),
                                     [](const JobItem& item) { return item.state == JobItem::State::Done; });
        }
        return 0;
    }
    static bool anyDialog()
    {
        const auto windows = QApplication::topLevelWidgets();
        return std::any_of(windows.cbegin(), windows.cend(), [](const QWidget* widget) {
            return widget->isVisible() && qobject_cast<const QDialog*>(widget);
        });
    }

    PrivateSettings settings_;
    std::unique_ptr<StallWatchdog> watchdog_;
    std::unique_ptr<MainWindow> window_;
};

} // namespace rankscope::test
