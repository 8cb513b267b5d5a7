// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/plan_model.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "core/methods/method.h"

#include <QPoint>

#include <algorithm>

namespace rankscope {

namespace {

/// The name that changedRow() takes; empty for columns that are not edited.
const char* parameterName(int column)
{
    switch (column) {
    case PlanModel::Include:
        return "include";
    case PlanModel::MethodColumn:
        return "method";
    case PlanModel::Bits:
        return "bits";
    case PlanModel::Group:
        return "group";
    case PlanModel::Rank:
        return "rank";
    case PlanModel::Outliers:
        return "k";
    case PlanModel::Locked:
        return "locked";
    default:
        return "";
    }
}

bool isSwitch(int column) { return column == PlanModel::Include || column == PlanModel::Locked; }

bool isInteger(int column)
{
    return column == PlanModel::Bits || column == PlanModel::Group || column == PlanModel::Rank
           || column == PlanModel::Outliers;
}

bool isEditable(int column) { return *parameterName(column) != '\0'; }

/// The value in the type that the parameter has; nothing when the text is not of that type.
std::optional<ParameterValue> typed(int column, const QVariant& value)
{
    if (isSwitch(column))
        return ParameterValue(value.toBool());
    if (column == PlanModel::MethodColumn)
        return ParameterValue(toStd(value.toString()));
    bool ok = false;
    const qlonglong number = value.toLongLong(&ok);
    return ok ? std::optional(ParameterValue(std::int64_t{number})) : std::nullopt;
}

QString valueText(int column, const QVariant& value)
{
    if (isSwitch(column))
        return value.toBool() ? QStringLiteral("on") : QStringLiteral("off");
    return value.toString();
}

QString methodTitle(const std::string& id)
{
    const Method* method = find_method(id);
    return method ? toQString(method->info().title) : toQString(id);
}

double plannedBytes(const LayerPlan& row, const LinearLayer& layer)
{
    return planned_bits_per_weight(row, layer) * static_cast<double>(layer.out * layer.in) / 8.0;
}

} // namespace

PlanModel::PlanModel(Session& session, QObject* parent) : QAbstractTableModel(parent), session_(session)
{
    connect(&session_, &Session::planChanged, this, &PlanModel::planChanged);
    connect(&session_, &Session::spectraChanged, this, [this](const QString& layer) {
        const int at = rowOf(layer);
        if (at >= 0)
            Q_EMIT dataChanged(index(at, PredictedError), index(at, PredictedError));
        Q_EMIT footerChanged();
    });
    planChanged();
}

void PlanModel::planChanged()
{
    QStringList layers;
    for (const LayerPlan& planned : session_.plan().rows)
        layers << toQString(planned.layer);
    if (layers != layers_) {
        beginResetModel();
        layers_ = layers;
        selected_rows_.clear();
        endResetModel();
    } else if (!layers.isEmpty()) {
        Q_EMIT dataChanged(index(0, 0), index(static_cast<int>(layers.size()) - 1, k_columns - 1));
    }
    Q_EMIT footerChanged();
}

const LayerPlan& PlanModel::row(int number) const
{
    return session_.plan().rows[static_cast<std::size_t>(number)];
}

const LinearLayer* PlanModel::linear(const LayerPlan& planned) const
{
    return session_.model() ? session_.model()->find_linear(planned.layer) : nullptr;
}

QString PlanModel::layerAt(int number) const
{
    return number >= 0 && number < layers_.size() ? layers_[number] : QString();
}

int PlanModel::rowOf(const QString& layer) const { return static_cast<int>(layers_.indexOf(layer)); }

bool PlanModel::setOnRows(const QVector<int>& rows, int column, const QVariant& value)
{
    const char* name = parameterName(column);
    const auto wanted = typed(column, value);
    if (*name == '\0' || rows.isEmpty())
        return false;
    if (!wanted) {
        Q_EMIT refused(QStringLiteral("“%1” is not a whole number").arg(value.toString()));
        return false;
    }
    Plan next = session_.plan();
    int changed_rows = 0;
    std::optional<Error> without; // a row whose method has no such parameter is left alone, unless all are
    for (const int number : rows) {
        if (number < 0 || number >= layers_.size())
            continue;
        LayerPlan& planned = next.rows[static_cast<std::size_t>(number)];
        const LinearLayer* layer = linear(planned);
        if (!layer)
            continue;
        auto changed = changedRow(planned, *layer, name, *wanted);
        if (!changed && isInteger(column) && !rowInteger(planned, name)) {
            without = changed.error();
            continue;
        }
        if (!changed) {
            Q_EMIT refused(toQString(changed.error().sentence()));
            return false;
        }
        planned = std::move(*changed);
        ++changed_rows;
    }
    if (changed_rows == 0) {
        if (without)
            Q_EMIT refused(toQString(without->sentence()));
        return false;
    }
    const QString label = column == Outliers ? QStringLiteral("outliers k") : QString::fromLatin1(name);
    const QString what =
        QStringLiteral("%1 = %2 on %3")
            .arg(label, valueText(column, value),
                 changed_rows == 1 ? layers_[rows.first()] : QStringLiteral("%1 rows").arg(changed_rows));
    session_.editPlan(what, std::move(next));
    Q_EMIT edited(what);
    return true;
}

bool PlanModel::fillDown(QVector<int> rows, int column)
{
    if (rows.size() < 2 || !isEditable(column))
        return false;
    std::sort(rows.begin(), rows.end());
    const QVariant value = editValue(row(rows.first()), column);
    return value.isValid() && setOnRows(rows, column, value);
}

QString PlanModel::footer() const
{
    if (!session_.model() || layers_.isEmpty())
        return {};
    const PlanSize size = planned_size(session_.plan(), *session_.model());
    const auto& rows = session_.plan().rows;
    const auto included =
        std::count_if(rows.begin(), rows.end(), [](const LayerPlan& planned) { return planned.include; });
    if (included == 0)
        return QStringLiteral("No layer is included: nothing would change.");
    return QStringLiteral("%1 bits per weight · %2 instead of %3 · %4 of %5 layers")
        .arg(formatMeasured(size.bits_per_weight), formatBytes(static_cast<qint64>(size.planned_bytes)),
             formatBytes(static_cast<qint64>(size.original_bytes)))
        .arg(included)
        .arg(rows.size());
}

int PlanModel::rowCount(const QModelIndex& parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(layers_.size());
}

int PlanModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : k_columns; }

