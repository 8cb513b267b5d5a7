// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/budget_bar.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/text.h"
#include "core/plan/plan_budget.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QLocale>
#include <QSignalBlocker>
#include <QSlider>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr int k_positions = 1000;
constexpr Index k_rank_options = 32;  // of the widest layer
constexpr Index k_highest_rank = 512; // beyond it a low-rank part is no longer low

/// Steps that give the widest layer so many options, and a small model's layers all ranks they have.
RankAllotment::Ranks ranksFor(const Model& model)
{
    Index widest = 1;
    for (const LinearLayer& layer : model.linears())
        widest = std::max(widest, std::min(layer.out, layer.in));
    const Index highest = std::min(widest, std::clamp<Index>(widest / 4, 64, k_highest_rank));
    return {std::max<Index>(1, highest / k_rank_options), highest};
}

QString outcomeText(double mean, double worst)
{
    return QStringLiteral("predicted error %1, worst layer %2").arg(formatNumber(mean, 3), formatNumber(worst, 3));
}

} // namespace

BudgetBar::BudgetBar(Session& session, QWidget* parent)
    : QWidget(parent), session_(session), slider_(new QSlider(Qt::Horizontal)), target_(new QLineEdit),
      outcome_(new QLabel)
{
    buildLayout();
    settle_.setSingleShot(true);
    settle_.setInterval(200);
    release_.setSingleShot(true);
    release_.setInterval(300);
    connect(&settle_, &QTimer::timeout, this, &BudgetBar::refresh);
    connect(&release_, &QTimer::timeout, this, [this] {
        if (!slider_->isSliderDown())
            finishDrag();
    });
    connect(slider_, &QSlider::valueChanged, this, &BudgetBar::dragged);
    connect(slider_, &QSlider::sliderReleased, this, &BudgetBar::finishDrag);
    connect(target_, &QLineEdit::returnPressed, this, &BudgetBar::takeTarget);
    connect(&session_, &Session::planChanged, this, &BudgetBar::planChanged);
    connect(&session_, &Session::spectraChanged, &settle_, qOverload<>(&QTimer::start));
    refresh();
}

void BudgetBar::buildLayout()
{
    auto* layout = new QHBoxLayout(this);
    layout->setContentsMargins(8, 0, 8, 4);
    layout->setSpacing(8);
    auto* label = new QLabel(QStringLiteral("Bud&get"));
    label->setBuddy(slider_);
    slider_->setObjectName(QStringLiteral("plan_budget"));
    slider_->setAccessibleName(QStringLiteral("Budget of the whole plan"));
    slider_->setRange(0, k_positions);
    slider_->setSingleStep(k_positions / 100);
    slider_->setPageStep(k_positions / 20);
    target_->setObjectName(QStringLiteral("plan_budget_target"));
    target_->setAccessibleName(QStringLiteral("Budget as text"));
    target_->setFixedWidth(target_->fontMetrics().horizontalAdvance(QStringLiteral("0000.0 MB 00")));
    target_->setToolTip(QStringLiteral("Bits per weight such as 2.4bpw, or a size such as 60MB"));
    outcome_->setObjectName(QStringLiteral("plan_budget_outcome"));
    // As wide as it gets: else the slider would change its length under the hand that drags it.
    outcome_->setMinimumWidth(outcome_->fontMetrics().horizontalAdvance(outcomeText(0.0004444, 0.0004444)));
    outcome_->setTextInteractionFlags(Qt::TextSelectableByMouse);
    outcome_->setToolTip(
        QStringLiteral("Root mean square, and the largest, of the layers' predicted relative activation "
                       "errors: nearest rounding and the best correction of each rank"));
    layout->addWidget(label);
    layout->addWidget(slider_, 1);
    layout->addWidget(target_);
    layout->addWidget(outcome_);
}

QString BudgetBar::outcome() const { return outcome_->text(); }

std::uint64_t BudgetBar::bytesAt(int position) const
{
    const double share = static_cast<double>(position) / k_positions;
    const double range = static_cast<double>(allotment_->most_bytes() - allotment_->least_bytes());
    return allotment_->least_bytes() + static_cast<std::uint64_t>(share * range);
}

void BudgetBar::planChanged()
{
    if (taking_) // our own ranks
        return;
    showPlan();
    settle_.start();
}

void BudgetBar::refresh()
{
    if (slider_->isSliderDown() || release_.isActive()) // finishDrag() comes here again
        return;
    makeOptions();
    showPlan();
}

