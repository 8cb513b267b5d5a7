// SPDX-License-Identifier: GPL-3.0-or-later
// What the window's actions, plots and workflow do; main_window.cpp builds the window.
#include "app/workbench/actions.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/help/help.h"
#include "app/workbench/help/hint_bar.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/settings.h"
#include "app/workbench/start_page.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/tour_window.h"
#include "app/workbench/view_tabs.h"
#include "app/workbench/widgets/data_table.h"
#include "app/workbench/workspaces.h"

#include <QApplication>
#include <QFileDialog>
#include <QLabel>
#include <QMenu>
#include <QMessageBox>
#include <QStackedWidget>
#include <QWhatsThis>

#include <algorithm>

namespace rankscope {

void MainWindow::connectFileActions()
{
    connect(actions_->open_file, &QAction::triggered, this, &MainWindow::chooseFile);
    connect(actions_->open_folder, &QAction::triggered, this, &MainWindow::chooseFolder);
    connect(actions_->open_sample, &QAction::triggered, this, &MainWindow::openSample);
    connect(actions_->close_checkpoint, &QAction::triggered, this, [this] {
        if (workflow_->running()) {
            say(QStringLiteral("A run is under way: cancel it before closing the checkpoint"));
            return;
        }
        session_.close();
        setWorkspaceVisible(false);
    });
    connect(actions_->recent, &QAction::triggered, this, [this] {
        if (startPageVisible())
            start_->focusRecent();
        else
            actions_->recent_menu->popup(mapToGlobal(rect().center()));
    });
    connect(actions_->export_run, &QAction::triggered, this, &MainWindow::showExportDialog);
    connect(actions_->export_plot, &QAction::triggered, this, &MainWindow::exportPlot);
    connect(actions_->quit, &QAction::triggered, this, &QWidget::close);
    connect(actions_->recent_menu, &QMenu::aboutToShow, this, &MainWindow::fillRecentMenu);
    connect(start_, &StartPage::openFileRequested, this, &MainWindow::chooseFile);
    connect(start_, &StartPage::openFolderRequested, this, &MainWindow::chooseFolder);
    connect(start_, &StartPage::sampleRequested, this, &MainWindow::openSample);
    connect(start_, &StartPage::recentChosen, this, &MainWindow::openPath);
}

void MainWindow::connectViewActions()
{
    connect(actions_->filter, &QAction::triggered, checkpoint_, &CheckpointDock::focusFilter);
    for (QAction* action : actions_->show_views)
        connect(action, &QAction::triggered, this, [this, id = action->data().toString()] {
            views_->showView(id);
            views_->currentPlot()->setFocus(Qt::ShortcutFocusReason);
        });
    connect(actions_->show_results, &QAction::triggered, this, [this] {
        results_->show();
        results_->raise();
        results_->table().setFocus(Qt::ShortcutFocusReason);
    });
    connect(actions_->copy_command, &QAction::triggered, this, [this] {
        const QString command = views_->currentPlot()->command();
        if (command.isEmpty())
            return say(QStringLiteral("Nothing is drawn that a command could draw again"));
        views_->currentPlot()->copyCommand();
        say(QStringLiteral("Copied: %1").arg(command));
    });
    connect(actions_->back, &QAction::triggered, &session_, &Session::goBack);
    connect(actions_->forward, &QAction::triggered, &session_, &Session::goForward);
    connect(actions_->reset_layout, &QAction::triggered, workspaces_, &Workspaces::reset);
    connectWorkspaces();
    connect(actions_->palette, &QAction::triggered, this, &MainWindow::showPalette);
    connect(actions_->next_dock, &QAction::triggered, this, [this] { cycleFocus(1); });
    connect(actions_->previous_dock, &QAction::triggered, this, [this] { cycleFocus(-1); });
    connect(actions_->theme_group, &QActionGroup::triggered, this, &MainWindow::chooseTheme);
    const Theme::Choice choice = Theme::instance().choice();
    (choice == Theme::Choice::Light  ? actions_->theme_light
     : choice == Theme::Choice::Dark ? actions_->theme_dark
                                     : actions_->theme_system)
        ->setChecked(true);
    connect(actions_->zoom_in, &QAction::triggered, this, [this] { setTextZoom(text_zoom_ + 1); });
    connect(actions_->zoom_out, &QAction::triggered, this, [this] { setTextZoom(text_zoom_ - 1); });
    connect(actions_->zoom_reset, &QAction::triggered, this, [this] { setTextZoom(0); });
    connect(actions_->next_layer, &QAction::triggered, this, [this] { session_.selectNeighbour(1); });
    connect(actions_->previous_layer, &QAction::triggered, this, [this] { session_.selectNeighbour(-1); });
    for (QAction* tour : std::as_const(actions_->tours))
        connect(tour, &QAction::triggered, this, [this, tour] { showTour(tour->data().toString()); });
    connect(actions_->present_tour, &QAction::triggered, this, [this] {
        if (!tour_ || !tour_->isVisible())
            showTour(actions_->tours.value(0)->data().toString());
        tour_->setPresenting(true);
    });
    connect(actions_->help_here, &QAction::triggered, this, &MainWindow::showHelpOnFocus);
    connect(actions_->keys, &QAction::triggered, this, &MainWindow::showKeys);
    connect(actions_->about, &QAction::triggered, this, &MainWindow::showAbout);
}

void MainWindow::connectPlanActions()
{
    connect(actions_->calibrate_built_in, &QAction::triggered, this, [this] {
        workflow_->calibrate({});
        updateActions();
    });
    connect(actions_->calibrate_file, &QAction::triggered, this, [this] {
        chooseText(QStringLiteral("Text to calibrate on"), [this](const QString& file) {
            workflow_->calibrate(file);
            updateActions();
        });
    });
    connect(actions_->fill_down, &QAction::triggered, plan_, &PlanDock::fillDown);
    connect(actions_->measure, &QAction::triggered, pictures_, &Pictures::measure);
    connect(actions_->use_outliers, &QAction::triggered, this, &MainWindow::useOutliersAsK);
    connect(actions_->rank_up, &QAction::triggered, this, [this] { stepRank(1); });
    connect(actions_->rank_down, &QAction::triggered, this, [this] { stepRank(-1); });
    connect(actions_->rank_up_much, &QAction::triggered, this, [this] { stepRank(16); });
    connect(actions_->rank_down_much, &QAction::triggered, this, [this] { stepRank(-16); });
    connect(actions_->run, &QAction::triggered, this, [this] { workflow_->run(); });
    connect(actions_->run_selection, &QAction::triggered, this,
            [this] { workflow_->run(plan_->selectedLayers()); });
    connect(actions_->resume, &QAction::triggered, workflow_, &Workflow::resume);
    connect(actions_->cancel, &QAction::triggered, &runner_, &JobRunner::cancelAll);
    connect(actions_->evaluate, &QAction::triggered, workflow_, &Workflow::evaluate);
    connect(actions_->evaluation_text, &QAction::triggered, this, [this] {
        chooseText(QStringLiteral("Text to measure perplexity on"), [this](const QString& file) {
            workflow_->setEvaluationText(file);
            say(QStringLiteral("Perplexity will be measured on %1").arg(file));
            if (session_.run())
                workflow_->evaluate();
        });
    });
    connect(plan_, &PlanDock::presetChosen, this,
            [this](const QString& id) { workflow_->applyPreset(id, true); });
    connect(plan_, &PlanDock::measureRequested, pictures_, &Pictures::measure);
    connect(plan_, &PlanDock::runRequested, actions_->run, &QAction::trigger);
    connect(plan_, &PlanDock::openRequested, this, &MainWindow::chooseFolder);
    connect(plan_, &PlanDock::edited, this, &MainWindow::say);
    connect(plan_, &PlanDock::refused, this, &MainWindow::say);
    connect(results_, &ResultsDock::runRequested, actions_->run, &QAction::trigger);
    connect(results_, &ResultsDock::evaluateRequested, workflow_, &Workflow::evaluate);
    connect(results_, &ResultsDock::exportRequested, this, &MainWindow::showExportDialog);
}

void MainWindow::connectWorkflow()
{
    connect(workflow_, &Workflow::message, this, &MainWindow::say);
    connect(workflow_, &Workflow::failed, this, &MainWindow::showError);
    connect(pictures_, &Pictures::failed, this,
            [this](const Error& error) { showError(QStringLiteral("Not drawn"), error); });
    connect(workflow_, &Workflow::deviceReady, this, [this](const QString& name, const QString& notice) {
        device_label_->setText(name);
        if (!notice.isEmpty())
            banner_->show(MessageBanner::Kind::Warning,
                          QStringLiteral("%1 Computing on the CPU.").arg(notice));
    });
    connect(workflow_, &Workflow::openingChanged, start_, &StartPage::setBusy);
    connect(workflow_, &Workflow::opened, this, [this] {
        banner_->dismiss();
        if (!session_.isSample() || !session_.projectFile().isEmpty())
            settings::addRecentFile(session_.projectFile().isEmpty() ? pathText(session_.model()->path())
                                                                     : session_.projectFile());
        fillRecentMenu();
        // The whole model first, where something is known of what flows through it.
        const bool mapped = session_.calibration() || session_.isSample();
        views_->showView(mapped ? QStringLiteral("overview") : QStringLiteral("channels"));
        setWorkspaceVisible(true);
        checkpoint_->tree().setFocus(Qt::OtherFocusReason);
    });
    connect(workflow_, &Workflow::calibrationNeeded, this, &MainWindow::askForCalibration);
    connect(workflow_, &Workflow::weightsOnly, this, [this](const QString& why) {
        banner_->show(
            MessageBanner::Kind::Information,
            QStringLiteral("%1 Choose methods that need no calibration, such as RTN or residual SVD.")
                .arg(why));
    });
    connect(workflow_, &Workflow::pausedRunFound, this, [this](int done, int all) {
        banner_->show(MessageBanner::Kind::Information,
                      QStringLiteral("A run of this checkpoint was paused: %1 of %2 layers are done.")
                          .arg(done)
                          .arg(all),
                      {{QStringLiteral("Resume"), [this] { workflow_->resume(); }}});
    });
    connect(workflow_, &Workflow::runStarted, jobs_, &QWidget::raise);
    connect(workflow_, &Workflow::runFinished, this, [this] {
        if (session_.run() && !session_.run()->results().empty())
            results_->raise();
    });
    connect(jobs_, &JobsDock::summaryChanged, this, [this](const QString& summary) {
        job_label_->setText(summary);
        updateActions();
    });
    connect(jobs_, &JobsDock::cancelQuestion, this, [this](JobId job, const QString& title) {
        banner_->show(MessageBanner::Kind::Warning,
                      QStringLiteral("Cancel “%1”? Finished layers are kept.").arg(title),
                      {{QStringLiteral("Cancel job"), [this, job] { runner_.cancel(job); }},
                       {QStringLiteral("Keep going"), [] {}}});
    });
    connect(&runner_, &JobRunner::jobFinished, this, &MainWindow::updateActions);
    for (const auto change : {&Session::modelChanged, &Session::runChanged})
        connect(&session_, change, this, [this] {
            updateActions();
            updateTitle();
        });
    connect(&session_, &Session::selectionChanged, this, &MainWindow::updateActions);
}

void MainWindow::connectPlots()
{
    const auto message_without_layer = [this] {
        const QString tensor = session_.selection().tensor;
        const QString text =
            !session_.model() ? QString()
            : tensor.isEmpty()
                ? QStringLiteral("Select a layer in the checkpoint tree.")
                : QStringLiteral("%1 is not a linear layer: choose one of the projections.").arg(tensor);
        channels_->setProfile(nullptr, {});
        spectrum_->setSpectrum(nullptr, {}, 0, 0);
        channels_->showMessage(text);
        spectrum_->showMessage(text);
    };
    connect(&session_, &Session::selectionChanged, this,
            [this, message_without_layer](const Selection& selection) {
                if (selection.layer.isEmpty())
                    message_without_layer();
                channels_->setSelectedChannel(selection.channel);
                matrices_->setSelectedChannel(selection.channel);
                activations_->setSelectedChannel(selection.channel);
            });
    connect(pictures_, &Pictures::overviewReady, this, [this](const std::shared_ptr<const ChannelMap>& map) {
        overview_->setMap(map);
        overview_->showMessage(
            map || !session_.model()
                ? QString()
                : QStringLiteral("The map needs a calibration: it shows what flows into each layer."));
    });
    connect(&session_, &Session::selectionChanged, this, [this](const Selection& selection) {
        const LinearLayer* linear =
            session_.model() ? session_.model()->find_linear(toStd(selection.layer)) : nullptr;
        overview_->setSelection(linear ? toQString(linear->input_group) : QString(), selection.channel);
    });
    connect(overview_, &OverviewPlot::cellSelected, this, [this](const QString& group, int channel) {
        const LinearLayer* now =
            session_.model() ? session_.model()->find_linear(toStd(session_.selection().layer)) : nullptr;
        if (!now || toQString(now->input_group) != group) // k and v read what q reads: the selection stays
            session_.selectLayer(group);
        session_.selectChannel(channel);
    });
    connect(pictures_, &Pictures::channelsBusy, this, [this] { channels_->setBusy(true); });
    connect(pictures_, &Pictures::channelsReady, this,
            [this](const QString& layer, const std::shared_ptr<const ChannelProfile>& profile) {
                channels_->setBusy(false);
                channels_->showMessage({});
                channels_->setProfile(profile, layer);
                channels_->setSelectedChannel(session_.selection().channel);
                inspector_->setProfile(layer, profile);
                inspector_->setOutliers(channels_->outliers());
            });
    connect(pictures_, &Pictures::spectrumBusy, this, [this] { spectrum_->setBusy(true); });
    connect(pictures_, &Pictures::spectrumReady, this,
            [this](const QString& layer, const std::shared_ptr<const LayerSpectrum>& spectrum) {
                const LinearLayer* linear =
                    session_.model() ? session_.model()->find_linear(toStd(layer)) : nullptr;
                spectrum_->setBusy(false);
                spectrum_->showMessage({});
                spectrum_->setSpectrum(spectrum, layer, linear ? linear->out : 0, linear ? linear->in : 0);
                spectrum_->setRank(session_.rank(layer).value_or(0));
            });
    connect(&session_, &Session::planChanged, this, [this] {
        if (const auto rank = session_.rank(session_.selection().layer); rank && *rank != spectrum_->rank())
            spectrum_->setRank(*rank);
    });
    connect(channels_, &ChannelPlot::channelSelected, &session_, &Session::selectChannel);
    connect(matrices_, &MatricesPlot::channelSelected, &session_, &Session::selectChannel);
    connect(activations_, &ActivationsPlot::channelSelected, &session_, &Session::selectChannel);
    connect(channels_, &ChannelPlot::outliersChanged, inspector_, &InspectorDock::setOutliers);
    connect(spectrum_, &SpectrumPlot::rankChanged, this, &MainWindow::previewRank);
    connect(spectrum_, &SpectrumPlot::rankCommitted, this, &MainWindow::commitRank);
    connect(views_, &ViewTabs::failed, this,
            [this](const Error& error) { showError(QStringLiteral("Not drawn"), error); });
    QVector<PlotView*> drawn = {&results_->plot()};
    for (const QString& id : viewIds())
        drawn.append(views_->plot(id));
    for (PlotView* view : std::as_const(drawn)) {
        connect(view, &PlotView::exported, this,
                [this](const QString& file) { say(QStringLiteral("Wrote %1").arg(file)); });
        connect(view, &PlotView::exportFailed, this,
                [this](const QString& sentence) { banner_->show(MessageBanner::Kind::Error, sentence); });
    }
}

void MainWindow::openPath(const QString& path)
{
    banner_->dismiss();
    // The index and the configuration stand for their folder.
    const bool stands_for_folder =
        path.endsWith(QLatin1String(".json")) && !path.endsWith(QLatin1String(".rankscope.json"));
    workflow_->openPath(stands_for_folder ? path.section(QLatin1Char('/'), 0, -2) : path);
}

void MainWindow::openSample()
{
    banner_->dismiss();
    workflow_->openSample();
}

void MainWindow::chooseFile()
{
    auto* dialog = new QFileDialog(
        this, QStringLiteral("Open checkpoint"), QString(),
        QStringLiteral("Checkpoints and projects (*.safetensors *.gguf *.index.json config.json "
                       "*.rankscope.json);;All files (*)"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::ExistingFile);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& file) { openPath(file); });
    dialog->open();
}

