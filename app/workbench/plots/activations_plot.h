// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/matrix_image.h"
#include "app/workbench/plots/plot_view.h"
#include "core/calibration/token_activations.h"

#include <memory>

class QCheckBox;
class QComboBox;
class QCPColorScale;
class QPushButton;
class QSpinBox;

namespace rankscope {

/// Activations ready to be drawn.
struct ActivationPicture {
    TokenActivations activations; ///< without its values, which are in the pyramid
    std::shared_ptr<const MagnitudePyramid> values;
};

/// What flows into a layer, tokens downwards with their text and channels to the right. Lists the tokens with
/// massive activations; a click or the arrow keys choose a cell, whose column is the selected channel.
class ActivationsPlot : public PlotView {
    Q_OBJECT
public:
    explicit ActivationsPlot(QWidget* parent = nullptr);

    /// A null picture empties the view. `group`: the layer whose input it is.
    void setActivations(std::shared_ptr<const ActivationPicture> picture, const QString& group);
    void setSelectedChannel(int channel); ///< −1: none; emits nothing

    int tokenCount() const;
    QStringList tokenTexts() const { return texts_; } ///< as drawn beside the rows

    /// "text" (a file; empty: the built-in one), "tokens", "stretch".
    QVariantMap options() const override;
    void setOptions(const QVariantMap& options) override;
    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void setSigned(bool is_signed);
    void setClipped(bool clipped);
    void chooseText();

Q_SIGNALS:
    void channelSelected(int channel); ///< by the user's hand only

protected:
    void restyle() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool activateCursor() override;
    bool leave() override;
    void pointerClicked(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    void buildControls();
    void buildItems();
    void rebuild();
    void rebuildTexts();
    void rebuildList();
    void rebuildColors();
    void rebuildCursor();
    void rebuildReadout();
    void choose(Index token, Index channel);
    QString cellText(Index token, Index channel) const;

    std::shared_ptr<const ActivationPicture> picture_;
    QString group_;
    QStringList texts_;
    QString file_;
    int tokens_ = 128;
    int stretch_ = 0;
    Index token_ = -1;
    Index channel_ = -1;
    bool signed_ = false;
    bool clipped_ = false;

    MatrixImage* image_ = nullptr;
    QCPItemRect* cell_ = nullptr;
    QCPItemRect* column_ = nullptr;
    QCPColorScale* scale_ = nullptr;
    QComboBox* colors_box_ = nullptr;
    QComboBox* strong_box_ = nullptr;
    QCheckBox* clipped_box_ = nullptr;
    QPushButton* text_button_ = nullptr;
    QSpinBox* tokens_box_ = nullptr;
    QSpinBox* stretch_box_ = nullptr;
};

} // namespace rankscope
