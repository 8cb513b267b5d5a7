// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/session.h"
#include "core/plan/rank_allotment.h"

#include <QTimer>
#include <QWidget>

#include <optional>

class QLabel;
class QLineEdit;
class QSlider;

namespace rankscope {

/// A size for the whole plan, as a slider and as text ("2.4bpw", "60MB"): the plan's ranks follow at once,
/// spent where the predicted error falls most. One undo step for each drag.
class BudgetBar : public QWidget {
    Q_OBJECT

public:
    explicit BudgetBar(Session& session, QWidget* parent = nullptr);

    QSlider& slider() { return *slider_; }
    QLineEdit& target() { return *target_; }
    QString outcome() const;

Q_SIGNALS:
    void edited(const QString& what);
    void refused(const QString& reason);

private:
    void buildLayout();
    void planChanged();
    void makeOptions();
    void refresh(); ///< options and the plan's present place among them
    void dragged(int position);
    void finishDrag(); ///< the proven ranks in place of the quick ones
    void takeTarget(); ///< what was typed
    bool take(std::uint64_t bytes, bool exact);
    void showPlan();
    void showOutcome(const RankAllotment::Choice& choice);
    std::uint64_t bytesAt(int position) const;

    Session& session_;
    QSlider* slider_;
    QLineEdit* target_;
    QLabel* outcome_;
    std::optional<RankAllotment> allotment_;
    QTimer settle_;  ///< until a burst of measured layers or edits is over
    QTimer release_; ///< until keys that move the slider rest
    bool taking_ = false;
};

} // namespace rankscope
