// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/workspaces.h"

#include <QDataStream>
#include <QDockWidget>
#include <QIODevice>
#include <QTimer>

#include <algorithm>

namespace rankscope {
namespace {

constexpr int k_layout_version = 2; // raise when docks come or go: older layouts are then not restored

} // namespace

Workspaces::Workspaces(QMainWindow& window, const WorkspaceDocks& docks, QObject* parent)
    : QObject(parent), window_(window), docks_(docks)
{
    arrange(current_);
}

QList<QDockWidget*> Workspaces::all() const
{
    return {docks_.checkpoint, docks_.inspector, docks_.plan, docks_.results, docks_.jobs};
}

void Workspaces::remember()
{
    if (shown_)
        layouts_[static_cast<int>(current_)] = window_.saveState(k_layout_version);
}

void Workspaces::apply()
{
    const auto known = layouts_.constFind(static_cast<int>(current_));
    if (known == layouts_.constEnd() || !window_.restoreState(*known, k_layout_version))
        arrange(current_);
}

void Workspaces::show(Kind kind)
{
    if (kind == current_ || !shown_)
        return;
    remember();
    current_ = kind;
    apply();
    Q_EMIT changed(kind);
}

void Workspaces::setShown(bool shown)
{
    if (!shown)
        remember();
    if (shown && !shown_)
        apply();
    shown_ = shown;
    for (QDockWidget* dock : all()) {
        if (!shown)
            dock->hide();
        dock->toggleViewAction()->setEnabled(shown);
    }
}

void Workspaces::reset()
{
    if (!shown_)
        return;
    layouts_.remove(static_cast<int>(current_));
    arrange(current_);
}

void Workspaces::arrange(Kind kind)
{
    window_.addDockWidget(Qt::LeftDockWidgetArea, docks_.checkpoint);
    window_.addDockWidget(Qt::LeftDockWidgetArea, docks_.inspector);
    window_.splitDockWidget(docks_.checkpoint, docks_.inspector, Qt::Vertical);
    for (QDockWidget* below : {docks_.plan, docks_.results, docks_.jobs})
        window_.addDockWidget(Qt::BottomDockWidgetArea, below);
    window_.tabifyDockWidget(docks_.plan, docks_.results);
    window_.tabifyDockWidget(docks_.results, docks_.jobs);
    for (QDockWidget* dock : all()) {
        dock->setFloating(false);
        dock->show();
    }
    // What the step is about gets the room; the rest stays one click away.
    docks_.inspector->setVisible(kind == Kind::Explore || kind == Kind::Results);
    docks_.checkpoint->setVisible(kind != Kind::Run);
    QDockWidget* front = kind == Kind::Run       ? docks_.jobs
                         : kind == Kind::Results ? docks_.results
                                                 : docks_.plan;
    front->raise();
    size(kind);
    // Docks that were hidden until now take their sizes only once they have been laid out.
    QTimer::singleShot(0, this, [this, kind] {
        if (current_ == kind && !layouts_.contains(static_cast<int>(kind)))
            size(kind);
    });
}

void Workspaces::size(Kind kind)
{
    const int width = window_.width();
    const int height = window_.height();
    window_.resizeDocks({docks_.checkpoint}, {std::clamp(width * 26 / 100, 280, 420)}, Qt::Horizontal);
    window_.resizeDocks({docks_.checkpoint, docks_.inspector}, {height * 50 / 100, height * 40 / 100},
                        Qt::Vertical);
    const int share = kind == Kind::Explore ? 35 : 55;
    window_.resizeDocks({docks_.plan}, {std::max(230, height * share / 100)}, Qt::Vertical);
}

QByteArray Workspaces::state()
{
    remember();
    QByteArray bytes;
    QDataStream stream(&bytes, QIODevice::WriteOnly);
    stream.setVersion(QDataStream::Qt_6_0);
    stream << qint32(k_layout_version) << qint32(current_) << layouts_;
    return bytes;
}

void Workspaces::restore(const QByteArray& state)
{
    QDataStream stream(state);
    stream.setVersion(QDataStream::Qt_6_0);
    qint32 version = 0;
    qint32 current = 0;
    QHash<int, QByteArray> layouts;
    stream >> version >> current >> layouts;
    if (stream.status() != QDataStream::Ok || version != k_layout_version || current < 0
        || current >= k_count)
        return;
    layouts_ = layouts;
    current_ = static_cast<Kind>(current);
    if (shown_)
        apply();
    Q_EMIT changed(current_);
}

} // namespace rankscope
