// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/run_model.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/text.h"
#include "core/methods/method.h"

#include <QSet>

#include <algorithm>

namespace rankscope {

namespace {

int alignment(int column)
{
    if (column == RunModel::Device) // beside a right-aligned column it would touch it
        return Qt::AlignCenter;
    const bool number = column >= RunModel::WeightError && column <= RunModel::Seconds;
    return static_cast<int>((number ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
}

} // namespace

RunModel::RunModel(Session& session, QObject* parent) : QAbstractTableModel(parent), session_(session)
{
    connect(&session_, &Session::runChanged, this, &RunModel::rebuild);
    rebuild();
}

void RunModel::rebuild()
{
    beginResetModel();
    results_ = session_.run() ? session_.run()->results() : std::vector<LayerResult>();
    endResetModel();
}

const LayerResult* RunModel::resultAt(int row) const
{
    return row >= 0 && row < rowCount() ? &results_[static_cast<std::size_t>(row)] : nullptr;
}

int RunModel::rowOf(const QString& layer) const
{
    const std::string name = toStd(layer);
    const auto found = std::find_if(results_.begin(), results_.end(),
                                    [&](const LayerResult& result) { return result.layer == name; });
    return found == results_.end() ? -1 : static_cast<int>(found - results_.begin());
}

QString RunModel::summary() const
{
    if (results_.empty() || !session_.model())
        return {};
    double bits = 0.0;
    double weights = 0.0;
    double errors = 0.0;
    const LayerResult* worst = &results_.front();
    QStringList used;
    for (const LayerResult& result : results_) {
        const LinearLayer* layer = session_.model()->find_linear(result.layer);
        const double size = layer ? static_cast<double>(layer->out * layer->in) : 0.0;
        bits += result.bits_per_weight * size;
        weights += size;
        errors += result.quality.relative_activation_error;
        if (result.quality.relative_activation_error > worst->quality.relative_activation_error)
            worst = &result;
        const Method* method = find_method(result.method);
        const QString title = method ? toQString(method->info().title) : toQString(result.method);
        if (!used.contains(title))
            used << title;
    }
    return QStringLiteral("%1 on %2 %3 · %4 bits per weight · mean activation error %5, worst %6 (%7)")
        .arg(used.join(QStringLiteral(", ")))
        .arg(results_.size())
        .arg(results_.size() == 1 ? QStringLiteral("layer") : QStringLiteral("layers"),
             formatMeasured(weights > 0.0 ? bits / weights : 0.0, 3),
             formatMeasured(errors / static_cast<double>(results_.size()), 3),
             formatMeasured(worst->quality.relative_activation_error, 3), toQString(worst->layer));
}

int RunModel::rowCount(const QModelIndex& parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(results_.size());
}

int RunModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : k_columns; }

QVariant RunModel::value(const LayerResult& result, int column) const
{
    switch (column) {
    case WeightError:
        return result.quality.relative_error;
    case ActivationError:
        return result.quality.relative_activation_error;
    case BitsPerWeight:
        return result.bits_per_weight;
    case Seconds:
        return result.seconds;
    default:
        return text(result, column);
    }
}

QString RunModel::text(const LayerResult& result, int column) const
{
    switch (column) {
    case Layer:
        return toQString(result.layer);
    case MethodColumn: {
        const Method* method = find_method(result.method);
        return method ? toQString(method->info().title) : toQString(result.method);
    }
    case Device:
        return toQString(result.backend);
    default:
        return {};
    }
}

QVariant RunModel::data(const QModelIndex& index, int role) const
{
    const LayerResult* result = index.isValid() ? resultAt(index.row()) : nullptr;
    if (!result)
        return {};
    const int column = index.column();
    const bool number = column >= WeightError && column <= Seconds;
    switch (role) {
    case Qt::DisplayRole:
        if (number)
            return formatMeasured(value(*result, column).toDouble(), column == Seconds ? 3 : 4);
        return text(*result, column);
    case Qt::ToolTipRole:
        return number ? formatExact(value(*result, column).toDouble()) : text(*result, column);
    case SortRole:
        return column == Layer ? QVariant(index.row()) : value(*result, column);
    case Qt::TextAlignmentRole:
        return alignment(column);
    default:
        return {};
    }
}

QVariant RunModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (orientation != Qt::Horizontal || section < 0 || section >= k_columns)
        return {};
    static const QStringList titles = {QStringLiteral("Layer"),        QStringLiteral("Method"),
                                       QStringLiteral("Weight error"), QStringLiteral("Activation error"),
                                       QStringLiteral("Bits/weight"),  QStringLiteral("Seconds"),
                                       QStringLiteral("Device")};
    static const QStringList help = {
        QStringLiteral("Linear layer, named as on the command line"),
        QStringLiteral("How the layer was decomposed"),
        QStringLiteral("‖W − Ŵ‖ / ‖W‖"),
        QStringLiteral("‖(W − Ŵ)·H^½‖ / ‖W·H^½‖: the error of the layer's output on the calibration text"),
        QStringLiteral("Exact bits per weight, scales and factors included"),
        QStringLiteral("Wall time of the decomposition"),
        QStringLiteral("What computed it"),
    };
    if (role == Qt::DisplayRole)
        return titles[section];
    if (role == Qt::ToolTipRole)
        return help[section];
    if (role == Qt::TextAlignmentRole)
        return static_cast<int>(
            (section >= WeightError && section <= Seconds ? Qt::AlignRight : Qt::AlignLeft)
            | Qt::AlignVCenter);
    return {};
}

QString perplexityText(const PerplexityResult& result)
{
    const QString value = formatMeasured(result.perplexity);
    return result.standard_error > 0.0
               ? QStringLiteral("%1 ± %2").arg(value, formatMeasured(result.standard_error, 2))
               : value;
}

} // namespace rankscope
