// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/map_plot.h"
#include "core/calibration/token_activations.h"

#include <memory>

class QPushButton;
class QSpinBox;

namespace rankscope {

/// Activations ready to be drawn.
struct ActivationPicture {
    TokenActivations activations; ///< without its values, which are in the pyramid
    std::shared_ptr<const MagnitudePyramid> values;
};

/// The same stretch of text in another file or run.
struct OtherActivations {
    std::shared_ptr<const ActivationPicture> picture;
    std::shared_ptr<const MagnitudePyramid>
        difference; ///< less the first one's; null: tokens or shapes differ
};

/// What flows into a layer, tokens downwards with their text and channels to the right. Lists the tokens with
/// massive activations. Beside another file or run: A, B, and B − A.
class ActivationsPlot : public MapPlot {
    Q_OBJECT
public:
    explicit ActivationsPlot(QWidget* parent = nullptr);

    /// A null picture empties the view. `group`: the layer whose input it is.
    void setActivations(std::shared_ptr<const ActivationPicture> picture, const QString& group);
    /// Null: none. An empty name: no comparison.
    void setOther(std::shared_ptr<const OtherActivations> other, const QString& name);

    int tokenCount() const;
    QStringList tokenTexts() const { return texts_; } ///< as drawn beside the rows

    /// "text" (a file; empty: the built-in one), "tokens", "stretch".
    QVariantMap options() const override;
    void setOptions(const QVariantMap& options) override;
    QString summary() const override;
    QVector<QStringList> table() const override;

public Q_SLOTS:
    void chooseText();

protected:
    void setAxes(bool narrow) override;
    QString cellText(Index token, Index channel) const override;
    void rebuildReadout() override;
    QString valueName(bool is_signed) const override;

private:
    void buildControls();
    void rebuild();
    void rebuildMaps();
    void rebuildTexts();
    void rebuildList();

    std::shared_ptr<const ActivationPicture> picture_;
    std::shared_ptr<const OtherActivations> other_;
    QString other_name_;
    QString group_;
    QStringList texts_;
    QString file_;
    int tokens_ = 128;
    int stretch_ = 0;
    bool signed_alone_ = false; ///< what isSigned() was before the comparison

    QComboBox* strong_box_ = nullptr;
    QPushButton* text_button_ = nullptr;
    QSpinBox* tokens_box_ = nullptr;
    QSpinBox* stretch_box_ = nullptr;
};

} // namespace rankscope
