// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/main_window.h"

#include "app/workbench/actions.h"
#include "app/workbench/comparer.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/folders.h"
#include "app/workbench/help/help.h"
#include "app/workbench/help/hint_bar.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/project_keeper.h"
#include "app/workbench/settings.h"
#include "app/workbench/start_page.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/tour_window.h"
#include "app/workbench/view_tabs.h"
#include "app/workbench/widgets/data_table.h"
#include "app/workbench/widgets/eliding_label.h"
#include "app/workbench/workspaces.h"

#include <QApplication>
#include <QCloseEvent>
#include <QDragEnterEvent>
#include <QLabel>
#include <QMenu>
#include <QMenuBar>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <QScreen>
#include <QStackedWidget>
#include <QStatusBar>
#include <QTabBar>
#include <QTimer>
#include <QToolBar>
#include <QToolButton>
#include <QVBoxLayout>

namespace rankscope {

MainWindow::MainWindow(const WindowOptions& options, QWidget* parent)
    : QMainWindow(parent), device_(std::make_shared<Device>(options.backend)), options_(options)
{
    setObjectName(QStringLiteral("main_window"));
    setWindowIcon(QIcon(QStringLiteral(":/icons/rankscope.svg")));
    setAcceptDrops(true);
    setMinimumSize(960, 600);
    setDockOptions(AnimatedDocks | AllowTabbedDocks | AllowNestedDocks);
    usual_point_size_ = QApplication::font().pointSizeF();
    pictures_ = new Pictures(session_, runner_, device_, this);
    workflow_ = new Workflow(session_, runner_, device_,
                             options.work_root.isEmpty() ? defaultWorkRoot() : options.work_root, this);
    comparer_ = new Comparer(session_, runner_, this);
    workflow_->setRestorePlan(options.restore_plan);
    keeper_ = new ProjectKeeper(session_, runner_, device_, this);
    keeper_->setAutosave(options.restore_plan);
    actions_ = new Actions(session_.undoStack(), this);
    buildCentre();
    buildDocks();
    actions_->fill(*menuBar(),
                   {checkpoint_->toggleViewAction(), inspector_->toggleViewAction(),
                    plan_->toggleViewAction(), results_->toggleViewAction(), jobs_->toggleViewAction()});
    buildToolBar();
    buildStatusBar();
    connectFileActions();
    connectProject();
    connectViewActions();
    connectPlanActions();
    connectWorkflow();
    connectPlots();
    connectCompare();
    Help::instance().describe(*this);
    new GlossaryToolTips(this);
    offerHints();
    fillRecentMenu();

    const QSize available = QGuiApplication::primaryScreen()->availableSize();
    resize(QSize(1280, 800).boundedTo(available));
    setWorkspaceVisible(false);
    if (options_.remember_layout) {
        restoreGeometry(settings::geometry());
        workspaces_->restore(settings::layout());
    }
    updateActions();
    updateTitle();
}

MainWindow::~MainWindow()
{
    // Jobs read what the docks and the session hold, docks what the session holds: they end in this order,
    // before the members do.
    runner_.disconnect();
    runner_.shutDown();
    delete export_;
    delete tour_;
    for (QDockWidget* dock : findChildren<QDockWidget*>(QString(), Qt::FindDirectChildrenOnly))
        delete dock;
    delete takeCentralWidget();
    delete comparer_;
    delete keeper_;
    delete workflow_;
    delete pictures_;
    delete actions_;
}

void MainWindow::buildCentre()
{
    banner_ = new MessageBanner;
    start_ = new StartPage(runner_);
    views_ = new ViewTabs(session_, runner_, device_);
    overview_ = static_cast<OverviewPlot*>(views_->plot(QStringLiteral("overview")));
    channels_ = static_cast<ChannelPlot*>(views_->plot(QStringLiteral("channels")));
    spectrum_ = static_cast<SpectrumPlot*>(views_->plot(QStringLiteral("spectrum")));
    matrices_ = static_cast<MatricesPlot*>(views_->plot(QStringLiteral("matrices")));
    activations_ = static_cast<ActivationsPlot*>(views_->plot(QStringLiteral("activations")));
    pages_ = new QStackedWidget;
    pages_->setMinimumHeight(200); // in the Plan workspace the table comes first
    pages_->addWidget(start_);
    pages_->addWidget(views_);
    auto* centre = new QWidget;
    auto* layout = new QVBoxLayout(centre);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    layout->addWidget(banner_);
    hints_ = new HintBar;
    layout->addWidget(hints_);
    layout->addWidget(pages_, 1);
    setCentralWidget(centre);
}

void MainWindow::buildDocks()
{
    checkpoint_ = new CheckpointDock(session_, this);
    inspector_ = new InspectorDock(session_, this);
    plan_ = new PlanDock(session_, this);
    results_ = new ResultsDock(session_, this);
    jobs_ = new JobsDock(runner_, this);
    setCorner(Qt::BottomLeftCorner, Qt::LeftDockWidgetArea);
    setTabPosition(Qt::BottomDockWidgetArea, QTabWidget::North);
    workspaces_ = new Workspaces(*this, {checkpoint_, inspector_, plan_, results_, jobs_}, this);
}

void MainWindow::buildToolBar()
{
    tools_ = addToolBar(QStringLiteral("Main tools"));
    tools_->setObjectName(QStringLiteral("main_tools"));
    tools_->setMovable(false);
    tools_->setIconSize(QSize(18, 18));
    tools_->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    auto* open = new QToolButton;
    open->setText(QStringLiteral("Open"));
    open->setIcon(Theme::instance().icon(QStringLiteral("open")));
    open->setAccessibleName(QStringLiteral("Open"));
    open->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    open->setPopupMode(QToolButton::InstantPopup);
    auto* menu = new QMenu(open);
    menu->addActions({actions_->open_file, actions_->open_folder, actions_->open_sample});
    menu->addMenu(actions_->recent_menu);
    open->setMenu(menu);
    tools_->addWidget(open);
    tools_->addSeparator();
    const auto add = [this](QAction* action, const QString& text) {
        tools_->addAction(action);
        if (auto* button = qobject_cast<QToolButton*>(tools_->widgetForAction(action))) {
            button->setAccessibleName(text);
            button->setText(text);
        }
    };
    actions_->calibrate_built_in->setIconText(QStringLiteral("Calibrate"));
    actions_->run->setIconText(QStringLiteral("Run"));
    actions_->export_run->setIconText(QStringLiteral("Export"));
    actions_->cancel->setIconText(QStringLiteral("Cancel"));
    add(actions_->calibrate_built_in, QStringLiteral("Calibrate"));
    add(actions_->run, QStringLiteral("Run"));
    add(actions_->cancel, QStringLiteral("Cancel"));
    add(actions_->export_run, QStringLiteral("Export"));
    tools_->addSeparator();
    auto* heading = new QLabel(QStringLiteral("Workspace"));
    heading->setProperty("muted", true);
    heading->setContentsMargins(4, 0, 4, 0);
    tools_->addWidget(heading);
    for (QAction* workspace : actions_->workspace_group->actions())
        add(workspace, workspace->iconText());
    auto* space = new QWidget;
    space->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
    tools_->addWidget(space);
    add(actions_->palette, QStringLiteral("Find  Ctrl+K"));
    auto* theme = new QToolButton;
    theme->setObjectName(QStringLiteral("theme_button"));
    theme->setText(QStringLiteral("Theme"));
    theme->setAccessibleName(QStringLiteral("Theme"));
    theme->setIcon(Theme::instance().icon(QStringLiteral("theme")));
    theme->setPopupMode(QToolButton::InstantPopup);
    theme->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    auto* choices = new QMenu(theme);
    choices->addActions(actions_->theme_group->actions());
    theme->setMenu(choices);
    tools_->addWidget(theme);
}

void MainWindow::buildStatusBar()
{
    message_label_ = new ElidingLabel(QStringLiteral("Last message"));
    message_label_->setContentsMargins(6, 0, 6, 0);
    job_label_ = new QLabel;
    job_label_->setAccessibleName(QStringLiteral("Running job"));
    device_label_ = new QLabel(QStringLiteral("Device: not opened yet"));
    device_label_->setAccessibleName(QStringLiteral("Compute device"));
    device_label_->setContentsMargins(6, 0, 6, 0);
    statusBar()->addWidget(message_label_, 1);
    statusBar()->addPermanentWidget(job_label_);
    statusBar()->addPermanentWidget(device_label_);
    statusBar()->setSizeGripEnabled(false);
}

void MainWindow::setWorkspaceVisible(bool visible)
{
    pages_->setCurrentIndex(visible ? 1 : 0);
    workspaces_->setShown(visible);
    for (QAction* workspace : actions_->workspace_group->actions())
        workspace->setEnabled(visible);
    if (visible)
        return;
    start_->refreshRecent();
    if (auto* sample = start_->findChild<QPushButton*>(QStringLiteral("start_sample")))
        sample->setFocus(Qt::OtherFocusReason);
}

bool MainWindow::startPageVisible() const { return pages_->currentIndex() == 0; }

ExportDialog* MainWindow::exportDialog() const { return export_; }

TourWindow* MainWindow::tourWindow() const { return tour_; }

bool MainWindow::showView(const QString& name)
{
    if (views_->showView(name))
        return true;
    if (name == QLatin1String("plan"))
        plan_->raise();
    else if (name == QLatin1String("results"))
        results_->raise();
    else if (name == QLatin1String("jobs"))
        jobs_->raise();
    else
        return false;
    return true;
}

void MainWindow::updateActions()
{
    Actions::State state;
    state.model = session_.model() != nullptr;
    state.text_flows = state.model && session_.model()->architecture().runs().has_value();
    state.calibrating = workflow_->calibrating();
    state.running = workflow_->running();
    state.run = session_.run() && !session_.run()->results().empty();
    state.paused_run = session_.run() && !session_.run()->complete();
    state.working = !runner_.idle();
    state.back = session_.canGoBack();
    state.forward = session_.canGoForward();
    actions_->update(state);
    plan_->setMeasuring(pictures_->measuring());
}

void MainWindow::updateTitle()
{
    setWindowTitle(session_.model() ? QStringLiteral("%1[*] – Rankscope").arg(session_.title())
                                    : QStringLiteral("Rankscope"));
    setWindowModified(keeper_->modified());
}

void MainWindow::say(const QString& text) { message_label_->setFullText(text); }

void MainWindow::showError(const QString& what, const Error& error)
{
    banner_->show(MessageBanner::Kind::Error,
                  QStringLiteral("%1: %2").arg(what, toQString(error.sentence())));
    say(what);
}

void MainWindow::paintEvent(QPaintEvent* event)
{
    QMainWindow::paintEvent(event);
    if (painted_)
        return;
    painted_ = true;
    // The device is opened once the window can be seen, and not on this thread.
    QTimer::singleShot(0, this, [this] {
        Q_EMIT firstPainted();
        workflow_->prepareDevice();
    });
}

void MainWindow::closeEvent(QCloseEvent* event)
{
    const bool working = workflow_->running() && !closing_;
    if (working) {
        event->ignore();
        askBeforeClosing();
        return;
    }
    if (options_.remember_layout) {
        settings::setGeometry(saveGeometry());
        settings::setLayout(workspaces_->state());
    }
    keeper_->flush();
    if (export_)
        export_->close();
    runner_.cancelAll();
    event->accept();
}

/// The bars that Qt makes for panels in one place come without a name for screen readers.
void MainWindow::childEvent(QChildEvent* event)
{
    QMainWindow::childEvent(event);
    if (!event->added())
        return;
    // Until its constructor is through, it is no bar yet.
    QTimer::singleShot(0, this, [child = QPointer<QObject>(event->child())] {
        auto* bar = qobject_cast<QTabBar*>(child.data());
        if (bar && bar->accessibleName().isEmpty())
            bar->setAccessibleName(QStringLiteral("Panels in this place"));
    });
}

void MainWindow::askBeforeClosing()
{
    auto* question = new QMessageBox(QMessageBox::Question, QStringLiteral("A run is under way"),
                                     QStringLiteral("Layers that are finished are already saved."),
                                     QMessageBox::NoButton, this);
    question->setObjectName(QStringLiteral("close_question"));
    question->setAttribute(Qt::WA_DeleteOnClose);
    question->setInformativeText(
        QStringLiteral("Paused, the run goes on from here next time. Discarded, it is forgotten."));
    QPushButton* pause = question->addButton(QStringLiteral("Pause and close"), QMessageBox::AcceptRole);
    QPushButton* keep = question->addButton(QStringLiteral("Keep open"), QMessageBox::RejectRole);
    QPushButton* discard = question->addButton(QStringLiteral("Discard"), QMessageBox::DestructiveRole);
    question->setDefaultButton(pause);
    question->setEscapeButton(keep);
    connect(question, &QMessageBox::buttonClicked, this,
            [this, pause, discard](const QAbstractButton* chosen) {
                if (chosen == discard)
                    workflow_->discardRunWhenStopped();
                if (chosen == pause || chosen == discard)
                    closeWhenIdle();
            });
    question->open();
}

void MainWindow::closeWhenIdle()
{
    closing_ = true;
    say(QStringLiteral("Stopping…"));
    setEnabled(false);
    connect(&runner_, &JobRunner::becameIdle, this, [this] { close(); });
    runner_.cancelAll();
    if (runner_.idle())
        close();
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event)
{
    const auto urls = event->mimeData()->urls();
    if (urls.size() != 1 || !urls.first().isLocalFile())
        return;
    event->acceptProposedAction();
    start_->setDropHint(true);
}

void MainWindow::dragLeaveEvent(QDragLeaveEvent* event)
{
    start_->setDropHint(false);
    QMainWindow::dragLeaveEvent(event);
}

void MainWindow::dropEvent(QDropEvent* event)
{
    start_->setDropHint(false);
    const auto urls = event->mimeData()->urls();
    if (urls.size() != 1 || !urls.first().isLocalFile())
        return;
    event->acceptProposedAction();
    openPath(urls.first().toLocalFile());
}

} // namespace rankscope
