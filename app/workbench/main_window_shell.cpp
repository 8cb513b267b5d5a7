// SPDX-License-Identifier: GPL-3.0-or-later
// The window's frame: projects, workspaces, the command palette.
#include "app/workbench/actions.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/project_keeper.h"
#include "app/workbench/settings.h"
#include "app/workbench/text.h"
#include "app/workbench/widgets/command_palette.h"
#include "app/workbench/workspaces.h"

#include <QDockWidget>
#include <QFileDialog>

namespace rankscope {

void MainWindow::connectProject()
{
    connect(actions_->save_project, &QAction::triggered, this, &MainWindow::saveProject);
    connect(actions_->save_project_as, &QAction::triggered, this, &MainWindow::saveProjectAs);
    connect(keeper_, &ProjectKeeper::modifiedChanged, this, &MainWindow::updateTitle);
    connect(keeper_, &ProjectKeeper::failed, this, &MainWindow::showError);
    connect(keeper_, &ProjectKeeper::saved, this, [this](const QString& file) {
        settings::addRecentFile(file);
        fillRecentMenu();
        say(QStringLiteral("Saved %1").arg(file));
    });
    connect(workflow_, &Workflow::runStarted, keeper_, &ProjectKeeper::runStarted);
    connect(workflow_, &Workflow::runFinished, keeper_, &ProjectKeeper::runEnded);
    connect(workflow_, &Workflow::planRestored, this, [this](bool of_project) {
        banner_->show(
            MessageBanner::Kind::Information,
            of_project ? QStringLiteral("Edits that were not saved in the project are here again.")
                       : QStringLiteral("The plan is as you left it."),
            {{of_project ? QStringLiteral("Take the saved plan") : QStringLiteral("Begin with the preset"),
              [this] { session_.undoStack().setIndex(0); }}});
    });
}

void MainWindow::saveProject()
{
    if (session_.projectFile().isEmpty())
        saveProjectAs();
    else
        keeper_->save(session_.projectFile(), true);
}

void MainWindow::saveProjectAs()
{
    auto* dialog = new QFileDialog(this, QStringLiteral("Save project"), QString(),
                                   QStringLiteral("Projects (*.rankscope.json)"));
    dialog->setObjectName(QStringLiteral("save_project"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setAcceptMode(QFileDialog::AcceptSave);
    dialog->setFileMode(QFileDialog::AnyFile);
    dialog->setDefaultSuffix(QStringLiteral("rankscope.json"));
    connect(dialog, &QFileDialog::fileSelected, this,
            [this](const QString& file) { keeper_->save(file, true); }); // the dialog has asked
    dialog->open();
}

void MainWindow::connectWorkspaces()
{
    const QList<QAction*> choices = actions_->workspace_group->actions();
    for (int i = 0; i < choices.size(); ++i)
        connect(choices[i], &QAction::triggered, workspaces_,
                [this, i] { workspaces_->show(static_cast<Workspaces::Kind>(i)); });
    connect(workspaces_, &Workspaces::changed, this,
            [choices](Workspaces::Kind kind) { choices[static_cast<qsizetype>(kind)]->setChecked(true); });
}

std::vector<PaletteEntry> MainWindow::paletteEntries()
{
    std::vector<PaletteEntry> entries;
    const auto of_action = [&entries](QAction* action, const QString& before) {
        QString text = action->text().remove(QLatin1Char('&'));
        if (text.endsWith(QChar(0x2026)))
            text.chop(1);
        entries.push_back({before + text, action->shortcut().toString(QKeySequence::NativeText),
                           action->statusTip(), action->isEnabled(), [action] { action->trigger(); }});
    };
    for (QAction* action : actions_->findChildren<QAction*>(QString(), Qt::FindDirectChildrenOnly)) {
        const QActionGroup* group = action->actionGroup();
        if (action != actions_->palette)
            of_action(action, group == actions_->theme_group       ? QStringLiteral("Theme: ")
                              : group == actions_->workspace_group ? QStringLiteral("Workspace: ")
                                                                   : QString());
    }
    for (QDockWidget* dock : findChildren<QDockWidget*>(QString(), Qt::FindDirectChildrenOnly))
        entries.push_back({QStringLiteral("Panel: %1").arg(dock->windowTitle()),
                           {},
                           QStringLiteral("Show this panel and go to it"),
                           !startPageVisible(),
                           [dock] {
                               dock->show();
                               dock->raise();
                               dock->setFocus(Qt::OtherFocusReason);
                           }});
    if (!session_.model())
        return entries;
    for (const TensorInfo& tensor : session_.model()->checkpoint().tensors()) {
        QStringList sides;
        for (const auto side : tensor.shape)
            sides.append(QString::number(side));
        const QString name = toQString(tensor.name);
        entries.push_back({name, sides.join(QStringLiteral(" × ")), QStringLiteral("Select this tensor"),
                           true, [this, name] { session_.selectTensor(name); }});
    }
    return entries;
}

void MainWindow::showPalette()
{
    if (!palette_)
        palette_ = new CommandPalette(this);
    palette_->open(paletteEntries());
}

} // namespace rankscope