void MainWindow::chooseFolder()
{
    auto* dialog = new QFileDialog(this, QStringLiteral("Open checkpoint folder"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::Directory);
    connect(dialog, &QFileDialog::fileSelected, this, &MainWindow::openPath);
    dialog->open();
}

void MainWindow::chooseText(const QString& title, const std::function<void(const QString&)>& chosen)
{
    auto* dialog =
        new QFileDialog(this, title, QString(), QStringLiteral("Text (*.txt *.md *.raw);;All files (*)"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::ExistingFile);
    connect(dialog, &QFileDialog::fileSelected, this, chosen);
    dialog->open();
}

void MainWindow::fillRecentMenu()
{
    actions_->recent_menu->clear();
    for (const QString& file : settings::recentFiles()) {
        QString text = file;
        connect(actions_->recent_menu->addAction(text.replace(QLatin1Char('&'), QLatin1String("&&"))),
                &QAction::triggered, this, [this, file] { openPath(file); });
    }
    if (actions_->recent_menu->isEmpty())
        actions_->recent_menu->addAction(QStringLiteral("Nothing opened yet"))->setEnabled(false);
}

void MainWindow::askForCalibration(const QString& why)
{
    // However it came, by --run or from the menu: then the question is answered.
    connect(
        &session_, &Session::calibrationChanged, banner_,
        [this, why] {
            if (session_.calibration() && banner_->text() == why)
                banner_->dismiss();
        },
        Qt::SingleShotConnection);
    banner_->show(MessageBanner::Kind::Information, why,
                  {{QStringLiteral("Use built-in text"), [this] { actions_->calibrate_built_in->trigger(); }},
                   {QStringLiteral("Choose file…"), [this] { actions_->calibrate_file->trigger(); }}});
}

void MainWindow::showExportDialog()
{
    if (!session_.run())
        return;
    if (!export_) {
        export_ = new ExportDialog(session_, *workflow_, this);
        export_->setAttribute(Qt::WA_DeleteOnClose);
        Help::instance().describe(*this); // the dialog is a part of it now
    }
    export_->show();
    export_->raise();
    export_->activateWindow();
}

void MainWindow::showTour(const QString& id)
{
    if (!session_.model())
        openSample();
    if (!tour_) {
        tour_ = new TourWindow(session_, runner_, device_, this);
        connect(tour_, &TourWindow::said, this, &MainWindow::say);
        connect(tour_, &TourWindow::failed, this,
                [this](const Error& error) { showError(QStringLiteral("The tour"), error); });
        connect(tour_, &TourWindow::calibrationWanted, actions_->calibrate_built_in, &QAction::trigger);
    }
    tour_->show();
    tour_->raise();
    tour_->activateWindow();
    tour_->start(id);
}

void MainWindow::exportPlot() { views_->currentPlot()->exportDialog(); }

void MainWindow::stepRank(int step)
{
    if (session_.selection().layer.isEmpty())
        return;
    if (!session_.rank(session_.selection().layer)) {
        previewRank(0); // says why there is no rank
        return;
    }
    spectrum_->stepRank(step);
}

void MainWindow::previewRank(int rank)
{
    const QString layer = session_.selection().layer;
    const Status status = session_.setRank(layer, rank);
    say(status ? QStringLiteral("rank = %1 on %2").arg(rank).arg(layer)
               : toQString(status.error().sentence()));
}

void MainWindow::commitRank(int rank)
{
    previewRank(rank);
    session_.endRankDrag();
}

void MainWindow::useOutliersAsK()
{
    const int row = plan_->model().rowOf(session_.selection().layer);
    const auto count = channels_->outliers().size();
    if (row < 0 || count == 0) {
        say(QStringLiteral("No outliers are drawn for the selected layer"));
        return;
    }
    plan_->model().setOnRows({row}, PlanModel::Outliers, static_cast<qlonglong>(count));
}

void MainWindow::setTextZoom(int step)
{
    // 80 % to 200 % in steps of a tenth.
    text_zoom_ = std::clamp(step, -2, 10);
    QFont font = QApplication::font();
    font.setPointSizeF(usual_point_size_ * (1.0 + 0.1 * text_zoom_));
    QApplication::setFont(font);
    say(QStringLiteral("Text at %1 %").arg(100 + 10 * text_zoom_));
}

void MainWindow::cycleFocus(int step)
{
    if (startPageVisible())
        return;
    const QList<QWidget*> stops = {&checkpoint_->tree(), inspector_->widget(), views_->currentWidget(),
                                   &plan_->table(),      &results_->table(),   &jobs_->tree()};
    const QWidget* focus = QApplication::focusWidget();
    qsizetype current = -1;
    for (qsizetype i = 0; i < stops.size(); ++i) {
        if (focus && (stops[i] == focus || stops[i]->isAncestorOf(focus)))
            current = i;
    }
    const qsizetype count = stops.size();
    QWidget* next = stops[((current + step) % count + count) % count];
    for (QWidget* widget = next; widget; widget = widget->parentWidget()) {
        if (auto* dock = qobject_cast<QDockWidget*>(widget)) {
            dock->show();
            dock->raise();
        }
    }
    next->setFocus(Qt::ShortcutFocusReason);
}

void MainWindow::chooseTheme(QAction* action)
{
    const Theme::Choice choice = action == actions_->theme_light  ? Theme::Choice::Light
                                 : action == actions_->theme_dark ? Theme::Choice::Dark
                                                                  : Theme::Choice::System;
    settings::setThemeChoice(choice);
    Theme::instance().apply(*qApp, choice);
}

void MainWindow::showHelpOnFocus()
{
    QWidget* control = QApplication::focusWidget();
    const QString text = Help::instance().about(control);
    if (text.isEmpty())
        return showKeys();
    QWhatsThis::showText(control->mapToGlobal(control->rect().center()), text, control);
}

/// Only in a person's window: one that is drawn for a picture, or tested, starts as it always does.
void MainWindow::offerHints()
{
    if (!options_.remember_layout)
        return;
    connect(workflow_, &Workflow::opened, this, [this] {
        hints_->offer(QStringLiteral("first_model"),
                      QStringLiteral("Select a layer on the left and every view follows. F1 explains what has the "
                                     "focus; a tour shows on this model why W ≈ Q + L·R works."),
                      QStringLiteral("Show the tour"), [this] { showTour(QStringLiteral("odlri")); });
    });
    connect(workflow_, &Workflow::runFinished, this, [this] {
        if (session_.run())
            hints_->offer(QStringLiteral("first_run"),
                          QStringLiteral("The run is kept with its seed and settings. Change the plan and run again: "
                                         "Results compares, Export writes the model for other programs."),
                          {}, nullptr);
    });
}

void MainWindow::showKeys()
{
    QString rows;
    for (const QAction* action : actions_->findChildren<QAction*>(QString(), Qt::FindDirectChildrenOnly)) {
        if (action->shortcut().isEmpty())
            continue;
        QString text = action->text();
        rows += QStringLiteral("<tr><td><b>%1</b>&nbsp;&nbsp;</td><td>%2</td></tr>")
                    .arg(action->shortcut().toString(QKeySequence::NativeText).toHtmlEscaped(),
                         text.remove(QLatin1Char('&')).toHtmlEscaped());
    }
    auto* box = new QMessageBox(
        QMessageBox::NoIcon, QStringLiteral("Keys"),
        QStringLiteral("<table>%1</table><p>In a plot: arrows move the cursor, + and − zoom, Home "
                       "shows all, Enter selects, Esc leaves.</p>")
            .arg(rows),
        QMessageBox::Close, this);
    box->setAttribute(Qt::WA_DeleteOnClose);
    box->open();
}

void MainWindow::showAbout()
{
    auto* box = new QMessageBox(
        QMessageBox::NoIcon, QStringLiteral("About Rankscope"),
        QStringLiteral(
            "<b>Rankscope %1</b><p>Compresses the weights of language models as W ≈ Q + L·R and shows why it "
            "works.</p><p>GPL-3.0-or-later. Built with Qt %2, QCustomPlot, Eigen and OpenBLAS.</p>"
            "<p>Working folder: %3</p>")
            .arg(QStringLiteral(RANKSCOPE_VERSION), QString::fromLatin1(qVersion()),
                 workflow_->workRoot().toHtmlEscaped()),
        QMessageBox::Close, this);
    box->setAttribute(Qt::WA_DeleteOnClose);
    box->setTextInteractionFlags(Qt::TextSelectableByMouse);
    box->open();
}

} // namespace rankscope
