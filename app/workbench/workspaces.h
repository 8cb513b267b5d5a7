// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QByteArray>
#include <QHash>
#include <QMainWindow>
#include <QObject>

class QDockWidget;

namespace rankscope {

/// The docks that a workspace arranges.
struct WorkspaceDocks {
    QDockWidget* checkpoint;
    QDockWidget* inspector;
    QDockWidget* plan;
    QDockWidget* results;
    QDockWidget* jobs;
};

/// Four named layouts over the same docks. Each keeps the sizes and places that a person gave it; leaving one
/// stores them, coming back restores them.
class Workspaces : public QObject {
    Q_OBJECT

public:
    enum class Kind { Explore, Plan, Run, Results };
    static constexpr int k_count = 4;

    Workspaces(QMainWindow& window, const WorkspaceDocks& docks, QObject* parent);

    Kind current() const { return current_; }
    void show(Kind kind);
    /// Without a checkpoint no dock is to be seen, and no workspace changes.
    void setShown(bool shown);
    /// The current one as it was at first.
    void reset();

    /// For the settings: all layouts, and which is current. An unreadable or older state is ignored.
    QByteArray state();
    void restore(const QByteArray& state);

Q_SIGNALS:
    void changed(rankscope::Workspaces::Kind kind);

private:
    void remember();
    void apply();
    void arrange(Kind kind);
    void size(Kind kind);
    QList<QDockWidget*> all() const;

    QMainWindow& window_;
    WorkspaceDocks docks_;
    Kind current_ = Kind::Explore;
    bool shown_ = false;
    QHash<int, QByteArray> layouts_;
};

} // namespace rankscope
