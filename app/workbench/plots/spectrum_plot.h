// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/min_max_pyramid.h"
#include "app/workbench/plots/plot_view.h"
#include "core/plan/layer_spectrum.h"

#include <array>
#include <memory>

class QCheckBox;
class QCPItemRect;
class QCPItemStraightLine;
class QSpinBox;

namespace rankscope {

/// Singular values of W, W·H^½, W − Q and (W − Q)·H^½ on a log axis, with a rank cursor between σ_r and
/// σ_{r+1}. ←/→ or [ and ] move it by 1, with Shift by 16.
class SpectrumPlot : public PlotView {
    Q_OBJECT
public:
    explicit SpectrumPlot(QWidget* parent = nullptr);

    /// A null spectrum empties the view. `out` × `in` is the weight's shape.
    void setSpectrum(std::shared_ptr<const LayerSpectrum> spectrum, const QString& layer, qint64 out,
                     qint64 in);
    /// The same layer in another file or run, dashed: its W and, where this one is weighted too, W·H^½; null:
    /// none.
    void setOther(std::shared_ptr<const LayerSpectrum> other, const QString& name);
    /// Moves the cursor without any signal; clamped to 0…min(out, in) as soon as a spectrum is there.
    void setRank(int rank);
    int rank() const;
    int largestRank() const { return largest_rank_; } ///< min(out, in); 0 without data

    bool isRelative() const { return relative_; }
    bool isLogRank() const { return log_rank_; }

    /// Bytes of L and R at 16 bit for this rank: 2·r·(out + in).
    qint64 factorBytes(int rank) const;
    double predictedError(int rank) const; ///< relative (activation) error; NaN without a residual
    /// Σ_{i>r} σ² / Σ σ² of the residual (weighted if known), else of W.
    double tailEnergy(int rank) const;

    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void stepRank(int steps);        ///< as by keyboard: emits rankChanged and rankCommitted
    void setRelative(bool relative); ///< values divided by ‖W‖ (‖W·H^½‖)
    void setLogRank(bool log);

Q_SIGNALS:
    void rankChanged(int rank);   ///< while dragging or stepping, by the user's hand only
    void rankCommitted(int rank); ///< once, when the hand lets go

protected:
    void restyle() override;
    void layoutChanged() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool leave() override;
    bool pointerPressed(const QPointF& position) override;
    bool pointerMoved(const QPointF& position, Qt::MouseButtons buttons) override;
    bool pointerReleased(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;
    void keyPressEvent(QKeyEvent* event) override;
    void keyReleaseEvent(QKeyEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;

private:
    enum Series { Weight, Weighted, Residual, WeightedResidual, k_series };
    struct Curve {
        QCPGraph* graph = nullptr;
        QCPGraph* marks = nullptr; ///< sparse markers of the weighted curves
        MinMaxPyramid pyramid;     ///< drawn values, NaN where not positive
        QVector<double> tails;     ///< Σ_{i>r} σ² for r = 0…n
    };

    const VectorD* values(Series series) const;
    Series target() const; ///< what L·R is to carry: the residual, weighted if known, else W
    static QString name(Series series);
    void buildControls();
    void buildGraphs();
    QVector<int> drawnPlaces(const MinMaxPyramid& pyramid) const;
    void rebuildCurves();
    void rebuildOther();
    void addOtherTo(QVector<QStringList>& rows) const;
    void rebuildRange();
    void rebuildCursor();
    void rebuildReadout();
    void moveTo(int rank);
    void commit();
    double tailShare(Series series, int rank) const;
    int rankAt(const QPointF& position) const;
    double cursorPixel() const;

    std::shared_ptr<const LayerSpectrum> spectrum_;
    QString layer_;
    qint64 out_ = 0;
    qint64 in_ = 0;
    int largest_rank_ = 0;
    int rank_ = 0;
    int rank_before_drag_ = 0;
    bool dragging_ = false;
    bool uncommitted_ = false;
    bool relative_ = false;
    bool log_rank_ = false;

    std::shared_ptr<const LayerSpectrum> other_;
    QString other_name_;

    std::array<Curve, k_series> curves_;
    std::array<Curve, 2> others_; ///< W and W·H^½ of the other one
    QCPItemRect* kept_ = nullptr;
    QCPItemStraightLine* cursor_ = nullptr;
    QCPItemText* cursor_label_ = nullptr;
    QSpinBox* rank_box_ = nullptr;
    QCheckBox* relative_box_ = nullptr;
    QCheckBox* log_rank_box_ = nullptr;
};

} // namespace rankscope
