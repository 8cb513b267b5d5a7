// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/layer_table_model.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "core/methods/method.h"

#include <QRegularExpression>

#include <algorithm>
#include <cmath>

namespace rankscope {

namespace {

// internalId of an index: 0 for the top level, else the number of the parent group plus one.
constexpr quintptr k_top = 0;

QString shapeText(const Shape& shape)
{
    QStringList sides;
    for (const auto side : shape)
        sides << QString::number(side);
    return sides.isEmpty() ? QStringLiteral("scalar") : sides.join(QStringLiteral(" × "));
}

QString roleOf(const Model& model, const QString& tensor)
{
    QString layer = tensor;
    if (layer.endsWith(QLatin1String(".weight")))
        layer.chop(7);
    if (const LinearLayer* linear = model.find_linear(toStd(layer)))
        return toQString(short_name(linear->role));
    const std::string name = toStd(tensor);
    if (name == model.architecture().embedding())
        return QStringLiteral("embed");
    if (name == model.architecture().head())
        return QStringLiteral("head");
    return tensor.contains(QLatin1String("norm")) ? QStringLiteral("norm") : QString();
}

/// layers.2 before layers.10: a run of digits compares as a number.
bool naturallyBefore(std::string_view a, std::string_view b)
{
    const auto digits = [](std::string_view text) {
        const auto end = std::find_if(text.begin(), text.end(), [](char c) { return c < '0' || c > '9'; });
        return static_cast<std::size_t>(end - text.begin());
    };
    while (!a.empty() && !b.empty()) {
        const std::size_t digits_a = digits(a);
        const std::size_t digits_b = digits(b);
        const bool numbers = digits_a > 0 && digits_b > 0;
        if (numbers && digits_a != digits_b)
            return digits_a < digits_b;
        const std::size_t length = numbers ? digits_a : 1;
        if (const int order = a.substr(0, length).compare(b.substr(0, length)); order != 0)
            return order < 0;
        a.remove_prefix(length);
        b.remove_prefix(length);
    }
    return a.size() < b.size();
}

int alignment(int column)
{
    if (column == LayerTableModel::Type) // beside a right-aligned column it would touch it
        return Qt::AlignCenter;
    const bool number = column == LayerTableModel::Size || column == LayerTableModel::Crest
                        || column == LayerTableModel::Kurtosis || column == LayerTableModel::Done
                        || column == LayerTableModel::ShapeColumn || column >= LayerTableModel::OtherSize;
    return static_cast<int>((number ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
}

} // namespace

LayerTableModel::LayerTableModel(Session& session, QObject* parent)
    : QAbstractItemModel(parent), session_(session)
{
    connect(&session_, &Session::modelChanged, this, &LayerTableModel::rebuild);
    connect(&session_, &Session::comparisonChanged, this, &LayerTableModel::rebuild);
    connect(&session_, &Session::differencesChanged, this, [this] { refreshColumns(Difference, Difference); });
    connect(&session_, &Session::calibrationChanged, this, &LayerTableModel::refreshFigures);
    connect(&session_, &Session::planChanged, this, [this] { refreshColumns(Planned, Planned); });
    connect(&session_, &Session::runChanged, this, [this] {
        readResults();
        refreshColumns(Done, Done);
    });
    rebuild();
}

void LayerTableModel::readResults()
{
    done_.clear();
    if (!session_.run())
        return;
    for (const LayerResult& result : session_.run()->results())
        done_.insert(toQString(result.layer), result.quality.relative_activation_error);
}

void LayerTableModel::rebuild()
{
    beginResetModel();
    tensors_.clear();
    groups_.clear();
    top_.clear();
    by_name_.clear();
    readResults();
    if (session_.model()) {
        std::vector<const TensorInfo*> ordered;
        for (const TensorInfo& info : session_.model()->checkpoint().tensors())
            ordered.push_back(&info);
        std::stable_sort(ordered.begin(), ordered.end(), [](const TensorInfo* a, const TensorInfo* b) {
            return naturallyBefore(a->name, b->name);
        });
        addUnmatched();
        for (const TensorInfo* info : ordered)
            if (!by_name_.contains(toQString(info->name)))
                addTensor(*info);
    }
    endResetModel();
    refreshFigures();
}

LayerTableModel::Tensor LayerTableModel::tensorOf(const Model& model, const TensorInfo& info) const
{
    Tensor tensor;
    tensor.facts.name = toQString(info.name);
    tensor.facts.role = roleOf(model, tensor.facts.name);
    tensor.facts.dtype = toQString(info.type_name());
    tensor.shape = shapeText(info.shape);
    tensor.elements = element_count(info.shape);
    tensor.bytes = info.bytes;
    return tensor;
}

/// A group on top of the list: tensors of either side that the other one has not.
void LayerTableModel::addUnmatched()
{
    const auto& comparison = session_.comparison();
    if (!comparison || comparison->matching.only_first.size() + comparison->matching.only_second.size() == 0)
        return;
    top_.append({true, 0});
    groups_.append({QStringLiteral("Without a partner"), {}, 0, 0});
    const auto add = [this](const Model& model, const std::vector<std::string>& names, bool other) {
        for (const std::string& name : names) {
            const TensorInfo* info = model.checkpoint().find(name);
            if (!info)
                continue;
            Tensor tensor = tensorOf(model, *info);
            tensor.other = other;
            tensor.label = (other ? QStringLiteral("B: %1") : QStringLiteral("A: %1")).arg(tensor.facts.name);
            tensor.group = 0;
            tensor.position = static_cast<int>(groups_.first().tensors.size());
            groups_.first().tensors.append(static_cast<int>(tensors_.size()));
            groups_.first().bytes += tensor.bytes;
            if (!other)
                by_name_.insert(tensor.facts.name, static_cast<int>(tensors_.size()));
            tensors_.append(tensor);
        }
    };
    add(*session_.model(), comparison->matching.only_first, false);
    add(*comparison->other.model, comparison->matching.only_second, true);
}

void LayerTableModel::addTensor(const TensorInfo& info)
{
    static const QRegularExpression block(QStringLiteral("^(.*?\\.(\\d+))\\.(.+)$"));
    Tensor tensor = tensorOf(*session_.model(), info);
    QString layer = tensor.facts.name;
    if (layer.endsWith(QLatin1String(".weight")))
        layer.chop(7);
    if (session_.model()->find_linear(toStd(layer)))
        tensor.layer = layer;
    if (const auto& comparison = session_.comparison()) {
        const TensorInfo* partner =
            comparison->other.model->checkpoint().find(comparison->matching.partner(info.name));
        tensor.other_bytes = partner ? partner->bytes : 0;
    }

    tensor.label = tensor.facts.name;
    const auto match = block.match(tensor.facts.name);
    if (match.hasMatch()) {
        const QString group_name = match.captured(1);
        tensor.facts.block = match.captured(2).toInt();
        tensor.label = match.captured(3);
        if (groups_.isEmpty() || groups_.last().name != group_name) {
            top_.append({true, static_cast<int>(groups_.size())});
            groups_.append({group_name, {}, 0, static_cast<int>(top_.size()) - 1});
        }
        tensor.group = static_cast<int>(groups_.size()) - 1;
        tensor.position = static_cast<int>(groups_.last().tensors.size());
        groups_.last().tensors.append(static_cast<int>(tensors_.size()));
        groups_.last().bytes += tensor.bytes;
    } else {
        tensor.position = static_cast<int>(top_.size());
        top_.append({false, static_cast<int>(tensors_.size())});
    }
    if (tensor.label.endsWith(QLatin1String(".weight")))
        tensor.label.chop(7);
    by_name_.insert(tensor.facts.name, static_cast<int>(tensors_.size()));
    tensors_.append(tensor);
}

void LayerTableModel::refreshFigures()
{
    for (Tensor& tensor : tensors_) {
        const auto figures = tensor.layer.isEmpty() ? std::nullopt : session_.figures(tensor.layer);
        tensor.facts.crest = figures ? figures->crest : std::numeric_limits<double>::quiet_NaN();
        tensor.facts.kurtosis = figures ? figures->kurtosis : std::numeric_limits<double>::quiet_NaN();
    }
    refreshColumns(Crest, Kurtosis);
}

void LayerTableModel::refreshColumns(int first, int last)
{
    if (top_.isEmpty())
        return;
    Q_EMIT dataChanged(index(0, first), index(static_cast<int>(top_.size()) - 1, last));
    for (const Group& group : std::as_const(groups_)) {
        const QModelIndex parent = index(group.position, 0);
        Q_EMIT dataChanged(index(0, first, parent),
                           index(static_cast<int>(group.tensors.size()) - 1, last, parent));
    }
}

QModelIndex LayerTableModel::indexOf(const QString& tensor) const
{
    const auto found = by_name_.constFind(tensor);
    if (found == by_name_.constEnd())
        return {};
    const Tensor& row = tensors_[*found];
    return row.group < 0 ? createIndex(row.position, 0, k_top)
                         : createIndex(row.position, 0, static_cast<quintptr>(row.group) + 1);
}

const TensorFacts* LayerTableModel::facts(const QModelIndex& index) const
{
    if (!index.isValid())
        return nullptr;
    if (index.internalId() != k_top) {
        const Group& group = groups_[static_cast<qsizetype>(index.internalId()) - 1];
        return &tensors_[group.tensors[index.row()]].facts;
    }
    const Top& top = top_[index.row()];
    return top.group ? nullptr : &tensors_[top.index].facts;
}

QModelIndex LayerTableModel::index(int row, int column, const QModelIndex& parent) const
{
    if (!hasIndex(row, column, parent))
        return {};
    if (!parent.isValid())
        return createIndex(row, column, k_top);
    return createIndex(row, column, static_cast<quintptr>(top_[parent.row()].index) + 1);
}

QModelIndex LayerTableModel::parent(const QModelIndex& child) const
{
    if (!child.isValid() || child.internalId() == k_top)
        return {};
    return createIndex(groups_[static_cast<qsizetype>(child.internalId()) - 1].position, 0, k_top);
}

int LayerTableModel::rowCount(const QModelIndex& parent) const
{
    if (!parent.isValid())
        return static_cast<int>(top_.size());
    if (parent.column() != 0 || parent.internalId() != k_top || !top_[parent.row()].group)
        return 0;
    return static_cast<int>(groups_[top_[parent.row()].index].tensors.size());
}

int LayerTableModel::columnCount(const QModelIndex&) const { return k_columns; }

QString LayerTableModel::planned(const Tensor& tensor) const
{
    const LayerPlan* row = tensor.layer.isEmpty() ? nullptr : session_.planRow(tensor.layer);
    if (!row)
        return {};
    if (!row->include)
        return QStringLiteral("keep");
    const Method* method = find_method(row->method);
    QString text = method ? toQString(method->info().title) : toQString(row->method);
    if (const auto bits = rowInteger(*row, "bits"))
        text += QStringLiteral(" %1-bit").arg(*bits);
    if (const auto rank = rowInteger(*row, "rank"))
        text += QStringLiteral(" r%1").arg(*rank);
    return text;
}

QVariant LayerTableModel::tensorText(const Tensor& tensor, int column) const
{
    switch (column) {
    case Name:
        return tensor.label;
    case Role:
        return tensor.facts.role;
    case ShapeColumn:
        return tensor.shape;
    case Type:
        return tensor.facts.dtype;
    case Size:
        return formatBytes(static_cast<qint64>(tensor.bytes));
    case Crest:
        return tensor.layer.isEmpty() ? QString() : formatMeasured(tensor.facts.crest, 3);
    case Kurtosis:
        return tensor.layer.isEmpty() ? QString() : formatMeasured(tensor.facts.kurtosis, 3);
    case Planned:
        return planned(tensor);
    case Done:
        return done_.contains(tensor.layer) ? formatMeasured(done_.value(tensor.layer), 3) : QString();
    case OtherSize:
        return tensor.other_bytes > 0 ? formatBytes(static_cast<qint64>(tensor.other_bytes)) : QString();
    case SizeChange: {
        const auto change = static_cast<qint64>(tensor.other_bytes) - static_cast<qint64>(tensor.bytes);
        return tensor.other_bytes == 0 ? QString()
               : change < 0            ? QStringLiteral("−%1").arg(formatBytes(-change))
                                       : QStringLiteral("+%1").arg(formatBytes(change));
    }
    case Difference: {
        const auto known = tensor.layer.isEmpty() ? std::nullopt : session_.difference(tensor.layer);
        return known ? formatMeasured(*known, 3) : QString();
    }
    default:
        return {};
    }
}

QVariant LayerTableModel::groupText(const Group& group, int column) const
{
    switch (column) {
    case Name:
        return group.name;
    case ShapeColumn:
        return QStringLiteral("%1 tensors").arg(group.tensors.size());
    case Size:
        return formatBytes(static_cast<qint64>(group.bytes));
    default:
        return {};
    }
}

QString LayerTableModel::toolTip(const Tensor& tensor, int column) const
{
    switch (column) {
    case Size:
        return QStringLiteral("%1 bytes").arg(formatCount(static_cast<qint64>(tensor.bytes)));
    case ShapeColumn:
        return QStringLiteral("%1 values").arg(formatCount(tensor.elements));
    case Crest:
        return formatExact(tensor.facts.crest);
    case Kurtosis:
        return formatExact(tensor.facts.kurtosis);
    default:
        return tensor.facts.name;
    }
}

QVariant LayerTableModel::sortValue(const QModelIndex& index) const
{
    const int column = index.column();
    const bool nested = index.internalId() != k_top;
    if (!nested && top_[index.row()].group)
        return column == Size ? QVariant(static_cast<qulonglong>(groups_[top_[index.row()].index].bytes))
                              : QVariant(index.row());
    const int number = nested ? groups_[static_cast<qsizetype>(index.internalId()) - 1].tensors[index.row()]
                              : top_[index.row()].index;
    const Tensor& tensor = tensors_[number];
    // NaN sorts below every value, in both directions the same place for all of them.
    const auto measured = [](double value) { return std::isfinite(value) ? value : -1.0; };
    switch (column) {
    case Name:
        return number;
    case ShapeColumn:
        return tensor.elements;
    case Size:
        return static_cast<qulonglong>(tensor.bytes);
    case Crest:
        return measured(tensor.facts.crest);
    case Kurtosis:
        return measured(tensor.facts.kurtosis);
    case Done:
        return done_.value(tensor.layer, -1.0);
    case OtherSize:
        return static_cast<qulonglong>(tensor.other_bytes);
    case SizeChange:
        return static_cast<qlonglong>(tensor.other_bytes) - static_cast<qlonglong>(tensor.bytes);
    case Difference:
        return session_.difference(tensor.layer).value_or(-1.0);
    default:
        return tensorText(tensor, column);
    }
}

QVariant LayerTableModel::data(const QModelIndex& index, int role) const
{
    if (!index.isValid())
        return {};
    const bool nested = index.internalId() != k_top;
    if (role == Qt::TextAlignmentRole)
        return alignment(index.column());
    if (role == SortRole)
        return sortValue(index);
    if (!nested && top_[index.row()].group) {
        const Group& group = groups_[top_[index.row()].index];
        if (role == Qt::DisplayRole)
            return groupText(group, index.column());
        return role == Qt::ToolTipRole ? QVariant(group.name) : QVariant();
    }
    const Tensor& tensor =
        nested ? tensors_[groups_[static_cast<qsizetype>(index.internalId()) - 1].tensors[index.row()]]
               : tensors_[top_[index.row()].index];
    switch (role) {
    case Qt::DisplayRole:
        return tensorText(tensor, index.column());
    case Qt::ToolTipRole:
        return toolTip(tensor, index.column());
    case TensorRole: // one of the other file cannot be selected
        return tensor.other ? QString() : tensor.facts.name;
    default:
        return {};
    }
}

QVariant LayerTableModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (orientation != Qt::Horizontal || section < 0 || section >= k_columns)
        return {};
    static const QStringList titles = {
        QStringLiteral("Name"),     QStringLiteral("Role"),    QStringLiteral("Shape"),
        QStringLiteral("Type"),     QStringLiteral("Size"),    QStringLiteral("Max/RMS"),
        QStringLiteral("Kurtosis"), QStringLiteral("Planned"), QStringLiteral("Result"),
        QStringLiteral("Size of B"), QStringLiteral("Δ size"), QStringLiteral("Δ weights")};
    static const QStringList help = {
        QStringLiteral("Tensor; layers are named as on the command line"),
        QStringLiteral("What the tensor does in its block"),
        QStringLiteral("Outputs × inputs"),
        QStringLiteral("Element type in the file"),
        QStringLiteral("Bytes in the file"),
        QStringLiteral("Largest activation of the layer's input over its RMS; needs calibration"),
        QStringLiteral("Kurtosis of the layer's input, 3 for a Gaussian; needs calibration"),
        QStringLiteral("What the plan does with this layer"),
        QStringLiteral("Relative activation error of the finished layer"),
        QStringLiteral("Bytes of the same tensor in the other file"),
        QStringLiteral("Bytes in the other file less bytes here"),
        QStringLiteral("Relative difference of the weights, ‖A − B‖ / ‖A‖"),
    };
    if (role == Qt::DisplayRole)
        return titles[section];
    if (role == Qt::ToolTipRole)
        return help[section];
    if (role == Qt::TextAlignmentRole)
        return alignment(section);
    return {};
}

LayerFilterModel::LayerFilterModel(LayerTableModel& source, QObject* parent)
    : QSortFilterProxyModel(parent), source_(source)
{
    setSourceModel(&source);
    setRecursiveFilteringEnabled(true);
    setSortRole(LayerTableModel::SortRole);
}

void LayerFilterModel::setFilterText(const QString& text)
{
    filter_ = TensorFilter(text);
    invalidateFilter();
}

bool LayerFilterModel::filterAcceptsRow(int row, const QModelIndex& parent) const
{
    if (filter_.empty())
        return true;
    const TensorFacts* facts = source_.facts(source_.index(row, 0, parent));
    return facts && filter_.matches(*facts);
}

int LayerFilterModel::matches() const
{
    int count = 0;
    for (int row = 0; row < rowCount(); ++row) {
        const QModelIndex top = index(row, 0);
        const int children = rowCount(top);
        count += children > 0 ? children : (source_.facts(mapToSource(top)) ? 1 : 0);
    }
    return count;
}

} // namespace rankscope
