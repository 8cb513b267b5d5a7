// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/tour/formula.h"
#include "app/workbench/tour/tour_show.h"

#include <QPixmap>
#include <QVariantAnimation>
#include <QWidget>

namespace rankscope {

/// Draws one frame's pictures side by side. `before`: those that were there already are not fresh.
void paintFrame(QPainter& painter, const QRectF& area, const TourShow& show, const TourFrame& frame,
                const TourFrame* before, const QFont& font, bool dark);

/// The pictures of the frame on show; a change is faded in unless motion is reduced.
class TourCanvas : public QWidget {
    Q_OBJECT

public:
    explicit TourCanvas(QWidget* parent = nullptr);

    /// A null tour shows the message.
    void setFrame(TourPointer show, int page, int frame);
    void setMessage(const QString& text);
    const QString& message() const { return message_; }
    void setDark(bool dark);
    void setReducedMotion(bool reduced) { reduced_motion_ = reduced; }
    bool fading() const { return fade_.state() == QAbstractAnimation::Running; }
    QSize minimumSizeHint() const override { return {320, 240}; }

protected:
    void paintEvent(QPaintEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void changeEvent(QEvent* event) override;

private:
    const TourFrame* frameAt(int page, int frame) const;
    QPixmap drawn();

    TourPointer show_;
    QString message_;
    int page_ = -1;
    int frame_ = -1;
    TourFrame before_;
    QPixmap now_, old_; ///< empty: to be drawn
    QVariantAnimation fade_;
    bool dark_ = false;
    bool reduced_motion_ = false;
};

/// A formula as a widget, as high as it needs.
class FormulaPanel : public QWidget {
    Q_OBJECT

public:
    explicit FormulaPanel(QWidget* parent = nullptr);
    void setFormula(const QString& source);
    void setLit(const QString& term);
    const QString& lit() const { return lit_; }
    const Formula& formula() const { return formula_; }
    void setDark(bool dark);
    QSize sizeHint() const override;
    QSize minimumSizeHint() const override;
    bool hasHeightForWidth() const override { return true; }
    int heightForWidth(int width) const override;

protected:
    void paintEvent(QPaintEvent* event) override;

private:
    QFont face() const;
    Formula formula_;
    QString lit_;
    bool dark_ = false;
};

/// A ring about the pointer, for the last row. Lies over its parent and lets everything through.
class PointerRing : public QWidget {
    Q_OBJECT

public:
    explicit PointerRing(QWidget* parent);
    void setShown(bool shown);
    QPoint place() const { return place_; }

protected:
    void paintEvent(QPaintEvent* event) override;
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    QPoint place_{-1000, -1000};
};

} // namespace rankscope
