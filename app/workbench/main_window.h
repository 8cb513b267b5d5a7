// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/job_runner.h"
#include "app/workbench/pictures.h"
#include "app/workbench/session.h"
#include "app/workbench/workflow.h"

#include <QMainWindow>
#include <QPointer>

#include <functional>
#include <memory>
#include <vector>

class QLabel;
class QStackedWidget;
class QToolBar;
class QToolButton;

namespace rankscope {

class Actions;
class ActivationsPlot;
class ChannelPlot;
class OverviewPlot;
class CheckpointDock;
class Comparer;
class CommandPalette;
class ElidingLabel;
class ExportDialog;
class HintBar;
class InspectorDock;
class JobsDock;
class MatricesPlot;
class MessageBanner;
class PlanDock;
class PlotView;
class ProjectKeeper;
class ResultsDock;
class SpectrumPlot;
class StartPage;
class TourWindow;
class Workspaces;
struct PaletteEntry;
class ViewTabs;

struct WindowOptions {
    QString backend = QStringLiteral("auto"); ///< as --backend
    QString work_root;                        ///< as --workdir
    bool remember_layout = true;
    bool restore_plan = true; ///< plans come back as they were left
};

/// The workbench: start page, then views in the middle and docks around them.
class MainWindow : public QMainWindow {
    Q_OBJECT

public:
    explicit MainWindow(const WindowOptions& options, QWidget* parent = nullptr);
    ~MainWindow() override;

    Session& session() { return session_; }
    JobRunner& runner() { return runner_; }
    Device& device() { return *device_; }
    Workflow& workflow() { return *workflow_; }
    Actions& actions() { return *actions_; }
    MessageBanner& banner() { return *banner_; }
    CheckpointDock& checkpointDock() { return *checkpoint_; }
    InspectorDock& inspectorDock() { return *inspector_; }
    PlanDock& planDock() { return *plan_; }
    JobsDock& jobsDock() { return *jobs_; }
    ResultsDock& resultsDock() { return *results_; }
    ChannelPlot& channelPlot() { return *channels_; }
    SpectrumPlot& spectrumPlot() { return *spectrum_; }
    Comparer& comparer() { return *comparer_; }
    ViewTabs& viewTabs() { return *views_; }
    ProjectKeeper& projectKeeper() { return *keeper_; }
    Workspaces& workspaces() { return *workspaces_; }
    ExportDialog* exportDialog() const;

    void openPath(const QString& path);
    void openSample();
    /// A view by its id (viewIds()) to the front, or a panel: "results", "plan", "jobs".
    bool showView(const QString& name);
    bool startPageVisible() const;
    /// A guided tour in a window of its own, on the open model or else the sample.
    void showTour(const QString& id);
    TourWindow* tourWindow() const;
    HintBar& hints() { return *hints_; }

Q_SIGNALS:
    void firstPainted();

protected:
    void paintEvent(QPaintEvent* event) override;
    void closeEvent(QCloseEvent* event) override;
    void childEvent(QChildEvent* event) override;
    void dragEnterEvent(QDragEnterEvent* event) override;
    void dragLeaveEvent(QDragLeaveEvent* event) override;
    void dropEvent(QDropEvent* event) override;

private:
    void buildCentre();
    void buildDocks();
    void buildToolBar();
    void buildStatusBar();
    void connectFileActions();
    void connectViewActions();
    void connectWorkspaces();
    void connectProject();
    void connectPlanActions();
    void connectWorkflow();
    void connectPlots();
    void connectCompare();

    void setWorkspaceVisible(bool visible);
    void updateActions();
    void updateTitle();
    void saveProject();
    void saveProjectAs();
    void chooseFile();
    void chooseFolder();
    void chooseText(const QString& title, const std::function<void(const QString&)>& chosen);
    void fillRecentMenu();
    void showError(const QString& what, const Error& error);
    void askForCalibration(const QString& why);
    void askBeforeClosing();
    void closeWhenIdle();
    void showExportDialog();
    void exportPlot();
    void stepRank(int step);
    void useOutliersAsK();
    void previewRank(int rank);
    void commitRank(int rank);
    void setTextZoom(int step);
    void cycleFocus(int step);
    void chooseTheme(QAction* action);
    void showPalette();
    std::vector<PaletteEntry> paletteEntries();
    void showKeys();
    void showHelpOnFocus();
    void offerHints();
    void showAbout();
    void say(const QString& text);

    Session session_;
    JobRunner runner_;
    std::shared_ptr<Device> device_;
    WindowOptions options_;
    Pictures* pictures_ = nullptr;
    Workflow* workflow_ = nullptr;
    Comparer* comparer_ = nullptr;
    Actions* actions_ = nullptr;
    Workspaces* workspaces_ = nullptr;
    ProjectKeeper* keeper_ = nullptr;
    CommandPalette* palette_ = nullptr; ///< made when it is first asked for

    MessageBanner* banner_ = nullptr;
    HintBar* hints_ = nullptr;
    QStackedWidget* pages_ = nullptr;
    StartPage* start_ = nullptr;
    ViewTabs* views_ = nullptr;
    OverviewPlot* overview_ = nullptr;
    ChannelPlot* channels_ = nullptr;
    SpectrumPlot* spectrum_ = nullptr;
    MatricesPlot* matrices_ = nullptr;
    ActivationsPlot* activations_ = nullptr;
    CheckpointDock* checkpoint_ = nullptr;
    InspectorDock* inspector_ = nullptr;
    PlanDock* plan_ = nullptr;
    JobsDock* jobs_ = nullptr;
    ResultsDock* results_ = nullptr;
    QToolBar* tools_ = nullptr;
    QPointer<ExportDialog> export_;
    QPointer<TourWindow> tour_;
    ElidingLabel* message_label_ = nullptr;
    QLabel* job_label_ = nullptr;
    QLabel* device_label_ = nullptr;
    double usual_point_size_ = 0.0;
    int text_zoom_ = 0;
    bool painted_ = false;
    bool closing_ = false;
};

} // namespace rankscope
