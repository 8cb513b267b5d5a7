// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/axis_ticker.h"

#include "app/workbench/plots/number_format.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr int k_label_pixels = 34; ///< a label and its air along a log axis
constexpr int k_most_ticks = 400;  ///< whatever range is asked for, a picture has no more

bool is_long(double value)
{
    const double size = std::fabs(value);
    return size > 0.0 && (size < 0.999e-3 || size > 1.001e5);
}

/// 1, 2, 5 or 1 within a decade, whichever gives about `wanted` labels.
QVector<double> mantissas(double decades, int wanted)
{
    if (decades * 3.0 <= wanted)
        return {1.0, 2.0, 5.0};
    if (decades * 2.0 <= wanted)
        return {1.0, 3.0};
    return {1.0};
}

} // namespace

double AxisTicker::getTickStep(const QCPRange& range)
{
    setTickCount(length_ > 0 ? std::clamp(length_ / 90, 3, 9) : 5);
    const double step = QCPAxisTicker::getTickStep(range);
    return whole_ ? std::max(1.0, std::round(step)) : step;
}

int AxisTicker::getSubTickCount(double step)
{
    if (logarithmic_)
        return stride_ == 1 ? 8 : 0;
    if (whole_ && step < 5.0)
        return step < 2.0 ? 0 : static_cast<int>(step) - 1;
    return QCPAxisTicker::getSubTickCount(step);
}

QVector<double> AxisTicker::createTickVector(double step, const QCPRange& range)
{
    QVector<double> ticks;
    if (logarithmic_ && range.lower > 0.0)
        ticks = logTicks(range);
    decades_ = !ticks.isEmpty();
    if (decades_ && whole_)
        ticks.erase(std::remove_if(ticks.begin(), ticks.end(), [](double tick) { return tick < 0.999; }),
                    ticks.end());
    if (ticks.isEmpty() && range.size() / step < k_most_ticks)
        ticks = QCPAxisTicker::createTickVector(step, range);
    powers_ = !whole_ && std::any_of(ticks.cbegin(), ticks.cend(), [&range](double tick) {
        return tick >= range.lower && tick <= range.upper && is_long(tick);
    });
    return ticks;
}

QVector<double> AxisTicker::logTicks(const QCPRange& range)
{
    stride_ = 1;
    const double low = std::log10(range.lower);
    const double high = std::log10(range.upper);
    const double decades = high - low;
    if (!(decades >= 0.7)) // a linear axis reads better
        return {};
    const int wanted = length_ > 0 ? std::max(2, length_ / k_label_pixels) : 8;
    const QVector<double> within = mantissas(decades, wanted);
    stride_ = std::max(1, static_cast<int>(std::ceil(decades / wanted)));
    QVector<double> ticks;
    const auto first = static_cast<int>(std::floor(low)) - 1;
    const auto last = static_cast<int>(std::ceil(high)) + 1;
    for (int decade = first; decade <= last; ++decade) {
        if (decade % stride_ != 0)
            continue;
        for (const double mantissa : within)
            ticks.append(mantissa * std::pow(10.0, decade));
    }
    return ticks;
}

QVector<double> AxisTicker::createSubTickVector(int count, const QVector<double>& ticks)
{
    if (!logarithmic_ || ticks.isEmpty())
        return QCPAxisTicker::createSubTickVector(count, ticks);
    if (!decades_)
        return QCPAxisTicker::createSubTickVector(4, ticks);
    if (stride_ != 1)
        return {};
    QVector<double> subs;
    const auto first = static_cast<int>(std::floor(std::log10(ticks.constFirst())));
    const auto last = static_cast<int>(std::floor(std::log10(ticks.constLast())));
    for (int decade = first; decade <= last; ++decade) {
        for (int mantissa = 2; mantissa <= 9; ++mantissa)
            subs.append(mantissa * std::pow(10.0, decade));
    }
    return subs;
}

QString AxisTicker::getTickLabel(double tick, const QLocale&, QChar, int)
{
    if (std::fabs(tick) < 1e-300)
        tick = 0.0;
    if (whole_)
        return QString::number(std::llround(tick));
    return formatTick(tick, powers_);
}

} // namespace rankscope
