// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/number_format.h"

#include "core/base/byte_size.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace rankscope {
namespace {

QString text(double value, std::chars_format format, int precision)
{
    std::array<char, 64> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, precision);
    return end.ec == std::errc() ? QString::fromLatin1(buffer.data(), end.ptr - buffer.data()) : QString();
}

QString not_finite(double value)
{
    return std::isnan(value) ? QStringLiteral("NaN")
           : value > 0.0     ? QStringLiteral("∞")
                             : QStringLiteral("−∞");
}

/// Cuts trailing zeros behind the point.
QString trimmed(QString number)
{
    if (!number.contains(QLatin1Char('.')))
        return number;
    while (number.endsWith(QLatin1Char('0')))
        number.chop(1);
    if (number.endsWith(QLatin1Char('.')))
        number.chop(1);
    return number;
}

/// Decimal exponent of the value once rounded to `significant` digits.
int exponent_of(double value, int significant)
{
    const QString scientific = text(std::fabs(value), std::chars_format::scientific, significant - 1);
    return scientific.mid(scientific.indexOf(QLatin1Char('e')) + 1).toInt();
}

QString superscript(int number)
{
    static const QString digits = QStringLiteral("⁰¹²³⁴⁵⁶⁷⁸⁹");
    QString result = number < 0 ? QStringLiteral("⁻") : QString();
    for (const QChar digit : QString::number(std::abs(number)))
        result += digits[digit.digitValue()];
    return result;
}

} // namespace

QString formatNumber(double value, int significant)
{
    if (!std::isfinite(value))
        return not_finite(value);
    if (value == 0.0)
        return QStringLiteral("0");
    significant = std::clamp(significant, 1, 17);
    const int exponent = exponent_of(value, significant);
    if (exponent < -4 || exponent > 5) {
        const QString scientific = text(value, std::chars_format::scientific, significant - 1);
        return trimmed(scientific.left(scientific.indexOf(QLatin1Char('e')))) + QLatin1Char('e')
               + QString::number(exponent);
    }
    const int decimals = significant - 1 - exponent;
    if (decimals >= 0)
        return trimmed(text(value, std::chars_format::fixed, decimals));
    const double unit = std::pow(10.0, -decimals);
    return text(std::round(value / unit) * unit, std::chars_format::fixed, 0);
}

QString formatExact(double value)
{
    if (!std::isfinite(value))
        return not_finite(value);
    std::array<char, 64> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
    return QString::fromLatin1(buffer.data(), end.ptr - buffer.data());
}

QString formatPercent(double share)
{
    if (!std::isfinite(share))
        return not_finite(share);
    const double percent = 100.0 * share;
    const double size = std::fabs(percent);
    if (size == 0.0)
        return QStringLiteral("0 %");
    if (size < 0.01)
        return QStringLiteral("< 0.01 %");
    if (size > 99.99 && size < 100.0)
        return QStringLiteral("> 99.99 %");
    // 99.96 % must not become a whole that it is not.
    const bool near_whole = size > 99.0 && size < 100.0;
    return trimmed(text(percent, std::chars_format::fixed,
                        near_whole || size < 1.0 ? 2
                        : size < 10.0            ? 1
                                                 : 0))
           + QStringLiteral(" %");
}

QString formatCount(qint64 count)
{
    QString digits = QString::number(count);
    for (qsizetype at = digits.size() - 3; at > (count < 0 ? 1 : 0); at -= 3)
        digits.insert(at, QLatin1Char(','));
    return digits;
}

QString formatBytes(qint64 bytes)
{
    return QString::fromStdString(format_byte_size(static_cast<std::uint64_t>(std::max<qint64>(bytes, 0))));
}

QString formatTick(double value, bool powers)
{
    if (value == 0.0 || !std::isfinite(value))
        return formatNumber(value);
    QString result;
    if (powers) {
        const int exponent = exponent_of(value, 4);
        const QString scientific = text(value, std::chars_format::scientific, 3);
        const QString mantissa = trimmed(scientific.left(scientific.indexOf(QLatin1Char('e'))));
        const QString power = QStringLiteral("10") + superscript(exponent);
        result = mantissa == QLatin1String("1")    ? power
                 : mantissa == QLatin1String("-1") ? QLatin1Char('-') + power
                                                   : mantissa + QStringLiteral("·") + power;
    } else {
        result = formatNumber(value, 6);
    }
    return result.replace(QLatin1Char('-'), QStringLiteral("−"));
}

} // namespace rankscope
