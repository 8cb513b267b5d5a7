// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/view_tabs.h"

#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "core/base/byte_size.h"
#include "core/plan/layer_plan.h"

#include <QEvent>
#include <QJsonDocument>
#include <QJsonObject>
#include <QRegularExpression>

#include <algorithm>

namespace rankscope {

namespace {

constexpr std::uint64_t k_most_kept = std::uint64_t{1} << 30;
constexpr std::uint64_t k_kept_share = 8; ///< of the memory that is free at start: one part

/// Pictures feeds these: their data also belongs to the plan, the inspector and the tree.
bool fedByPictures(const QString& id)
{
    static const QStringList ids = {QStringLiteral("overview"), QStringLiteral("channels"),
                                    QStringLiteral("spectrum")};
    return ids.contains(id);
}

const LinearLayer* firstLayer(const Model* model)
{
    return model && !model->linears().empty() ? &model->linears().front() : nullptr;
}

/// As a POSIX shell reads it back.
QString quoted(const QString& word)
{
    static const QRegularExpression plain(QStringLiteral("^[A-Za-z0-9_./:=,+-]+$"));
    if (plain.match(word).hasMatch())
        return word;
    QString inside = word;
    return QLatin1Char('\'') + inside.replace(QLatin1Char('\''), QLatin1String("'\\''")) + QLatin1Char('\'');
}

bool runHolds(const Run& run, const QString& layer)
{
    const auto results = run.results();
    return std::any_of(results.begin(), results.end(),
                       [name = toStd(layer)](const LayerResult& result) { return result.layer == name; });
}

} // namespace

ViewTabs::ViewTabs(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QWidget* parent)
    : QTabWidget(parent), session_(session), device_(std::move(device)), latest_(runner)
{
    known_.setMaxCost(static_cast<qsizetype>(std::min(k_most_kept, available_memory_bytes() / k_kept_share)));
    setObjectName(QStringLiteral("views"));
    setAccessibleName(QStringLiteral("Views"));
    setDocumentMode(true);
    for (const View* view : views()) {
        const ViewInfo& info = view->info();
        PlotView* plot = view->make();
        plot->setObjectName(info.id + QStringLiteral("_plot"));
        const int tab = addTab(plot, Theme::instance().icon(info.icon), info.title);
        setTabToolTip(tab, info.help);
        pages_.append({view, plot, !fedByPictures(info.id), {}, {}, nullptr});
        plot->installEventFilter(this);
        connect(plot, &PlotView::optionsChanged, this, &ViewTabs::refresh);
    }
    connect(&session_, &Session::modelChanged, this, [this] {
        for (Page& page : pages_) {
            page.shown.clear();
            page.other_shown.clear();
            page.picture.reset();
        }
        known_.clear();
        refresh();
    });
    for (const auto change : {&Session::runChanged, &Session::comparisonChanged})
        connect(&session_, change, this, &ViewTabs::forget); // before refresh()
    for (const auto change : {&Session::calibrationChanged, &Session::planChanged, &Session::runChanged,
                              &Session::comparisonChanged})
        connect(&session_, change, this, &ViewTabs::refresh);
    connect(&session_, &Session::selectionChanged, this, &ViewTabs::refresh);
}

PlotView* ViewTabs::plot(const QString& id) const
{
    const auto page =
        std::find_if(pages_.begin(), pages_.end(), [&id](const Page& p) { return p.view->info().id == id; });
    return page == pages_.end() ? nullptr : page->plot;
}

PlotView* ViewTabs::currentPlot() const { return qobject_cast<PlotView*>(currentWidget()); }

bool ViewTabs::showView(const QString& id)
{
    PlotView* wanted = plot(id);
    if (wanted)
        setCurrentWidget(wanted);
    return wanted != nullptr;
}

const LinearLayer* ViewTabs::selectedLayer() const
{
    return session_.model() ? session_.model()->find_linear(toStd(session_.selection().layer)) : nullptr;
}

bool ViewTabs::eventFilter(QObject* watched, QEvent* event)
{
    if (event->type() == QEvent::Show) {
        const auto page = std::find_if(pages_.begin(), pages_.end(),
                                       [watched](const Page& p) { return p.plot == watched; });
        if (page != pages_.end() && page->fed)
            feed(*page);
        if (page != pages_.end())
            feedOther(*page);
    }
    return QTabWidget::eventFilter(watched, event);
}

void ViewTabs::refresh()
{
    for (Page& page : pages_) {
        page.plot->setCommand(command(page.view->info().id));
        if (page.fed && page.plot->isVisible())
            feed(page);
        if (page.plot->isVisible())
            feedOther(page);
    }
}

QString ViewTabs::keyOf(const Page& page) const
{
    const bool whole = !page.view->info().of_layer;
    const QString layer = session_.selection().layer;
    QString key = whole ? QString() : session_.spectrumKey(layer); // layer, grid, calibration
    if (session_.run() && !whole)
        key += QLatin1Char('|') + pathText(session_.run()->path())
               + QString::number(runHolds(*session_.run(), layer) ? 1 : 0);
    const QJsonObject options = QJsonObject::fromVariantMap(page.plot->options());
    return key + QLatin1Char('|') + QString::fromUtf8(QJsonDocument(options).toJson(QJsonDocument::Compact));
}

ViewRequest ViewTabs::requestFor(const Page& page, const LinearLayer& layer) const
{
    const LayerPlan* row = session_.planRow(toQString(layer.name));
    return {{session_.model(), session_.calibration(), session_.run(), false, session_.title(),
             pathText(session_.model()->path())},
            layer,
            row ? rowGrid(*row) : UniformGrid{},
            page.plot->options(),
            session_.rank(toQString(layer.name)).value_or(0),
            false};
}

void ViewTabs::feed(Page& page)
{
    const QString id = page.view->info().id;
    const LinearLayer* layer = selectedLayer();
    if (!layer) {
        latest_.drop(id);
        page.shown.clear();
        page.picture.reset();
        page.plot->setBusy(false);
        page.view->draw(*page.plot, {}, nullptr);
        const QString tensor = session_.selection().tensor;
        page.plot->showMessage(
            !session_.model() ? QString()
            : tensor.isEmpty()
                ? QStringLiteral("Select a layer in the checkpoint tree.")
                : QStringLiteral("%1 is not a linear layer: choose one of the projections.").arg(tensor));
        return;
    }
    const QString key = keyOf(page);
    if (key == page.shown)
        return;
    page.shown = key;
    page.picture.reset();
    const ViewRequest request = requestFor(page, *layer);
    const QString kept = id + QLatin1Char('|') + key;
    if (const Picture* known = known_.object(kept)) {
        latest_.drop(id);
        draw(page, request, Picture(*known));
        return;
    }
    page.plot->setBusy(true);
    latest_.request<Picture>(
        id,
        {QStringLiteral("%1 of %2").arg(page.view->info().title, toQString(layer->name)), JobLane::View,
         false},
        this,
        [view = page.view, request, device = device_](JobMonitor& monitor) {
            return view->compute(request, *device->cpu(), monitor);
        },
        [this, id, kept, request](const Result<Picture>& answer) {
            for (Page& candidate : pages_) {
                if (candidate.view->info().id != id)
                    continue;
                if (answer)
                    keep(kept, *answer, candidate.view->bytes(*answer));
                draw(candidate, request, answer);
            }
        });
}

/// All but what is drawn, which would not be computed again.
void ViewTabs::forget()
{
    known_.clear();
    for (const Page& page : std::as_const(pages_))
        if (page.picture && !page.shown.isEmpty())
            keep(page.view->info().id + QLatin1Char('|') + page.shown, page.picture,
                 page.view->bytes(page.picture));
}

void ViewTabs::keep(const QString& key, const Picture& picture, std::size_t bytes)
{
    known_.insert(key, new Picture(picture), static_cast<qsizetype>(bytes)); // not, where it is too large
}

void ViewTabs::feedOther(Page& page)
{
    const QString id = page.view->info().id;
    const QString tag = id + QStringLiteral("-other");
    const auto& comparison = session_.comparison();
    const bool whole = !page.view->info().of_layer; // then any layer will do
    const LinearLayer* layer = whole ? firstLayer(session_.model().get()) : selectedLayer();
    const LinearLayer* partner = !comparison || !layer ? nullptr
                                 : whole
                                     ? firstLayer(comparison->other.model.get())
                                     : partner_layer(comparison->matching, *comparison->other.model, *layer);
    const QString name = comparison ? comparison->other.name : QString();
    page.plot->setNote(comparison && layer && !partner
                           ? QStringLiteral("B (%1) has no layer that corresponds to this one").arg(name)
                           : QString());
    if (!partner) {
        latest_.drop(tag);
        page.other_shown.clear();
        page.view->drawOther(*page.plot, name, nullptr);
        return;
    }
    const QJsonObject options = QJsonObject::fromVariantMap(page.plot->compareOptions());
    const QString key = keyOf(page) + QLatin1Char('|') + comparison->other.path + QLatin1Char('|')
                        + QString::fromUtf8(QJsonDocument(options).toJson(QJsonDocument::Compact));
    if (key == page.other_shown)
        return;
    const QString kept = tag + QLatin1Char('|') + key;
    if (const Picture* known = known_.object(kept)) {
        latest_.drop(tag);
        page.other_shown = key;
        page.view->drawOther(*page.plot, name, Picture(*known));
        return;
    }
    page.view->drawOther(*page.plot, name, nullptr); // not that of another layer
    const bool waits = page.fed && page.view->comparesPictures();
    if (waits && !page.picture) { // draw() comes back here
        latest_.drop(tag);
        page.other_shown.clear();
        return;
    }
    page.other_shown = key;
    latest_.request<Picture>(
        tag, {QStringLiteral("%1 of B").arg(page.view->info().title), JobLane::View, whole}, this,
        [view = page.view, sides = sidesFor(page, *layer, *partner), first = page.picture, device = device_](
            JobMonitor& monitor) { return computeOther(*view, sides, first, *device->cpu(), monitor); },
        [this, id, name, kept](const Result<Picture>& answer) {
            for (Page& candidate : pages_) {
                if (candidate.view->info().id != id)
                    continue;
                if (answer)
                    keep(kept, *answer, candidate.view->comparedBytes(*answer));
                candidate.view->drawOther(*candidate.plot, name, answer ? *answer : nullptr);
            }
            if (!answer && answer.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(answer.error());
        });
}

ViewSides ViewTabs::sidesFor(const Page& page, const LinearLayer& layer, const LinearLayer& partner) const
{
    ViewSides sides{requestFor(page, layer), requestFor(page, layer), session_.comparison()->matching};
    sides.second.side = session_.comparison()->other;
    sides.second.layer = partner;
    sides.second.options.insert(page.plot->compareOptions());
    sides.second.second = true;
    return sides;
}

void ViewTabs::draw(Page& page, const ViewRequest& request, const Result<Picture>& answer)
{
    page.plot->setBusy(false);
    if (answer) {
        page.plot->showMessage({});
        page.picture = *answer;
        page.view->draw(*page.plot, request, *answer);
        page.other_shown.clear(); // what lay beside the old picture went with it
        feedOther(page);
        return;
    }
    page.shown.clear();
    page.view->draw(*page.plot, request, nullptr);
    if (answer.error().kind == ErrorKind::Cancelled)
        return;
    page.plot->showMessage(toQString(answer.error().sentence()).toHtmlEscaped());
    Q_EMIT failed(answer.error());
}

QString ViewTabs::command(const QString& id) const
{
    const View* view = findView(id);
    const PlotView* shown = plot(id);
    const LinearLayer* layer = selectedLayer();
    if (!view || !session_.model() || (view->info().of_layer && !layer))
        return {};
    QStringList words = {QStringLiteral("rankscope"), QStringLiteral("--render"), id};
    if (layer && view->info().of_layer) {
        words << QStringLiteral("--layer") << toQString(layer->name);
        if (const LayerPlan* row = session_.planRow(toQString(layer->name)))
            words << QStringLiteral("--set") << toQString(setting_text(*row));
        if (session_.run() && runHolds(*session_.run(), toQString(layer->name)))
            words << QStringLiteral("--with-run") << pathText(session_.run()->path());
    }
    if (session_.calibration())
        words << QStringLiteral("--calibration") << pathText(session_.calibration()->path());
    if (const auto& comparison = session_.comparison(); comparison)
        words << QStringLiteral("--compare") << comparison->other.path;
    QVariantMap options = shown->options();
    if (session_.comparison())
        options.insert(shown->compareOptions());
    for (auto option = options.begin(); option != options.end(); ++option)
        if (option->toString() != QLatin1String("false") && option->toString() != QLatin1String("-1")
            && !option->toString().isEmpty())
            words << QStringLiteral("--option")
                  << QStringLiteral("%1=%2").arg(option.key(), option->toString());
    words << pathText(session_.model()->path()) << QStringLiteral("-o") << id + QStringLiteral(".pdf");
    std::transform(words.begin(), words.end(), words.begin(), quoted);
    return words.join(QLatin1Char(' '));
}

} // namespace rankscope
