// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/jobs_dock.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/theme.h"
#include "app/workbench/widgets/data_table.h"

#include <QApplication>
#include <QGridLayout>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLabel>
#include <QPainter>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QSplitter>
#include <QStyledItemDelegate>
#include <QVBoxLayout>

namespace rankscope {

namespace {

/// A progress bar in the cell, with the percentage as its text.
class ProgressDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;

    void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override
    {
        const double fraction = index.data(JobModel::FractionRole).toDouble();
        if (fraction < 0.0) {
            QStyledItemDelegate::paint(painter, option, index);
            return;
        }
        QStyleOptionViewItem cell = option;
        initStyleOption(&cell, index);
        cell.text.clear();
        const QStyle* style = cell.widget ? cell.widget->style() : QApplication::style();
        style->drawControl(QStyle::CE_ItemViewItem, &cell, painter, cell.widget);
        const QRect frame = option.rect.adjusted(6, 5, -6, -5);
        const Theme& theme = Theme::instance();
        QColor filled = theme.color(Theme::Token::Accent);
        filled.setAlpha(90); // the percentage is read on top of it
        const bool selected = (option.state & QStyle::State_Selected) != 0;
        painter->save();
        painter->fillRect(frame, theme.color(Theme::Token::Base));
        painter->fillRect(
            QRect(frame.topLeft(), QSize(static_cast<int>(frame.width() * fraction), frame.height())),
            filled);
        painter->setPen(theme.color(selected ? Theme::Token::Accent : Theme::Token::Border));
        painter->drawRect(frame.adjusted(0, 0, -1, -1));
        painter->setPen(theme.color(Theme::Token::Text));
        painter->drawText(frame, Qt::AlignCenter, index.data().toString());
        painter->restore();
    }
};

} // namespace

JobsDock::JobsDock(JobRunner& runner, QWidget* parent)
    : QDockWidget(QStringLiteral("Jobs"), parent), runner_(runner), model_(new JobModel(runner, this)),
      tree_(new DataTree), log_(new QPlainTextEdit), cancel_(new QPushButton(QStringLiteral("Cancel job"))),
      clear_(new QPushButton(QStringLiteral("Clear finished"))),
      next_(new QPushButton(QStringLiteral("Run next"))), pause_(new QPushButton(QStringLiteral("Pause")))
{
    setObjectName(QStringLiteral("jobs_dock"));
    tree_->setObjectName(QStringLiteral("jobs_tree"));
    tree_->setAccessibleName(QStringLiteral("Jobs and their layers"));
    tree_->setModel(model_);
    tree_->setSelectionMode(QAbstractItemView::SingleSelection);
    tree_->setItemDelegateForColumn(JobModel::Progress, new ProgressDelegate(tree_));
    const int widths[JobModel::k_columns] = {200, 70, 110, 150, 65, 65, 65};
    for (int column = 0; column < JobModel::k_columns; ++column)
        tree_->setColumnWidth(column, widths[column]);
    tree_->header()->setStretchLastSection(false);
    tree_->header()->setSectionResizeMode(JobModel::Stage, QHeaderView::Stretch);
    tree_->installEventFilter(this);

    auto* splitter = new QSplitter(Qt::Horizontal);
    splitter->addWidget(tree_);
    splitter->addWidget(buildSide());
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 1);
    splitter->setChildrenCollapsible(false);
    setWidget(splitter);
    setTitleBarWidget(new QWidget(this)); // the tab says it already

    connect(tree_->selectionModel(), &QItemSelectionModel::currentChanged, this, &JobsDock::showCurrent);
    connect(&runner_, &JobRunner::jobAdded, this, [this](JobId id) {
        const QModelIndex added = model_->indexOf(id);
        // The cursor follows what is new, but stays on what is under way or waits to be gone on with.
        const JobInfo chosen = runner_.info(current());
        if (added.isValid() && chosen.state != JobState::Running && !chosen.can_retry) {
            tree_->setCurrentIndex(added);
            tree_->scrollTo(added);
        }
        refreshSummary();
    });
    connect(&runner_, &JobRunner::jobChanged, this, [this](JobId id) {
        if (id == current())
            showCurrent();
        refreshSummary();
    });
    connect(&runner_, &JobRunner::jobFinished, this, &JobsDock::refreshSummary);
    connect(&runner_, &JobRunner::cleared, this, &JobsDock::showCurrent);
    connect(&runner_, &JobRunner::reordered, this, [this] {
        tree_->setCurrentIndex(model_->indexOf(moved_));
        showCurrent();
    });
    showCurrent();
}

