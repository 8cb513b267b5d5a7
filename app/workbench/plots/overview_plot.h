// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/plot_view.h"
#include "core/calibration/channel_map_pair.h"

#include <QImage>

#include <array>
#include <memory>

class QCheckBox;
class QComboBox;
class QCPColorScale;
class QCPItemPixmap;
class QCPAxisRect;
class QCPItemRect;
class QCPMarginGroup;

namespace rankscope {

/// What flows through the model as a map, blocks upwards and channels to the right: outlier channels that
/// persist show as vertical lines. Pooled by maximum to device pixels, so that a single hot channel stays
/// visible. Arrow keys move the cell, Enter or a click selects its layer and channel. Beside another file or
/// run: the weights that meet each channel, of A, of B, and how many times larger B's are.
class OverviewPlot : public PlotView {
    Q_OBJECT
public:
    enum class Quantity { ActivationMax, ActivationRms, WeightMax, WeightRms };
    Q_ENUM(Quantity)
    enum class Inputs { Residual, AttentionOutput, Down };
    Q_ENUM(Inputs)

    explicit OverviewPlot(QWidget* parent = nullptr);
    ~OverviewPlot() override;

    /// A null or empty map empties the view.
    void setMap(std::shared_ptr<const ChannelMap> map);
    /// Maps of both sides' weights; null: none, or under way. An empty name: no comparison.
    void setOther(std::shared_ptr<const ChannelMapPair> other, const QString& name);
    /// The cell of an input group and channel; −1: the whole row. Does not emit cellSelected.
    void setSelection(const QString& group, int channel);

    int rowCount() const { return static_cast<int>(rows_.size()); }
    int panelCount() const { return compares() ? k_panels : 1; }
    int channelCount() const { return channels_; }
    /// Channels above 8 medians in at least half of the rows shown.
    const QVector<int>& persistent() const { return persistent_; }

    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void setQuantity(rankscope::OverviewPlot::Quantity quantity);
    void setInputs(rankscope::OverviewPlot::Inputs inputs);
    void setNormalised(bool normalised); ///< each row by its own median

Q_SIGNALS:
    void cellSelected(const QString& group, int channel); ///< by the user's hand only

protected:
    void restyle() override;
    void layoutChanged() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool activateCursor() override;
    void pointerClicked(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;

private:
    enum Panel { First, Second, Ratio, k_panels };
    struct Part {
        QCPAxisRect* rect = nullptr;
        QCPTextElement* title = nullptr;
        QCPItemPixmap* picture = nullptr;
        QCPItemRect* cursor = nullptr;
    };

    void buildControls();
    void buildItems();
    void buildPart(Part& part);
    void arrangeParts();
    void paintPart(Panel panel);
    bool ofWeights() const { return quantity_ >= Quantity::WeightMax; }
    bool ofMaxima() const { return quantity_ == Quantity::ActivationMax || quantity_ == Quantity::WeightMax; }
    bool compares() const { return other_ && ofWeights(); } ///< three panels
    void chooseRows();
    QVector<QStringList> comparedTable() const;
    QString persistentText() const;
    QString compareText() const;
    double value(Panel panel, int row, int channel) const; ///< NaN beyond a row's channels
    QRgb color(Panel panel, double value) const;
    void rebuild();
    void rebuildScale();
    void rebuildCursor();
    double shareOf(double value) const; ///< place on the color scale, 0 … 1
    bool cellAt(const QPointF& position, int& row, int& channel) const;
    void select(int row, int channel);
    QString cellText(int row, int channel) const;

    std::shared_ptr<const ChannelMap> map_;
    std::shared_ptr<const ChannelMapPair> other_;
    QString other_name_;
    QString message_alone_;
    Quantity alone_ = Quantity::ActivationMax; ///< what was shown before the comparison
    std::vector<const ChannelMap::Row*> rows_; ///< those shown, from below
    std::array<std::vector<const ChannelMap::Row*>, k_panels> compared_; ///< the same rows of each panel
    std::vector<double> medians_; ///< of each row; 1 unless rows are normalised
    int channels_ = 0;
    QVector<int> persistent_;
    double ratio_end_ = 1.0;        ///< of the scale of log₂ B / A
    double low_ = 0.0, high_ = 1.0; ///< ends of the color scale, which is logarithmic
    Quantity quantity_ = Quantity::ActivationMax;
    Inputs inputs_ = Inputs::Residual;
    bool normalised_ = false;
    QString group_;
    int channel_ = -1;

    std::array<Part, k_panels> parts_;
    QCPMarginGroup* sides_ = nullptr;
    QCPColorScale* ratio_scale_ = nullptr;
    QCPColorScale* scale_ = nullptr;
    QComboBox* quantity_box_ = nullptr;
    QComboBox* inputs_box_ = nullptr;
    QCheckBox* normalised_box_ = nullptr;
};

} // namespace rankscope
