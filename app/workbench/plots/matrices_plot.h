// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/matrix_image.h"
#include "app/workbench/plots/plot_view.h"

#include <array>
#include <memory>

class QCheckBox;
class QComboBox;
class QCPColorScale;

namespace rankscope {

/// A weight and its parts, ready to be drawn; null: there is no such part.
struct LayerMatrices {
    std::shared_ptr<const MagnitudePyramid> weight, quantized, low_rank, residual;
    bool from_run = false; ///< else Q is nearest rounding to the plan's grid
};

/// W, Q, L·R and W − Q − L·R side by side, outputs downwards and inputs to the right; panning and zooming one
/// moves all. A click or the arrow keys choose a cell, whose column is the selected channel.
class MatricesPlot : public PlotView {
    Q_OBJECT
public:
    explicit MatricesPlot(QWidget* parent = nullptr);
    ~MatricesPlot() override;

    /// Null matrices empty the view.
    void setMatrices(std::shared_ptr<const LayerMatrices> matrices, const QString& layer);
    void setSelectedChannel(int channel); ///< −1: none; emits nothing

    bool isSigned() const { return signed_; }
    bool isShared() const { return shared_; }
    int panelCount() const; ///< panels in sight

    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void setSigned(bool is_signed); ///< colors by value instead of magnitude
    void setShared(bool shared);    ///< one color scale for all panels
    void setClipped(bool clipped);  ///< colors end at 4 RMS of W (of each panel, where scales are not shared)

Q_SIGNALS:
    void channelSelected(int channel); ///< by the user's hand only

protected:
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
    enum Part { Weight, Quantized, LowRank, Residual, k_parts };
    struct Panel {
        QCPAxisRect* rect = nullptr;
        QCPTextElement* title = nullptr;
        MatrixImage* image = nullptr;
        QCPItemRect* cell = nullptr;   ///< the chosen one
        QCPItemRect* column = nullptr; ///< of the selected channel
    };

    void buildControls();
    void buildPanels();
    void link(QCPAxis* axis, QCPAxis* main);
    void rebuild();
    void rebuildColors();
    void rebuildCursor();
    void rebuildReadout();
    void choose(Index row, Index col);
    const MagnitudePyramid* matrix(Part part) const;
    QString name(Part part) const;
    QString cellText(Index row, Index col) const;

    std::shared_ptr<const LayerMatrices> matrices_;
    QString layer_;
    Index row_ = -1; ///< of the chosen cell
    Index col_ = -1; ///< of it, or the selected channel
    bool signed_ = false;
    bool shared_ = true;
    bool clipped_ = false;
    int per_line_ = k_parts;
    double equalized_ = 0.0; ///< width of a panel that was asked for last: not again and again

    std::array<Panel, k_parts> panels_;
    QCPLayoutGrid* grid_ = nullptr;
    QCPColorScale* scale_ = nullptr;
    QComboBox* colors_box_ = nullptr;
    QCheckBox* shared_box_ = nullptr;
    QCheckBox* clipped_box_ = nullptr;
};

} // namespace rankscope
