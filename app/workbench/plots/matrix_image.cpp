// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrix_image.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/theme.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr Index k_tile = 256;                  ///< cells a side: colored in a fraction of a frame
constexpr int k_kept_bytes = 48 * 1024 * 1024; ///< of tiles, for each matrix
constexpr double k_number_pixels = 24.0;
constexpr double k_least_font_share = 0.6; ///< smaller numbers cannot be read
constexpr int k_steps = 512;               ///< of a color ramp

using Ramp = std::array<QRgb, k_steps + 1>;

const Ramp& ramp(bool is_signed, bool dark)
{
    static const auto make = [](bool with_sign, bool on_dark) {
        Ramp colors{};
        for (int i = 0; i <= k_steps; ++i) {
            const double share = static_cast<double>(i) / k_steps;
            const QColor color =
                with_sign ? Theme::signedValue(2.0 * share - 1.0, on_dark) : Theme::magnitude(share);
            colors[static_cast<std::size_t>(i)] = color.rgb();
        }
        return colors;
    };
    static const Ramp magnitudes = make(false, false);
    static const Ramp light = make(true, false);
    static const Ramp night = make(true, true);
    return !is_signed ? magnitudes : dark ? night : light;
}

/// Values to places on the ramp, without a logarithm a cell more than there must be.
class Shade {
public:
    explicit Shade(const MatrixColors& colors)
        : ramp_(ramp(colors.is_signed, colors.dark)), signed_(colors.is_signed),
          high_(static_cast<float>(colors.high > 0.0 ? colors.high : 1.0)),
          per_log_(static_cast<float>(k_steps / (colors.decades * std::log2(10.0)))),
          per_value_(static_cast<float>(k_steps / 2) / high_)
    {}
    QRgb operator()(float value) const
    {
        const float place = signed_
                                ? (value + high_) * per_value_
                                : static_cast<float>(k_steps) + std::log2(std::abs(value) / high_) * per_log_;
        const float inside = place > 0.0F ? std::min(place, static_cast<float>(k_steps)) : 0.0F;
        return ramp_[static_cast<std::size_t>(inside + 0.5F)];
    }

private:
    const Ramp& ramp_;
    bool signed_;
    float high_;
    float per_log_;
    float per_value_;
};

} // namespace

QRgb MatrixColors::color(double value) const
{
    return std::isfinite(value) ? Shade(*this)(static_cast<float>(value)) : qRgba(0, 0, 0, 0);
}

MatrixImage::MatrixImage(QCustomPlot* plot, QCPAxisRect* rect)
    : QCPAbstractItem(plot), rect_(rect), tiles_(k_kept_bytes)
{
    setClipToAxisRect(true);
    setClipAxisRect(rect);
}

void MatrixImage::setMatrix(std::shared_ptr<const MagnitudePyramid> matrix)
{
    matrix_ = std::move(matrix);
    tiles_.clear();
}

void MatrixImage::setColors(const MatrixColors& colors)
{
    if (colors == colors_)
        return;
    colors_ = colors;
    tiles_.clear();
}

void MatrixImage::setInks(const QColor& broken, const QFont& numbers)
{
    if (broken != broken_)
        tiles_.clear();
    broken_ = broken;
    numbers_ = numbers;
}

MatrixImage::Span MatrixImage::columnsInSight() const
{
    const QCPAxis* axis = rect_->axis(QCPAxis::atBottom);
    const QCPRange range = axis->range();
    const auto clamped = [this](double cell) {
        return static_cast<Index>(std::clamp(cell, 0.0, static_cast<double>(matrix_->cols())));
    };
    return {clamped(std::floor(range.lower + 0.5)), clamped(std::ceil(range.upper + 0.5)),
            std::abs(axis->coordToPixel(1.0) - axis->coordToPixel(0.0))};
}

MatrixImage::Span MatrixImage::rowsInSight() const
{
    const QCPAxis* axis = rect_->axis(QCPAxis::atLeft);
    const QCPRange range = axis->range();
    const auto clamped = [this](double cell) {
        return static_cast<Index>(std::clamp(cell, 0.0, static_cast<double>(matrix_->rows())));
    };
    return {clamped(std::floor(range.lower + 0.5)), clamped(std::ceil(range.upper + 0.5)),
            std::abs(axis->coordToPixel(1.0) - axis->coordToPixel(0.0))};
}

