// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/start_timer.h"

#include <QApplication>
#include <QEvent>
#include <QFile>
#include <QTimer>
#include <QWidget>

#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace rankscope {
namespace {

/// Milliseconds since this process was started; −1 where the kernel does not say.
double sinceStart()
{
    QFile file(QStringLiteral("/proc/self/stat"));
    if (!file.open(QIODevice::ReadOnly))
        return -1.0;
    const QByteArray text = file.readAll();
    // Field 22, counted behind the program's name, which may itself hold blanks.
    const QList<QByteArray> fields = text.mid(text.lastIndexOf(')') + 2).split(' ');
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    const double seconds = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
    const double started = fields.value(19).toDouble() / static_cast<double>(sysconf(_SC_CLK_TCK));
    return 1000.0 * (seconds - started);
}

} // namespace

StartTimer::StartTimer(QWidget& window) : QObject(&window) { window.installEventFilter(this); }

bool StartTimer::eventFilter(QObject* watched, QEvent* event)
{
    if (event->type() == QEvent::Paint && !painted_) {
        painted_ = true;
        // The children are painted in the same go; the next turn of the event loop is the first after it.
        QTimer::singleShot(0, this, [] {
            const double paint = sinceStart();
            QTimer::singleShot(0, qApp, [paint] {
                std::printf("first paint %.0f ms, usable %.0f ms\n", paint, sinceStart());
                QApplication::exit(0);
            });
        });
    }
    return QObject::eventFilter(watched, event);
}

} // namespace rankscope
