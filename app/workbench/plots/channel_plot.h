// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/min_max_pyramid.h"
#include "app/workbench/plots/plot_view.h"
#include "core/plan/layer_spectrum.h"

#include <memory>

class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QCPItemLine;
class QCPItemStraightLine;
class QSpinBox;

namespace rankscope {

/// Impulses per input channel, the outlier set above a draggable threshold. ←/→ move the channel cursor, ↑/↓
/// the threshold. Pooled by maximum to device pixels, so that a single hot channel among 28,672 stays
/// visible.
class ChannelPlot : public PlotView {
    Q_OBJECT
public:
    enum class Quantity { WeightedEnergy, HessianDiagonal, ActivationMax, WeightMax };
    Q_ENUM(Quantity)
    enum class Rule { TimesMedian, TopK };
    Q_ENUM(Rule)

    explicit ChannelPlot(QWidget* parent = nullptr);

    /// A null or empty profile empties the view.
    void setProfile(std::shared_ptr<const ChannelProfile> profile, const QString& layer);
    /// The same layer in another file or run, as a dashed line; null: none. Only quantities that both know of
    /// are drawn.
    void setOther(std::shared_ptr<const ChannelProfile> other, const QString& name);

    Quantity quantity() const { return quantity_; }
    Rule rule() const { return rule_; }
    double timesMedian() const { return times_median_; }
    int topK() const { return top_k_; }
    bool isSorted() const { return sorted_; }
    bool isLogScale() const { return log_; }
    double threshold() const;                           ///< in units of the quantity; NaN without data
    QVector<int> outliers() const { return outliers_; } ///< rising channel numbers
    int selectedChannel() const { return selected_; }   ///< −1: none

    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void setQuantity(rankscope::ChannelPlot::Quantity quantity);
    void setRule(rankscope::ChannelPlot::Rule rule);
    void setTimesMedian(double factor);
    void setTopK(int count);
    void setSorted(bool sorted);
    void setLogScale(bool log);
    void setSelectedChannel(int channel); ///< does not emit channelSelected

Q_SIGNALS:
    void channelSelected(int channel);                  ///< by the user's hand only
    void outliersChanged(const QVector<int>& channels); ///< rising channel numbers, whenever the set differs

protected:
    void restyle() override;
    void layoutChanged() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool activateCursor() override;
    bool leave() override;
    bool pointerPressed(const QPointF& position) override;
    bool pointerMoved(const QPointF& position, Qt::MouseButtons buttons) override;
    bool pointerReleased(const QPointF& position) override;
    void pointerClicked(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    void buildControls();
    void buildGraphs();
    const VectorD* values(Quantity quantity) const;
    void rebuildOther();
    void addOtherTo(QVector<QStringList>& rows) const;
    void drawOther(int first, int last, int columns);
    void rebuildOrder();
    void rebuildOutliers();
    void rebuildRange();
    void rebuildCursor();
    void rebuildReadout();
    void refresh();
    void dragThresholdTo(double y);
    int channelAt(const QPointF& position) const;
    double thresholdPixel() const;
    QString channelText(int channel) const;

    std::shared_ptr<const ChannelProfile> profile_;
    QString layer_;
    Quantity quantity_ = Quantity::WeightedEnergy;
    Rule rule_ = Rule::TimesMedian;
    double times_median_ = 8.0;
    int top_k_ = 8;
    bool sorted_ = false;
    bool log_ = true;
    int selected_ = -1;
    bool dragging_ = false;

    int channels_ = 0;
    QVector<double> ordered_; ///< the quantity in drawing order
    QVector<int> order_;      ///< drawing position → channel
    QVector<int> position_;   ///< channel → drawing position
    QVector<double> falling_; ///< finite values, falling
    QVector<int> not_finite_; ///< channels with NaN or infinity
    QVector<int> outliers_;
    QVector<bool> is_outlier_; ///< by channel
    double reference_ = 0.0;   ///< the median, or the mean where the median is 0
    bool reference_is_mean_ = false;
    MinMaxPyramid pyramid_;
    std::shared_ptr<const ChannelProfile> other_;
    QString other_name_;
    MinMaxPyramid other_pyramid_; ///< in this one's drawing order

    QCPGraph* impulses_ = nullptr;
    QCPGraph* outlier_impulses_ = nullptr;
    QCPGraph* outlier_marks_ = nullptr;
    QCPGraph* broken_marks_ = nullptr;
    QCPGraph* other_line_ = nullptr;
    QCPItemStraightLine* threshold_line_ = nullptr;
    QCPItemText* threshold_label_ = nullptr;
    QCPItemStraightLine* channel_line_ = nullptr;
    QComboBox* quantity_box_ = nullptr;
    QComboBox* rule_box_ = nullptr;
    QDoubleSpinBox* factor_box_ = nullptr;
    QSpinBox* count_box_ = nullptr;
    QCheckBox* sorted_box_ = nullptr;
    QCheckBox* log_box_ = nullptr;
};

} // namespace rankscope
