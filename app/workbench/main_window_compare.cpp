// SPDX-License-Identifier: GPL-3.0-or-later
// What the window's Compare menu does.
#include "app/workbench/actions.h"
#include "app/workbench/comparer.h"
#include "app/workbench/main_window.h"

#include <QFileDialog>
#include <QMenu>
#include <QStatusBar>

namespace rankscope {

void MainWindow::connectCompare()
{
    connect(comparer_, &Comparer::message, this, &MainWindow::say);
    connect(comparer_, &Comparer::failed, this,
            [this](const Error& error) { showError(QStringLiteral("Not compared"), error); });
    connect(actions_->compare, &QAction::triggered, this, [this] {
        auto* menu = new QMenu(this);
        menu->setObjectName(QStringLiteral("compare_menu"));
        menu->setAttribute(Qt::WA_DeleteOnClose);
        menu->addActions({actions_->compare_folder, actions_->compare_file, actions_->compare_run});
        menu->addSeparator();
        menu->addAction(actions_->compare_stop);
        menu->setActiveAction(actions_->compare_folder);
        menu->popup(mapToGlobal(QPoint(width() / 3, height() / 4)));
    });
    const auto choose = [this](QFileDialog::FileMode mode, const QString& title, const QString& filter) {
        auto* dialog = new QFileDialog(this, title, QString(), filter);
        dialog->setAttribute(Qt::WA_DeleteOnClose);
        dialog->setFileMode(mode);
        connect(dialog, &QFileDialog::fileSelected, comparer_, &Comparer::start);
        dialog->open();
    };
    connect(actions_->compare_folder, &QAction::triggered, this, [choose] {
        choose(QFileDialog::Directory, QStringLiteral("Checkpoint folder or run to compare with"), {});
    });
    connect(actions_->compare_file, &QAction::triggered, this, [choose] {
        choose(QFileDialog::ExistingFile, QStringLiteral("Checkpoint to compare with"),
               QStringLiteral("Checkpoints (*.safetensors *.gguf);;All files (*)"));
    });
    connect(actions_->compare_run, &QAction::triggered, comparer_, &Comparer::startWithRun);
    connect(actions_->compare_stop, &QAction::triggered, comparer_, &Comparer::stop);
    for (const auto change : {&Session::comparisonChanged, &Session::runChanged, &Session::modelChanged})
        connect(&session_, change, this, [this] {
            const bool model = session_.model() != nullptr;
            actions_->compare->setEnabled(model);
            actions_->compare_folder->setEnabled(model);
            actions_->compare_file->setEnabled(model);
            actions_->compare_run->setEnabled(session_.run() && !session_.run()->results().empty());
            actions_->compare_stop->setEnabled(session_.comparison() != nullptr);
        });
    for (QAction* action : {actions_->compare, actions_->compare_folder, actions_->compare_file,
                            actions_->compare_run, actions_->compare_stop})
        action->setEnabled(false);
}

} // namespace rankscope
