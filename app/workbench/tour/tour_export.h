// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/tour/tour_show.h"

#include <QSizeF>

class QPainter;

namespace rankscope {

/// Draws one page of a tour with title, pictures, formula, text, question and answer, on white.
void paintTourPage(QPainter& painter, const QSizeF& size, const TourShow& show, int page);

/// A PDF with one page a step, or a folder of page-01.png … The files appear whole or not at all, existing
/// ones are replaced. Errors: Io, NoSpace.
Status exportTourPdf(const TourShow& show, const QString& file);
Status exportTourPngs(const TourShow& show, const QString& folder);

} // namespace rankscope