QString PlanModel::text(const LayerPlan& planned, int column) const
{
    const LinearLayer* layer = linear(planned);
    switch (column) {
    case Layer:
        return toQString(planned.layer);
    case MethodColumn:
        return methodTitle(planned.method);
    case Bits:
    case Group:
    case Rank:
    case Outliers: {
        const auto value = rowInteger(planned, parameterName(column));
        if (!value)
            return noValue();
        if (column == Group && *value <= 0)
            return *value < 0 ? QStringLiteral("matrix") : QStringLiteral("row");
        if (column == Outliers && *value <= 0)
            return QStringLiteral("auto");
        return QString::number(*value);
    }
    case PredictedError: {
        const auto error = session_.predictedError(planned);
        return error ? formatMeasured(*error, 3) : QStringLiteral("~");
    }
    case Size:
        return layer ? formatBytes(static_cast<qint64>(plannedBytes(planned, *layer))) : noValue();
    case BitsPerWeight:
        return layer ? formatMeasured(planned_bits_per_weight(planned, *layer)) : noValue();
    default:
        return {};
    }
}

QVariant PlanModel::editValue(const LayerPlan& planned, int column) const
{
    if (column == Include)
        return planned.include;
    if (column == Locked)
        return planned.locked;
    if (column == MethodColumn)
        return toQString(planned.method);
    const auto value = isInteger(column) ? rowInteger(planned, parameterName(column)) : std::nullopt;
    return value ? QVariant(static_cast<qlonglong>(*value)) : QVariant();
}

QPoint PlanModel::range(const LayerPlan& planned, int column) const
{
    const Method* method = find_method(planned.method);
    const ParameterInfo* info = method ? method->info().find(parameterName(column)) : nullptr;
    const LinearLayer* layer = linear(planned);
    if (!info || !layer)
        return {0, 0};
    double most = info->maximum;
    if (column == Rank)
        most = std::min(most, static_cast<double>(std::min(layer->out, layer->in)));
    else if (column == Outliers)
        most = std::min(most, static_cast<double>(layer->in));
    return {static_cast<int>(std::max(info->minimum, -2e9)), static_cast<int>(std::min(most, 2e9))};
}

QString PlanModel::toolTip(const LayerPlan& planned, int column) const
{
    if (column == PredictedError)
        return session_.predictedError(planned)
                   ? QStringLiteral(
                       "Relative activation error expected of Q + L·R with nearest rounding and this rank: "
                       "exact for plain rounding, an estimate for iterating methods")
                   : QStringLiteral("Not known yet: choose Plan ▸ Measure layers");
    if (column == MethodColumn) {
        const Method* method = find_method(planned.method);
        return method ? toQString(method->info().summary + "\n" + method->info().source) : QString();
    }
    if (isInteger(column)) {
        const Method* method = find_method(planned.method);
        const ParameterInfo* info = method ? method->info().find(parameterName(column)) : nullptr;
        return info ? toQString(info->help)
                    : QStringLiteral("%1 has no such parameter").arg(methodTitle(planned.method));
    }
    return toQString(planned.layer);
}