QWidget* JobsDock::buildSide()
{
    log_->setReadOnly(true);
    log_->setAccessibleName(QStringLiteral("Log of the selected job"));
    log_->setPlaceholderText(QStringLiteral("Warnings of the selected job appear here, and at its end "
                                           "what a Vulkan device spent its time on."));
    log_->setMaximumBlockCount(10000);
    log_->setTabChangesFocus(true);

    cancel_->setObjectName(QStringLiteral("job_cancel"));
    cancel_->setToolTip(QStringLiteral("Stops the selected job; finished layers are kept"));
    connect(cancel_, &QPushButton::clicked, this, [this] { runner_.cancel(current()); });
    connect(clear_, &QPushButton::clicked, &runner_, &JobRunner::clearFinished);
    next_->setObjectName(QStringLiteral("job_next"));
    next_->setToolTip(
        QStringLiteral("The selected job, or the selected layer of a run, before the others that wait "
                       "(Alt+Up and Alt+Down move a job by one place)"));
    connect(next_, &QPushButton::clicked, this, &JobsDock::runNext);
    pause_->setObjectName(QStringLiteral("job_pause"));
    connect(pause_, &QPushButton::clicked, this, &JobsDock::pauseOrGoOn);

    auto* side = new QWidget;
    auto* side_layout = new QVBoxLayout(side);
    side_layout->setContentsMargins(0, 0, 4, 4);
    side_layout->addWidget(log_, 1);
    auto* buttons = new QGridLayout;
    buttons->addWidget(next_, 0, 0);
    buttons->addWidget(pause_, 0, 1);
    buttons->addWidget(clear_, 1, 0);
    buttons->addWidget(cancel_, 1, 1);
    side_layout->addLayout(buttons);
    return side;
}

JobId JobsDock::current() const { return model_->jobAt(tree_->currentIndex()); }

void JobsDock::showCurrent()
{
    const JobInfo info = runner_.info(current());
    const bool ended = info.state != JobState::Running && info.state != JobState::Queued;
    cancel_->setEnabled(info.id != 0 && !ended);
    const bool layer = tree_->currentIndex().parent().isValid();
    const bool waits = layer ? model_->waits(tree_->currentIndex()) : info.state == JobState::Queued;
    next_->setEnabled(info.can_run_next && waits);
    pause_->setEnabled(info.can_pause || info.can_retry);
    pause_->setText(!info.can_retry                  ? QStringLiteral("Pause")
                    : info.state == JobState::Failed ? QStringLiteral("Retry")
                                                     : QStringLiteral("Resume"));
    pause_->setToolTip(info.can_retry
                           ? QStringLiteral("Computes the layers that are missing; finished ones stay")
                           : QStringLiteral("Finishes the layers that have begun, then stops; the run can "
                                            "be resumed, also after a restart"));
    showLog();
}

void JobsDock::pauseOrGoOn()
{
    const JobInfo info = runner_.info(current());
    if (info.can_retry)
        runner_.retry(info.id);
    else
        runner_.pause(info.id);
}

void JobsDock::runNext()
{
    if (!next_->isEnabled())
        return;
    const QModelIndex index = tree_->currentIndex();
    if (index.parent().isValid()) {
        runner_.runItemNext(current(), index.siblingAtColumn(JobModel::Title).data().toString());
        return;
    }
    moved_ = current();
    runner_.runNext(moved_);
}

bool JobsDock::handleKey(const QKeyEvent& key)
{
    if (key.key() == Qt::Key_Escape && cancel_->isEnabled()) {
        Q_EMIT cancelQuestion(current(), runner_.info(current()).title);
        return true;
    }
    const bool up = key.key() == Qt::Key_Up;
    if (!key.modifiers().testFlag(Qt::AltModifier) || (!up && key.key() != Qt::Key_Down))
        return false;
    if (tree_->currentIndex().parent().isValid()) { // layers only go to the front
        if (up)
            runNext();
        return true;
    }
    moved_ = current();
    runner_.move(moved_, up ? -1 : 1);
    return true;
}

void JobsDock::showLog()
{
    const JobInfo info = runner_.info(current());
    QStringList lines = info.progress.warnings;
    for (const JobItem& item : info.progress.items) {
        if (item.state == JobItem::State::Failed)
            lines << QStringLiteral("%1: %2").arg(item.name, item.stage);
    }
    if (!info.message.isEmpty())
        lines << info.message;
    if (!info.progress.kernels.isEmpty())
        lines << info.progress.device_use + QStringLiteral(". By kernel:")
              << info.progress.kernels;
    const QString text = lines.join(QLatin1Char('\n'));
    if (text == log_text_)
        return;
    log_text_ = text;
    log_->setPlainText(text);
}

QString JobsDock::summary() const
{
    QString text;
    int active = 0;
    for (const JobId id : runner_.jobs()) {
        const JobInfo info = runner_.info(id);
        if (!info.shown || (info.state != JobState::Running && info.state != JobState::Queued))
            continue;
        ++active;
        if (info.state != JobState::Running || !text.isEmpty())
            continue;
        text = info.title;
        const double fraction = info.progress.fraction();
        if (fraction >= 0.0)
            text += QStringLiteral(" · %1 %").arg(static_cast<int>(fraction * 100.0));
        if (info.left_seconds >= 0.0)
            text += QStringLiteral(" · %1 left").arg(formatTimeLeft(info.left_seconds));
    }
    return active > 1 ? QStringLiteral("%1 (+%2)").arg(text).arg(active - 1) : text;
}

void JobsDock::refreshSummary() { Q_EMIT summaryChanged(summary()); }

bool JobsDock::eventFilter(QObject* watched, QEvent* event)
{
    if (watched == tree_ && event->type() == QEvent::KeyPress
        && handleKey(static_cast<const QKeyEvent&>(*event)))
        return true;
    return QDockWidget::eventFilter(watched, event);
}

} // namespace rankscope
