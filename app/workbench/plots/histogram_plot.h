// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/plot_view.h"
#include "core/plan/layer_parts.h"

#include <array>
#include <memory>

class QCheckBox;
class QSpinBox;

namespace rankscope {

class GridMarks;

/// How often which value occurs, with the levels of the quantization grid as ticks on the axis, the dead zone
/// and what is clipped shaded; beside W what the grid is given: W rotated, and less L·R. ←/→ step through the
/// groups of a row, ↑/↓ through the rows.
class HistogramPlot : public PlotView {
    Q_OBJECT
public:
    explicit HistogramPlot(QWidget* parent = nullptr);

    /// A null histogram empties the view.
    void setHistogram(std::shared_ptr<const LayerHistogram> histogram, const QString& layer);
    /// The same layer's weight in another file or run, dashed; null: none.
    void setOther(std::shared_ptr<const LayerHistogram> histogram, const QString& name);

    bool isLogarithmic() const { return log_; }
    GroupChoice choice() const { return choice_; }

    /// "row", "group" (−1: all), "steps", "rotated".
    QVariantMap options() const override;
    void setOptions(const QVariantMap& options) override;
    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void setLogarithmic(bool log); ///< counts

protected:
    void restyle() override;
    void layoutChanged() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool leave() override;
    QString toolTipAt(const QPointF& position) const override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    enum Curve { Weight, Rotated, Remainder, Other, k_curves };

    void buildControls();
    void choose(GroupChoice choice);
    void rebuild();
    void rebuildGrid();
    void rebuildReadout();
    const ValueHistogram* values(Curve curve) const;
    QString name(Curve curve) const;
    double share(const ValueHistogram& histogram,
                 std::size_t bin) const; ///< in the first one's bins, percent

    std::shared_ptr<const LayerHistogram> histogram_;
    std::shared_ptr<const LayerHistogram> other_;
    QString layer_;
    QString other_name_;
    GroupChoice choice_;
    bool steps_ = false;
    bool rotated_ = false;
    bool log_ = false;

    std::array<QCPGraph*, k_curves> graphs_{};
    GridMarks* marks_ = nullptr;
    QSpinBox* row_box_ = nullptr;
    QSpinBox* group_box_ = nullptr;
    QCheckBox* steps_box_ = nullptr;
    QCheckBox* rotated_box_ = nullptr;
    QCheckBox* log_box_ = nullptr;
};

} // namespace rankscope
