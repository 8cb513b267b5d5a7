// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/session.h"

#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"

#include <QFileInfo>

#include <algorithm>
#include <cmath>

namespace rankscope {

/// The whole plan before and after: some hundred short rows, so that undo is always right and never slow.
class PlanCommand : public QUndoCommand {
public:
    PlanCommand(Session& session, const QString& text, Plan before, Plan after, int merge_key)
        : QUndoCommand(text), session_(session), before_(std::move(before)), after_(std::move(after)),
          merge_key_(merge_key)
    {}
    int id() const override { return merge_key_; }
    void undo() override { session_.applyPlan(before_); }
    void redo() override { session_.applyPlan(after_); }
    bool mergeWith(const QUndoCommand* other) override
    {
        const auto* later = static_cast<const PlanCommand*>(other);
        after_ = later->after_;
        setText(later->text());
        return true;
    }

private:
    Session& session_;
    Plan before_;
    Plan after_;
    int merge_key_;
};

namespace {

QString gridKey(const QString& layer, const UniformGrid& grid, const QString& calibration)
{
    return QStringLiteral("%1|%2|%3|%4|%5")
        .arg(layer)
        .arg(grid.bits)
        .arg(static_cast<qlonglong>(grid.group))
        .arg(grid.symmetric ? 1 : 0)
        .arg(calibration);
}

} // namespace

Session::Session(QObject* parent) : QObject(parent) {}

void Session::open(OpenedModel opened)
{
    opened_ = std::move(opened);
    plan_ = {};
    undo_.clear();
    spectra_.clear();
    evaluation_.reset();
    comparison_.reset();
    differences_.clear();
    history_.clear();
    position_ = -1;
    selection_ = {};
    Q_EMIT modelChanged();
    Q_EMIT comparisonChanged();
    Q_EMIT projectChanged();
    Q_EMIT calibrationChanged();
    Q_EMIT planChanged();
    Q_EMIT runChanged();
    Q_EMIT evaluationChanged();
    Q_EMIT selectionChanged(selection_);
}

void Session::close() { open({}); }

void Session::setProject(const QString& file, std::shared_ptr<const Project> project)
{
    opened_.project_file = file;
    opened_.project = std::move(project);
    Q_EMIT projectChanged();
}

QString Session::title() const
{
    if (!opened_.model)
        return {};
    if (!opened_.project_file.isEmpty())
        return QFileInfo(opened_.project_file).fileName().section(QStringLiteral(".rankscope.json"), 0, 0);
    if (opened_.sample)
        return QStringLiteral("Sample model (stories260k)");
    const QString path = pathText(opened_.model->path());
    const QString name = path.section(QLatin1Char('/'), -1, -1, QString::SectionSkipEmpty);
    return name.isEmpty() ? path : name;
}

void Session::setCalibration(std::shared_ptr<const CalibrationStore> calibration, InputFiguresByGroup figures)
{
    opened_.calibration = std::move(calibration);
    opened_.figures = std::move(figures);
    plan_.calibration_id = opened_.calibration ? opened_.calibration->id() : std::string();
    Q_EMIT calibrationChanged();
    Q_EMIT planChanged();
}

std::optional<InputFigures> Session::figures(const QString& layer) const
{
    if (!opened_.model || opened_.figures.isEmpty())
        return std::nullopt;
    const LinearLayer* linear = opened_.model->find_linear(toStd(layer));
    if (!linear)
        return std::nullopt;
    const auto found = opened_.figures.constFind(toQString(linear->input_group));
    return found == opened_.figures.constEnd() ? std::nullopt : std::optional(*found);
}

const LayerPlan* Session::planRow(const QString& layer) const { return plan_.find(toStd(layer)); }

void Session::resetPlan(Plan plan)
{
    undo_.clear();
    applyPlan(plan);
}

void Session::editPlan(const QString& text, Plan next, int merge_key)
{
    if (next.rows == plan_.rows)
        return;
    undo_.push(new PlanCommand(*this, text, plan_, std::move(next), merge_key));
}

void Session::applyPlan(const Plan& plan)
{
    plan_ = plan;
    // Undo must not bring back a calibration that is no longer the one in use.
    plan_.calibration_id = opened_.calibration ? opened_.calibration->id() : std::string();
    Q_EMIT planChanged();
}

Status Session::setRank(const QString& layer, int rank)
{
    if (!opened_.model)
        return usage_error("No checkpoint is open");
    const std::string name = toStd(layer);
    const LinearLayer* linear = opened_.model->find_linear(name);
    Plan next = plan_;
    const auto row = std::find_if(next.rows.begin(), next.rows.end(),
                                  [&](const LayerPlan& candidate) { return candidate.layer == name; });
    if (!linear || row == next.rows.end())
        return usage_error("This layer is not in the plan", name);
    auto changed = changedRow(*row, *linear, "rank", std::int64_t{rank});
    if (!changed)
        return changed.error();
    *row = std::move(*changed);
    editPlan(QStringLiteral("rank = %1 on %2").arg(rank).arg(layer), std::move(next), drag_);
    return {};
}

void Session::endRankDrag() { ++drag_; }

std::optional<int> Session::rank(const QString& layer) const
{
    const LayerPlan* row = planRow(layer);
    const auto value = row ? rowInteger(*row, "rank") : std::nullopt;
    return value ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

QString Session::spectrumKey(const QString& layer) const
{
    const LayerPlan* row = planRow(layer);
    const QString calibration = opened_.calibration ? toQString(opened_.calibration->id()) : QString();
    return gridKey(layer, row ? rowGrid(*row) : UniformGrid{}, calibration);
}

void Session::addSpectrum(const QString& key, std::shared_ptr<const LayerSpectrum> spectrum)
{
    spectra_.insert(key, std::move(spectrum));
    Q_EMIT spectraChanged(key.section(QLatin1Char('|'), 0, 0));
}

std::shared_ptr<const LayerSpectrum> Session::spectrum(const QString& layer) const
{
    return spectra_.value(spectrumKey(layer));
}

std::optional<double> Session::predictedError(const LayerPlan& row) const
{
    const QString calibration = opened_.calibration ? toQString(opened_.calibration->id()) : QString();
    const auto known = spectra_.value(gridKey(toQString(row.layer), rowGrid(row), calibration));
    if (!known)
        return std::nullopt;
    const auto rank = rowInteger(row, "rank").value_or(0);
    const double error = known->predicted_error(std::min<Index>(rank, known->weight.size()));
    return std::isfinite(error) ? std::optional(error) : std::nullopt;
}

void Session::setRun(std::shared_ptr<const Run> run)
{
    opened_.run = std::move(run);
    evaluation_.reset();
    Q_EMIT runChanged();
    Q_EMIT evaluationChanged();
}

void Session::setEvaluation(std::optional<Evaluation> evaluation)
{
    evaluation_ = std::move(evaluation);
    Q_EMIT evaluationChanged();
}

void Session::setComparison(std::shared_ptr<const Comparison> comparison)
{
    comparison_ = std::move(comparison);
    differences_.clear();
    Q_EMIT comparisonChanged();
}

void Session::addDifference(const QString& layer, double difference)
{
    differences_.insert(layer, difference);
    Q_EMIT differencesChanged();
}

std::optional<double> Session::difference(const QString& layer) const
{
    const auto found = differences_.constFind(layer);
    return found == differences_.constEnd() ? std::nullopt : std::optional(*found);
}

void Session::selectTensor(const QString& tensor)
{
    QString layer = tensor;
    if (layer.endsWith(QLatin1String(".weight")))
        layer.chop(7);
    const bool linear = opened_.model && opened_.model->find_linear(toStd(layer)) != nullptr;
    select({tensor, linear ? layer : QString(), -1}, true);
}

void Session::selectLayer(const QString& layer) { selectTensor(layer + QStringLiteral(".weight")); }

void Session::selectChannel(int channel)
{
    Selection next = selection_;
    next.channel = channel;
    select(next, false);
}

void Session::selectNeighbour(int step)
{
    if (!opened_.model || opened_.model->linears().empty())
        return;
    const auto& linears = opened_.model->linears();
    const std::string current = toStd(selection_.layer);
    const auto found = std::find_if(linears.begin(), linears.end(),
                                    [&](const LinearLayer& layer) { return layer.name == current; });
    qsizetype index = found == linears.end() ? (step > 0 ? 0 : static_cast<qsizetype>(linears.size()) - 1)
                                             : std::distance(linears.begin(), found) + step;
    index = std::clamp<qsizetype>(index, 0, static_cast<qsizetype>(linears.size()) - 1);
    selectLayer(toQString(linears[static_cast<std::size_t>(index)].name));
}

void Session::goBack()
{
    if (canGoBack())
        select(history_[--position_], false);
}

void Session::goForward()
{
    if (canGoForward())
        select(history_[++position_], false);
}

void Session::select(const Selection& selection, bool remember)
{
    if (selection == selection_)
        return;
    endRankDrag();
    selection_ = selection;
    if (remember) {
        history_.resize(position_ + 1);
        history_.append(selection);
        position_ = history_.size() - 1;
    }
    Q_EMIT selectionChanged(selection_);
}

} // namespace rankscope
