// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/number_format.h"

namespace rankscope {

/// What tables show for a value that is not there.
const QString& noValue();
/// formatNumber, with the dash for NaN and infinity: in a table they mean "not measured".
QString formatMeasured(double value, int significant = 4);
/// Rounded time for people: "6 min", "40 s", "2 h 10 min"; the dash below zero.
QString formatTimeLeft(double seconds);
/// Elapsed time: "0.42 s", "12 s", "3:05".
QString formatElapsed(double seconds);

} // namespace rankscope
