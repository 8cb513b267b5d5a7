// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/session.h"

#include <QAbstractTableModel>

#include <vector>

namespace rankscope {

/// Finished layers of the current run.
class RunModel : public QAbstractTableModel {
    Q_OBJECT

public:
    enum Column {
        Layer,
        MethodColumn,
        WeightError,
        ActivationError,
        BitsPerWeight,
        Seconds,
        Device,
        k_columns
    };
    enum Roles { SortRole = Qt::UserRole + 1 };

    explicit RunModel(Session& session, QObject* parent = nullptr);

    const LayerResult* resultAt(int row) const;
    int rowOf(const QString& layer) const;
    /// "ODLRI on 35 layers · 3.12 bits per weight · mean activation error 0.0812, worst 0.142 (…down_proj)".
    QString summary() const;

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

private:
    void rebuild();
    QString text(const LayerResult& result, int column) const;
    QVariant value(const LayerResult& result, int column) const;

    Session& session_;
    std::vector<LayerResult> results_;
};

/// "12.34 ± 0.12", or without ± when it is not known.
QString perplexityText(const PerplexityResult& result);

} // namespace rankscope
