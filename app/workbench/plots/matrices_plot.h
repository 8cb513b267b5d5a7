// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/map_plot.h"

#include <QStringList>

#include <array>
#include <memory>

namespace rankscope {

/// A weight and its parts, ready to be drawn; null: there is no such part.
struct LayerMatrices {
    enum Part { Weight, Quantized, LowRank, Residual, k_parts };
    std::array<std::shared_ptr<const MagnitudePyramid>, k_parts> parts;
    bool from_run = false; ///< else Q is nearest rounding to the plan's grid

    const MagnitudePyramid* part(Part which) const
    {
        return parts[which] && !parts[which]->empty() ? parts[which].get() : nullptr;
    }
    static QStringList partIds(); ///< as options name them: "weight" …
};

/// One part of the same layer in another file or run.
struct OtherMatrix {
    LayerMatrices::Part part = LayerMatrices::Weight;
    std::shared_ptr<const MagnitudePyramid> values; ///< null: it has no such part
    std::shared_ptr<const MagnitudePyramid>
        difference; ///< less the first one's; null: other shape, or no part
};

/// W, Q, L·R and W − Q − L·R side by side, outputs downwards and inputs to the right; panning and zooming one
/// moves all. Beside another file or run: one of these parts of A, of B, and B − A.
class MatricesPlot : public MapPlot {
    Q_OBJECT
public:
    explicit MatricesPlot(QWidget* parent = nullptr);

    /// Null matrices empty the view.
    void setMatrices(std::shared_ptr<const LayerMatrices> matrices, const QString& layer);
    /// Null: no comparison.
    void setOther(std::shared_ptr<const OtherMatrix> other, const QString& name);

    /// "part": the one to compare.
    QVariantMap compareOptions() const override;
    void setOptions(const QVariantMap& options) override;
    QString summary() const override;
    QVector<QStringList> table() const override;

protected:
    void setAxes(bool narrow) override;
    QString cellText(Index row, Index col) const override;
    void rebuildReadout() override;
    QString valueName(bool is_signed) const override;

private:
    using Part = LayerMatrices::Part;
    void rebuildMaps();
    void rebuildTitle();
    QString name(Part part) const;

    std::shared_ptr<const LayerMatrices> matrices_;
    std::shared_ptr<const OtherMatrix> other_;
    QString layer_;
    QString other_name_;
    Part compared_ = LayerMatrices::Weight;
    bool signed_alone_ = false; ///< what isSigned() was before the comparison

    QComboBox* part_box_ = nullptr;
};

} // namespace rankscope
