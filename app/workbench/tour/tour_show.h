// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/job_monitor.h"
#include "core/teaching/tour_script.h"

#include <QString>
#include <QStringList>
#include <QVector>

#include <memory>

namespace rankscope {

/// A tour on one layer: the lesson and its script with all figures filled in. Immutable.
struct TourShow {
    Lesson lesson;
    TourScript script;
};

/// The scripts that come with the program, in the order of the lessons. Errors: Internal (a script is
/// broken).
Result<QVector<TourScript>> tourScripts();
/// Their names, for --tour.
QStringList tourNames();

struct TourRequest {
    TourScript script;
    std::shared_ptr<const Model> model;
    std::shared_ptr<const CalibrationStore> calibration;
    QString layer;    ///< empty: the layer on which outliers are seen best
    int outliers = 0; ///< 0: as the lesson proposes
};
using TourPointer = std::shared_ptr<const TourShow>;

/// Computes a tour; a job. Errors: as the lesson's. Throws Cancelled.
Result<TourPointer> prepareTour(const TourRequest& request, Backend& backend, JobMonitor& monitor);

} // namespace rankscope
