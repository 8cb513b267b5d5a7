// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QFrame>
#include <QString>

#include <functional>
#include <vector>

class QHBoxLayout;
class QLabel;
class QToolButton;

namespace rankscope {

/// A line at the top of the window that says what happened and offers what to do. Never modal; the newest one
/// wins, except that a question stays until it is answered.
class MessageBanner : public QFrame {
    Q_OBJECT

public:
    enum class Kind { Information, Warning, Error };
    struct Action {
        QString text;
        std::function<void()> run;
    };

    explicit MessageBanner(QWidget* parent = nullptr);

    void show(Kind kind, const QString& text, const std::vector<Action>& actions = {});
    void dismiss();
    QString text() const;
    /// Triggers the action of that text; false when there is none.
    bool trigger(const QString& action);

private:
    void restyle();

    Kind kind_ = Kind::Information;
    QLabel* icon_;
    QLabel* text_;
    QHBoxLayout* buttons_;
    QToolButton* close_;
    std::vector<Action> actions_;
};

} // namespace rankscope
