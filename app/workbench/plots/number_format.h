// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>

namespace rankscope {

/// Numbers for people, the same in every locale. At most `significant` digits, no trailing zeros: "0.03125",
/// "1235", "1.235e-7". NaN is "NaN", infinity "∞".
QString formatNumber(double value, int significant = 4);
/// The shortest text that reads back as the same double.
QString formatExact(double value);
/// A share as percentage: "38 %", "0.12 %", "< 0.01 %" for what would round to nothing.
QString formatPercent(double share);
/// 12345678 as "12,345,678".
QString formatCount(qint64 count);
/// Decimal units, three significant digits: "1.05 MB".
QString formatBytes(qint64 bytes);
/// An axis label: "0.02", "5000", or "2·10⁻⁷" when `powers` is set.
QString formatTick(double value, bool powers);

} // namespace rankscope
