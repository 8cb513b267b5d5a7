// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QFontMetrics>
#include <QString>

namespace rankscope {

/// A token as a person can tell it from all others, whatever it holds: spaces as ␣ (or _), line ends as \n,
/// other control characters and what the font has no glyph for as \u{4E2D}, a token without text as “”.
QString tokenText(const QString& token, const QFontMetrics& font);

} // namespace rankscope