/// As little as gives every drawn cell a device pixel: scaling up by nearest neighbor then loses none.
MatrixImage::Pooling MatrixImage::pooling(const Span& rows, const Span& cols) const
{
    const double ratio = parentPlot()->bufferDevicePixelRatio();
    const auto halvings = [ratio](double pixels, Index entries) {
        int result = 0;
        while (pixels * ratio * std::exp2(result) < 1.0 && (Index{1} << result) < entries)
            ++result;
        return result;
    };
    return {halvings(rows.pixels, matrix_->rows()), halvings(cols.pixels, matrix_->cols())};
}

/// The drawn cell's value, and in `at_row`, `at_col` (unless null) the place in the pyramid's level it is
/// from.
float MatrixImage::pooled(const Pooling& pooling, Index row, Index col, Index* at_row, Index* at_col) const
{
    const Matrix& values = matrix_->level(pooling.level());
    const Index first_row = row << (pooling.down - pooling.level());
    const Index first_col = col << (pooling.right - pooling.level());
    const Index last_row = std::min(values.rows(), (row + 1) << (pooling.down - pooling.level()));
    const Index last_col = std::min(values.cols(), (col + 1) << (pooling.right - pooling.level()));
    float strongest = 0.0F;
    float magnitude = -1.0F;
    for (Index i = first_row; i < last_row; ++i) {
        for (Index j = first_col; j < last_col; ++j) {
            const float value = values(i, j);
            const float here =
                std::isfinite(value) ? std::abs(value) : std::numeric_limits<float>::infinity();
            if (!(here > magnitude))
                continue;
            strongest = value;
            magnitude = here;
            if (at_row != nullptr) {
                *at_row = i;
                *at_col = j;
            }
        }
    }
    return strongest;
}

const QImage& MatrixImage::tile(const Pooling& pooling, Index row, Index col)
{
    const quint64 key = (static_cast<quint64>(pooling.down) << 58)
                        | (static_cast<quint64>(pooling.right) << 52) | (static_cast<quint64>(row) << 26)
                        | static_cast<quint64>(col);
    if (const QImage* known = tiles_.object(key))
        return *known;
    const Index drawn_rows = ((matrix_->rows() - 1) >> pooling.down) + 1;
    const Index drawn_cols = ((matrix_->cols() - 1) >> pooling.right) + 1;
    const Index height = std::min(k_tile, drawn_rows - row * k_tile);
    const Index width = std::min(k_tile, drawn_cols - col * k_tile);
    auto* image = new QImage(static_cast<int>(width), static_cast<int>(height), QImage::Format_RGB32);
    const Shade shade(colors_);
    for (Index i = 0; i < height; ++i) {
        auto* line = reinterpret_cast<QRgb*>(image->scanLine(static_cast<int>(i)));
        for (Index j = 0; j < width; ++j) {
            const float value = pooled(pooling, row * k_tile + i, col * k_tile + j, nullptr, nullptr);
            line[j] = std::isfinite(value) ? shade(value)
                      : (i + j) % 2 == 0   ? broken_.rgb()
                                           : qRgb(255, 255, 255);
        }
    }
    tiles_.insert(key, image, static_cast<int>(image->sizeInBytes()));
    return *image;
}

void MatrixImage::draw(QCPPainter* painter)
{
    if (!matrix_ || matrix_->empty())
        return;
    const Span cols = columnsInSight();
    const Span rows = rowsInSight();
    if (cols.first >= cols.last || rows.first >= rows.last)
        return;
    const QCPAxis* x = rect_->axis(QCPAxis::atBottom);
    const QCPAxis* y = rect_->axis(QCPAxis::atLeft);
    const Pooling pooled_by = pooling(rows, cols);
    const Index height = k_tile << pooled_by.down; // entries a tile covers
    const Index width = k_tile << pooled_by.right;
    painter->setRenderHint(QPainter::SmoothPixmapTransform, false);
    painter->setAntialiasing(false);
    for (Index row = rows.first / height; row * height < rows.last; ++row) {
        for (Index col = cols.first / width; col * width < cols.last; ++col) {
            const QImage& image = tile(pooled_by, row, col);
            // The last cell may stand for fewer entries: what it covers beyond them is out of the axes'
            // limits.
            const double left = static_cast<double>(col * width) - 0.5;
            const double top = static_cast<double>(row * height) - 0.5;
            const double right = left + image.width() * std::exp2(pooled_by.right);
            const double bottom = top + image.height() * std::exp2(pooled_by.down);
            painter->drawImage(QRectF(QPointF(x->coordToPixel(left), y->coordToPixel(top)),
                                      QPointF(x->coordToPixel(right), y->coordToPixel(bottom))),
                               image);
        }
    }
    if (cols.pixels >= k_number_pixels && rows.pixels >= k_number_pixels)
        drawNumbers(painter, rows, cols);
}

