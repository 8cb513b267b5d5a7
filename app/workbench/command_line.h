// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/main_window.h"
#include "app/workbench/theme.h"

#include <QString>
#include <QStringList>
#include <QVariantMap>

#include <optional>

namespace rankscope {

/// What `rankscope` was asked to do.
struct LaunchOptions {
    QString path;
    bool sample = false;
    bool run = false;                   ///< run the plan as soon as it can be
    std::optional<Theme::Choice> theme; ///< empty: as set before
    WindowOptions window;
    QString screenshot;      ///< write the window into this file when all jobs are done, then end
    QString tour;            ///< guided tour to show
    QString view;            ///< brought to the front
    bool time_start = false; ///< print how long the window took to appear, then end
    QString render;          ///< draw this view without a window
    QString layer;
    QString calibration;
    QString with_run;         ///< a run of the checkpoint, for Q and L·R
    QString setting;          ///< of the layer's plan row, as the window has it: gives the grid
    QString compare;          ///< a second checkpoint or run, drawn beside the first
    QVariantMap view_options; ///< PlotView::options()
    QString output;
    bool glossary = false; ///< print docs/glossary.md
    bool help = false;
    bool version = false;
};

/// Errors: Usage, with the option that is wrong. `arguments` start with the program's name.
Result<LaunchOptions> parseCommandLine(const QStringList& arguments);
QString helpText();

/// `--render VIEW --layer L PATH -o FILE`: draws one view into a file without a display. Errors: as the steps
/// it takes.
Status renderView(const LaunchOptions& options);

} // namespace rankscope