QVariant PlanModel::data(const QModelIndex& index, int role) const
{
    if (!index.isValid() || index.row() >= layers_.size())
        return {};
    const LayerPlan& planned = row(index.row());
    const int column = index.column();
    switch (role) {
    case Qt::DisplayRole:
        return isSwitch(column) ? QVariant() : QVariant(text(planned, column));
    case Qt::EditRole:
        return editValue(planned, column);
    case Qt::CheckStateRole:
        if (isSwitch(column))
            return static_cast<int>(editValue(planned, column).toBool() ? Qt::Checked : Qt::Unchecked);
        return {};
    case Qt::ToolTipRole:
        return toolTip(planned, column);
    case Qt::AccessibleTextRole:
        return QStringLiteral("%1: %2").arg(headerData(column, Qt::Horizontal).toString(),
                                            isSwitch(column) ? valueText(column, editValue(planned, column))
                                                             : text(planned, column));
    case Qt::TextAlignmentRole:
        return static_cast<int>((column >= Bits && column <= BitsPerWeight ? Qt::AlignRight : Qt::AlignLeft)
                                | Qt::AlignVCenter);
    case ChoicesRole:
    case ChoiceIdsRole: {
        if (column != MethodColumn)
            return {};
        QStringList choices;
        for (const Method* method : methods())
            choices << toQString(role == ChoicesRole ? method->info().title : method->info().id);
        return choices;
    }
    case RangeRole:
        return isInteger(column) ? QVariant(range(planned, column)) : QVariant();
    default:
        return {};
    }
}

bool PlanModel::setData(const QModelIndex& index, const QVariant& value, int role)
{
    if (!index.isValid())
        return false;
    const int column = index.column();
    const bool right_role =
        isSwitch(column) ? role == Qt::CheckStateRole || role == Qt::EditRole : role == Qt::EditRole;
    if (!right_role)
        return false;
    QVector<int> rows = {index.row()};
    if (selected_rows_.contains(index.row()))
        rows = selected_rows_;
    return setOnRows(rows, column, isSwitch(column) ? QVariant(value.toInt() != 0) : value);
}

Qt::ItemFlags PlanModel::flags(const QModelIndex& index) const
{
    Qt::ItemFlags result = QAbstractTableModel::flags(index);
    if (!index.isValid())
        return result;
    if (isSwitch(index.column()))
        return result | Qt::ItemIsUserCheckable;
    const bool has = index.column() == MethodColumn || editValue(row(index.row()), index.column()).isValid();
    return isEditable(index.column()) && has ? result | Qt::ItemIsEditable : result;
}

QVariant PlanModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (orientation != Qt::Horizontal || section < 0 || section >= k_columns)
        return {};
    static const QStringList titles = {
        QStringLiteral("On"),     QStringLiteral("Lock"),       QStringLiteral("Layer"),
        QStringLiteral("Method"), QStringLiteral("Bits"),       QStringLiteral("Group"),
        QStringLiteral("Rank"),   QStringLiteral("k"),          QStringLiteral("Predicted error"),
        QStringLiteral("Size"),   QStringLiteral("Bits/weight")};
    static const QStringList help = {
        QStringLiteral("Included: an excluded layer keeps its weight"),
        QStringLiteral("Locked: presets leave the row as it is"),
        QStringLiteral("Linear layer, named as on the command line"),
        QStringLiteral("How the layer is decomposed"),
        QStringLiteral("Bits of each code of Q"),
        QStringLiteral("Inputs that share one scale"),
        QStringLiteral("Rank of L·R; drag the cursor of the Spectrum view to choose it"),
        QStringLiteral("Outlier channels that the start of ODLRI takes out"),
        QStringLiteral("Relative activation error expected with plain rounding, ~ when not measured"),
        QStringLiteral("Bytes of the layer after compression, scales and factors included"),
        QStringLiteral("Exact bits per weight, scales and factors included"),
    };
    if (role == Qt::DisplayRole)
        return titles[section];
    if (role == Qt::ToolTipRole)
        return help[section];
    if (role == Qt::TextAlignmentRole)
        return static_cast<int>((section >= Bits && section <= BitsPerWeight ? Qt::AlignRight : Qt::AlignLeft)
                                | Qt::AlignVCenter);
    return {};
}

} // namespace rankscope
