// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QWidget>

class QLabel;

namespace rankscope {

/// Lies over a plot: dims it while busy, hides it behind a sentence where there is nothing to see.
class PlotOverlay : public QWidget {
    Q_OBJECT
public:
    explicit PlotOverlay(QWidget* plot);

    void setMessage(const QString& text);
    void setBusy(bool busy);

Q_SIGNALS:
    void linkActivated(const QString& link);

protected:
    void paintEvent(QPaintEvent* event) override;
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void updateState();

    QLabel* label_ = nullptr;
    bool busy_ = false;
};

} // namespace rankscope
