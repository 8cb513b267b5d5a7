// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/comparer.h"

#include "app/workbench/text.h"
#include "core/evaluate/weight_comparison.h"

namespace rankscope {

namespace {

using Shared = std::shared_ptr<const Comparison>;

} // namespace

Comparer::Comparer(Session& session, JobRunner& runner, QObject* parent)
    : QObject(parent), session_(session), runner_(runner)
{
    connect(&session_, &Session::modelChanged, this, [this] {
        runner_.cancel(opening_);
        runner_.cancel(measuring_);
    });
}

void Comparer::start(const QString& path)
{
    if (!session_.model())
        return;
    runner_.cancel(opening_);
    opening_ = runner_.start<Shared>(
        {QStringLiteral("Compare with %1").arg(path), JobLane::View, true}, this,
        [path, model = session_.model(),
         calibration = session_.calibration()](JobMonitor&) -> Result<Shared> {
            auto side = openOtherSide(path, *model, calibration);
            if (!side)
                return side.error();
            auto matching = match_tensors(*model, *side->model);
            if (matching.pairs.empty())
                return bad_input("None of its tensors has a partner in the open checkpoint", toStd(path),
                                 "Compare checkpoints of one model, or a run with its checkpoint");
            return Shared(std::make_shared<Comparison>(Comparison{std::move(*side), std::move(matching)}));
        },
        [this, model = session_.model()](const Result<Shared>& answer) {
            if (session_.model() != model)
                return;
            if (answer)
                accept(*answer);
            else if (answer.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(answer.error());
        });
}

void Comparer::startWithRun()
{
    if (session_.run())
        start(pathText(session_.run()->path()));
}

void Comparer::stop()
{
    runner_.cancel(opening_);
    runner_.cancel(measuring_);
    if (session_.comparison())
        session_.setComparison(nullptr);
}

void Comparer::accept(const Shared& comparison)
{
    runner_.cancel(measuring_);
    session_.setComparison(comparison);
    const auto alone = comparison->matching.only_first.size() + comparison->matching.only_second.size();
    Q_EMIT message(
        QStringLiteral("A: %1, B: %2. %3")
            .arg(session_.title(), comparison->other.name,
                 alone == 0 ? QStringLiteral("All tensors have a partner")
                            : QStringLiteral("%1 tensors without a partner are listed on top").arg(alone)));
    measure();
}

void Comparer::measure()
{
    const Shared comparison = session_.comparison();
    using Nothing = bool;
    measuring_ = runner_.start<Nothing>(
        {QStringLiteral("Differences to %1").arg(comparison->other.name), JobLane::View, true}, this,
        [this, comparison, model = session_.model()](JobMonitor& monitor) -> Result<Nothing> {
            std::uint64_t done = 0;
            for (const LinearLayer& layer : model->linears()) {
                monitor.throw_if_cancelled();
                monitor.report(done++, model->linears().size(), "layer");
                const LinearLayer* partner =
                    partner_layer(comparison->matching, *comparison->other.model, layer);
                if (!partner || partner->out != layer.out || partner->in != layer.in)
                    continue;
                const auto first = model->weight(layer);
                if (!first)
                    return first.error();
                const auto second = comparison->other.weight(*partner);
                if (!second)
                    return second.error();
                // Handed over one by one: the table fills while the rest is measured.
                QMetaObject::invokeMethod(
                    this,
                    [this, comparison, name = toQString(layer.name),
                     difference = relative_difference(*first, *second)] {
                        if (session_.comparison() == comparison)
                            session_.addDifference(name, difference);
                    },
                    Qt::QueuedConnection);
            }
            return true;
        },
        [this](const Result<Nothing>& answer) {
            if (!answer && answer.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(answer.error());
        });
}

} // namespace rankscope