void MatrixImage::drawNumbers(QCPPainter* painter, const Span& rows, const Span& cols) const
{
    const QCPAxis* x = rect_->axis(QCPAxis::atBottom);
    const QCPAxis* y = rect_->axis(QCPAxis::atLeft);
    QFont font = numbers_;
    if (font.pointSizeF() > 0.0)
        font.setPointSizeF(font.pointSizeF() * 0.85);
    const QFontMetricsF metrics(font);
    const double room = cols.pixels - 3.0;
    for (Index row = rows.first; row < rows.last; ++row) {
        for (Index col = cols.first; col < cols.last; ++col) {
            const double value = (*matrix_)(row, col);
            QString text;
            for (int digits = 4; digits >= 1; --digits) {
                text = formatNumber(value, digits);
                if (metrics.horizontalAdvance(text) > room) // a narrow cell does without the zero
                    text.replace(QLatin1String("0."), QLatin1String("."));
                if (metrics.horizontalAdvance(text) <= room)
                    break;
            }
            const double fit = std::min(1.0, room / std::max(metrics.horizontalAdvance(text), 1.0));
            if (fit < k_least_font_share)
                continue;
            QFont fitted = font;
            if (fit < 1.0)
                fitted.setPointSizeF(font.pointSizeF() * fit);
            painter->setFont(fitted);
            const QRgb ground = std::isfinite(value) ? colors_.color(value) : qRgb(255, 255, 255);
            painter->setPen(qGray(ground) > 128 ? Qt::black : Qt::white);
            const double center_x = x->coordToPixel(static_cast<double>(col));
            const double center_y = y->coordToPixel(static_cast<double>(row));
            painter->drawText(
                QRectF(center_x - cols.pixels / 2, center_y - rows.pixels / 2, cols.pixels, rows.pixels),
                Qt::AlignCenter, text);
        }
    }
}

bool MatrixImage::cellAt(const QPointF& position, Index& row, Index& col) const
{
    if (!matrix_ || matrix_->empty() || !rect_->rect().contains(position.toPoint()))
        return false;
    const double x = rect_->axis(QCPAxis::atBottom)->pixelToCoord(position.x());
    const double y = rect_->axis(QCPAxis::atLeft)->pixelToCoord(position.y());
    if (x < -0.5 || y < -0.5)
        return false;
    row = static_cast<Index>(std::floor(y + 0.5));
    col = static_cast<Index>(std::floor(x + 0.5));
    if (row >= matrix_->rows() || col >= matrix_->cols())
        return false;
    // Many entries under the pointer: the one whose color is seen, down the levels.
    const Pooling pooled_by = pooling(rowsInSight(), columnsInSight());
    const float seen = pooled(pooled_by, row >> pooled_by.down, col >> pooled_by.right, &row, &col);
    for (int level = pooled_by.level(); level > 0; --level) {
        const Matrix& finer = matrix_->level(level - 1);
        Index next_row = 2 * row;
        Index next_col = 2 * col;
        for (const auto& [down, right] : {std::pair<Index, Index>(0, 0), {0, 1}, {1, 0}, {1, 1}}) {
            const Index r = std::min(2 * row + down, finer.rows() - 1);
            const Index c = std::min(2 * col + right, finer.cols() - 1);
            const float value = finer(r, c);
            if (value == seen || (!std::isfinite(seen) && !std::isfinite(value))) {
                next_row = r;
                next_col = c;
                break;
            }
        }
        row = next_row;
        col = next_col;
    }
    return true;
}

} // namespace rankscope
