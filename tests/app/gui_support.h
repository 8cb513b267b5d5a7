// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/settings.h"
#include "app/workbench/theme.h"

#include <QApplication>
#include <QSettings>
#include <QTemporaryDir>
#include <QTest>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <clocale>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include <unistd.h>

namespace rankscope::test {

/// Settings and caches of a test go into a folder of its own, so that runs do not see each other.
class PrivateSettings {
public:
    PrivateSettings()
    {
        settings::nameProgram();
        QSettings::setPath(QSettings::IniFormat, QSettings::UserScope, folder_.path());
        std::setlocale(LC_NUMERIC, "C");
    }
    QString path(const QString& name) const { return folder_.filePath(name); }

private:
    QTemporaryDir folder_;
};

/// Measures how long the GUI thread leaves a posted event lying. What the scheduler itself takes (this thread
/// waking late, or the GUI thread waiting for a processor) is taken off, so that a busy machine is not mistaken for a
/// blocked window. To be made on the GUI thread.
class StallWatchdog {
public:
    using Clock = std::chrono::steady_clock;

    StallWatchdog()
        : gui_schedule_("/proc/self/task/" + std::to_string(::gettid()) + "/schedstat"),
          watcher_([this](const std::stop_token& stop) { watch(stop); })
    {
    }

    void enter(const QString& step)
    {
        const std::lock_guard lock(mutex_);
        step_ = step;
    }
    double worstMilliseconds() const
    {
        const std::lock_guard lock(mutex_);
        return worst_;
    }
    QString worstStep() const
    {
        const std::lock_guard lock(mutex_);
        return worst_step_;
    }
    /// 100 ms; sanitizers slow everything down.
    static double limitMilliseconds()
    {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        return 2000.0;
#else
        return 100.0;
#endif
    }

private:
    void watch(const std::stop_token& stop)
    {
        while (!stop.stop_requested()) {
            const auto answered = std::make_shared<std::atomic<bool>>(false);
            const double queued_before = queuedMilliseconds();
            const auto posted = Clock::now();
            QMetaObject::invokeMethod(
                qApp, [answered] { answered->store(true); }, Qt::QueuedConnection);
            double late = 0.0;
            while (!answered->load() && !stop.stop_requested()) {
                const auto before = Clock::now();
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
                late += milliseconds(Clock::now() - before) - 2.0;
            }
            const double queued = queuedMilliseconds() - queued_before;
            const double waited = milliseconds(Clock::now() - posted) - std::max(late, queued);
            {
                const std::lock_guard lock(mutex_);
                if (waited > worst_ && !stop.stop_requested()) {
                    worst_ = waited;
                    worst_step_ = step_;
                }
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    /// How long the GUI thread has been ready and waited for a processor in all; 0 where the system does not say.
    double queuedMilliseconds() const
    {
        std::ifstream file(gui_schedule_);
        double ran = 0.0;
        double queued = 0.0;
        return file >> ran >> queued ? queued / 1e6 : 0.0;
    }
    static double milliseconds(Clock::duration span)
    {
        return std::chrono::duration<double, std::milli>(span).count();
    }

    mutable std::mutex mutex_;
    QString step_;
    double worst_ = 0.0;
    QString worst_step_;
    std::string gui_schedule_;
    std::jthread watcher_; // last: it uses what is above
};

} // namespace rankscope::test
