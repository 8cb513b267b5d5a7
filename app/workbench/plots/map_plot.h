// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/matrix_image.h"
#include "app/workbench/plots/plot_view.h"

#include <memory>
#include <vector>

class QCheckBox;
class QComboBox;
class QCPColorScale;

namespace rankscope {

/// Matrices as maps side by side: one cell cursor, one pan and zoom, one color scale for all. Subclasses say
/// which maps, what their axes mean and how a cell reads. Rows go downwards, columns (input channels) to the
/// right. A click or the arrow keys choose a cell, whose column is the selected channel.
class MapPlot : public PlotView {
    Q_OBJECT
public:
    ~MapPlot() override;

    void setSelectedChannel(int channel); ///< −1: none; emits nothing
    bool isSigned() const { return signed_; }
    bool isShared() const { return shared_; }
    int panelCount() const { return static_cast<int>(maps_.size()); } ///< those with a matrix

public Q_SLOTS:
    void setSigned(bool is_signed); ///< colors by value instead of magnitude
    void setShared(bool shared);    ///< one color scale for all panels
    void setClipped(bool clipped); ///< colors end at 4 RMS of the first (of each where scales are not shared)

Q_SIGNALS:
    void channelSelected(int channel); ///< by the user's hand only

protected:
    struct Map {
        QString name; ///< above the panel; empty: no title
        std::shared_ptr<const MagnitudePyramid> values;
    };

    /// There are never more than `most_panels` maps.
    MapPlot(int most_panels, QWidget* parent);

    /// Which colors, one scale or each its own, clipped or not. For the constructor, among its own controls.
    void addColorControls();

    /// The maps of a new picture, all as large as the first; ones without values are left out.
    void setMaps(const std::vector<Map>& maps);
    const std::vector<Map>& maps() const { return maps_; }
    Index rowCount() const { return maps_.empty() ? 0 : maps_.front().values->rows(); }
    Index columnCount() const { return maps_.empty() ? 0 : maps_.front().values->cols(); }
    Index row() const { return row_; }    ///< of the chosen cell, −1: none
    Index column() const { return col_; } ///< of it, or the selected channel; −1: none
    void choose(Index row, Index col);

    /// Axis labels and tickers; `narrow`: there is no room for labels.
    virtual void setAxes(bool narrow) = 0;
    virtual QString cellText(Index row, Index col) const = 0;
    virtual void rebuildReadout() = 0;
    /// What the values are, for the color scale.
    virtual QString valueName(bool is_signed) const = 0;

    /// "name: largest …, RMS …" of every map, and what of it is no number.
    QStringList mapTexts() const;

    void restyle() override;
    void layoutChanged() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool activateCursor() override;
    bool leave() override;
    void pointerClicked(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;
    void keyPressEvent(QKeyEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;

private:
    struct Panel {
        QCPAxisRect* rect = nullptr;
        QCPTextElement* title = nullptr;
        MatrixImage* image = nullptr;
        QCPItemRect* cell = nullptr;
        QCPItemRect* column = nullptr;
    };

    void buildPanels(int count);
    void buildItems(Panel& panel);
    void link(QCPAxis* axis, QCPAxis* main);
    int fittingPerLine() const;
    void rebuild();
    void arrangePanels();
    void rebuildColors();
    void rebuildScale(double high);
    void rebuildCursor();

    std::vector<Map> maps_;
    std::vector<Panel> panels_;
    Index row_ = -1;
    Index col_ = -1;
    bool signed_ = false;
    bool shared_ = true;
    bool clipped_ = false;
    int per_line_ = 1;
    double equalized_ = 0.0; ///< width of a panel that was asked for last: not again and again

    QCPLayoutGrid* grid_ = nullptr;
    QCPColorScale* scale_ = nullptr;
    QComboBox* colors_box_ = nullptr;
    QCheckBox* shared_box_ = nullptr;
    QCheckBox* clipped_box_ = nullptr;
};

} // namespace rankscope
