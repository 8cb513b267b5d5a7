// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QObject>

class QWidget;

namespace rankscope {

/// Measures how long a person waits for the window: prints the milliseconds from the start of the process (as
/// the kernel knows it, in steps of 10 ms) to the end of the first painting and to the first moment when
/// input is handled, then ends the program.
class StartTimer : public QObject {
    Q_OBJECT
public:
    explicit StartTimer(QWidget& window);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    bool painted_ = false;
};

} // namespace rankscope
