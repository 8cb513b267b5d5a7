// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>
#include <QWidget>

class QPushButton;

namespace rankscope {

/// What a view shows instead of nothing: a sentence and the next action.
class EmptyPage : public QWidget {
    Q_OBJECT

public:
    EmptyPage(const QString& sentence, const QString& action, QWidget* parent = nullptr);

Q_SIGNALS:
    void triggered();
};

} // namespace rankscope
