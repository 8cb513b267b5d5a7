// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QFrame>

#include <functional>

class QLabel;
class QPushButton;

namespace rankscope {

/// One hint for who sees something for the first time, in a line above the views. Once it was answered it
/// never comes back, in no session.
class HintBar : public QFrame {
    Q_OBJECT

public:
    explicit HintBar(QWidget* parent = nullptr);

    /// Shows the hint unless it was answered before or another one is on show. `action` may be null.
    void offer(const QString& id, const QString& text, const QString& button, std::function<void()> action);
    /// The hint's id; empty: none is on show.
    const QString& hint() const { return hint_; }

private:
    void answer();

    QString hint_;
    std::function<void()> action_;
    QLabel* text_ = nullptr;
    QPushButton* act_ = nullptr;
};

} // namespace rankscope
