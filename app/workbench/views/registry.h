// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/views/view.h"

namespace rankscope {

// One for each views/*_view.cpp.
const View& overviewView();
const View& channelsView();
const View& spectrumView();
const View& histogramView();
const View& matricesView();
const View& activationsView();

} // namespace rankscope
