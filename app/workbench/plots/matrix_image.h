// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/qcp.h"
#include "core/tensor/magnitude_pyramid.h"

#include <QCache>
#include <QImage>

#include <memory>

namespace rankscope {

/// How values become colors: magnitudes on a logarithmic ramp from `high` / 10^decades to `high`, or signed
/// values on a linear one from −high to high.
struct MatrixColors {
    bool is_signed = false;
    double high = 1.0;
    double decades = 3.0;
    bool dark = false; ///< of signed ramps, whose middle is the background's

    QRgb color(double value) const; ///< NaN: transparent
    bool operator==(const MatrixColors&) const = default;
};

/// A matrix in an axis rect: cell (i, j) lies around x = j, y = i. Entries are pooled by magnitude until each
/// takes at least a device pixel, down and right apart, and drawn in tiles that are colored when first seen
/// and then kept; entries of 24 pixels and more carry their numbers. NaN and infinity are checkered.
class MatrixImage : public QCPAbstractItem {
public:
    explicit MatrixImage(QCustomPlot* plot, QCPAxisRect* rect);

    /// Null: nothing is drawn.
    void setMatrix(std::shared_ptr<const MagnitudePyramid> matrix);
    const MagnitudePyramid* matrix() const { return matrix_.get(); }
    void setColors(const MatrixColors& colors);
    void setInks(const QColor& broken, const QFont& numbers);

    /// The entry of largest magnitude that the pixel shows; false: none there.
    bool cellAt(const QPointF& position, Index& row, Index& col) const;

    double selectTest(const QPointF&, bool, QVariant*) const override { return -1.0; }

protected:
    void draw(QCPPainter* painter) override;

private:
    struct Span {
        Index first = 0, last = 0; ///< cells in sight, `last` not included
        double pixels = 0.0;       ///< per cell
    };
    Span columnsInSight() const;
    Span rowsInSight() const;
    /// A drawn cell stands for 2^down × 2^right entries.
    struct Pooling {
        int down = 0;
        int right = 0;
        int level() const
        {
            return down < right ? down : right;
        } ///< of the pyramid; the rest is pooled on the way
    };
    Pooling pooling(const Span& rows, const Span& cols) const;
    float pooled(const Pooling& pooling, Index row, Index col, Index* at_row, Index* at_col) const;
    const QImage& tile(const Pooling& pooling, Index row, Index col);
    void drawNumbers(QCPPainter* painter, const Span& rows, const Span& cols) const;

    QCPAxisRect* rect_;
    std::shared_ptr<const MagnitudePyramid> matrix_;
    MatrixColors colors_;
    QColor broken_;
    QFont numbers_;
    QCache<quint64, QImage> tiles_; ///< cost in bytes
};

} // namespace rankscope
