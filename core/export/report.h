// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"

namespace rankscope {

/// What a person attaches to a paper or a ticket: one HTML page with plan, sizes, errors, perplexities, plots
/// and command lines, and the layers as CSV.
const Exporter& report_exporter();

} // namespace rankscope