void BudgetBar::makeOptions()
{
    settle_.stop();
    allotment_.reset();
    QString why = QStringLiteral("Open a checkpoint first");
    if (session_.model()) {
        std::vector<std::shared_ptr<const LayerSpectrum>> spectra;
        for (const LayerPlan& row : session_.plan().rows)
            spectra.push_back(session_.spectrum(toQString(row.layer)));
        auto made =
            RankAllotment::make(session_.plan(), *session_.model(), spectra, ranksFor(*session_.model()));
        if (made)
            allotment_.emplace(std::move(*made));
        else
            why = toQString(made.error().sentence());
    }
    slider_->setEnabled(allotment_.has_value());
    target_->setEnabled(allotment_.has_value());
    slider_->setToolTip(allotment_
                            ? QStringLiteral("Ranks are spent where the predicted error falls most; %1 of %2 "
                                             "layers may change, the others are locked, not measured or have "
                                             "no rank")
                                  .arg(allotment_->free_rows())
                                  .arg(allotment_->rows())
                            : why);
}

/// Where the plan lies between the least and the most that its rows can take.
void BudgetBar::showPlan()
{
    if (!session_.model() || session_.plan().rows.empty()) {
        target_->clear();
        outcome_->clear();
        return;
    }
    const PlanSize size = planned_size(session_.plan(), *session_.model());
    target_->setText(QStringLiteral("%1bpw").arg(formatNumber(size.bits_per_weight, 3)));
    if (!allotment_) {
        outcome_->setText(QStringLiteral("not measured yet"));
        return;
    }
    const double range = static_cast<double>(allotment_->most_bytes() - allotment_->least_bytes());
    const double above =
        static_cast<double>(size.planned_bytes) - static_cast<double>(allotment_->least_bytes());
    const QSignalBlocker quiet(slider_);
    slider_->setValue(range > 0.0 ? static_cast<int>(above / range * k_positions) : 0);
    double sum = 0.0;
    double worst = 0.0;
    int known = 0;
    for (const LayerPlan& row : session_.plan().rows) {
        const auto error = row.include ? session_.predictedError(row) : std::nullopt;
        if (!error)
            continue;
        sum += *error * *error;
        worst = std::max(worst, *error);
        ++known;
    }
    RankAllotment::Choice now;
    now.mean_error = known > 0 ? std::sqrt(sum / known) : 0.0;
    now.worst_error = worst;
    showOutcome(now);
}

void BudgetBar::showOutcome(const RankAllotment::Choice& choice)
{
    outcome_->setText(outcomeText(choice.mean_error, choice.worst_error));
}

void BudgetBar::dragged(int position)
{
    if (settle_.isActive()) // the plan was edited a moment ago
        makeOptions();
    if (allotment_)
        take(bytesAt(position), false);
    release_.start();
}

void BudgetBar::finishDrag()
{
    release_.stop();
    if (allotment_ && take(bytesAt(slider_->value()), true))
        Q_EMIT edited(QStringLiteral("ranks for %1").arg(target_->text()));
    session_.endRankDrag();
    settle_.start();
}

void BudgetBar::takeTarget()
{
    if (settle_.isActive())
        makeOptions();
    if (!allotment_)
        return;
    QString typed = target_->text().remove(QLatin1Char(' '));
    if (QLocale().decimalPoint() == QLatin1String(",")) // whose keyboard has a comma for it
        typed.replace(QLatin1Char(','), QLatin1Char('.'));
    const auto budget = parse_budget(toStd(typed));
    if (!budget) {
        Q_EMIT refused(toQString(budget.error().sentence()));
        return;
    }
    session_.endRankDrag();
    const std::uint64_t bytes = budget_bytes(*budget, session_.plan(), *session_.model());
    if (take(bytes, true))
        Q_EMIT edited(QStringLiteral("ranks for %1").arg(target_->text()));
    session_.endRankDrag();
    settle_.start();
}

bool BudgetBar::take(std::uint64_t bytes, bool exact)
{
    const auto choice = allotment_->at(bytes, exact);
    if (!choice) {
        Q_EMIT refused(toQString(choice.error().sentence()));
        return false;
    }
    taking_ = true;
    session_.editPlan(QStringLiteral("ranks for a budget"), choice->plan, session_.dragKey());
    taking_ = false;
    const PlanSize size = planned_size(session_.plan(), *session_.model());
    target_->setText(QStringLiteral("%1bpw").arg(formatNumber(size.bits_per_weight, 3)));
    showOutcome(*choice);
    return true;
}

} // namespace rankscope
