// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/number_format.h"

#include <algorithm>
#include <cmath>

namespace rankscope {

const QString& noValue()
{
    static const QString dash = QStringLiteral("–");
    return dash;
}

QString formatMeasured(double value, int significant)
{
    return std::isfinite(value) ? formatNumber(value, significant) : noValue();
}

QString formatTimeLeft(double seconds)
{
    if (!(seconds >= 0.0))
        return noValue();
    const auto whole = static_cast<qint64>(std::llround(std::min(seconds, 1e9)));
    if (whole < 10)
        return QStringLiteral("%1 s").arg(std::max<qint64>(1, whole));
    if (whole < 90)
        return QStringLiteral("%1 s").arg((whole + 2) / 5 * 5);
    const qint64 minutes = (whole + 30) / 60;
    if (minutes < 60)
        return QStringLiteral("%1 min").arg(minutes);
    return QStringLiteral("%1 h %2 min").arg(minutes / 60).arg(minutes % 60);
}

QString formatElapsed(double seconds)
{
    if (!(seconds >= 0.0))
        return noValue();
    if (seconds < 0.01)
        return QStringLiteral("< 0.01 s");
    if (seconds < 60.0)
        return QStringLiteral("%1 s").arg(formatNumber(seconds, seconds < 10.0 ? 2 : 3));
    const auto whole = static_cast<qint64>(std::min(seconds, 1e9));
    return QStringLiteral("%1:%2").arg(whole / 60).arg(whole % 60, 2, 10, QLatin1Char('0'));
}

} // namespace rankscope
