// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/results_dock.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/widgets/data_table.h"
#include "app/workbench/widgets/eliding_label.h"
#include "app/workbench/widgets/empty_page.h"
#include "core/methods/method.h"

#include <QGridLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QSortFilterProxyModel>
#include <QSplitter>
#include <QStackedWidget>
#include <QVBoxLayout>

namespace rankscope {

namespace {

QLabel* figure(const QString& name)
{
    auto* label = new QLabel(noValue());
    QFont font = label->font();
    font.setBold(true);
    font.setPointSizeF(font.pointSizeF() * 1.25);
    label->setFont(font);
    label->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    label->setAccessibleName(name);
    return label;
}

QLabel* caption(const QString& text)
{
    auto* label = new QLabel(text);
    label->setForegroundRole(QPalette::PlaceholderText);
    return label;
}

} // namespace

ResultsDock::ResultsDock(Session& session, QWidget* parent)
    : QDockWidget(QStringLiteral("Results"), parent), session_(session), model_(new RunModel(session, this)),
      sorted_(new QSortFilterProxyModel(this)), table_(new DataTable), plot_(new ErrorPlot),
      summary_(new ElidingLabel(QStringLiteral("Summary of the run"))),
      before_(figure(QStringLiteral("Perplexity before"))),
      after_(figure(QStringLiteral("Perplexity after"))),
      how_(new ElidingLabel(QStringLiteral("How perplexity was measured"))),
      evaluate_(new QPushButton(QStringLiteral("Evaluate"))),
      export_(new QPushButton(QStringLiteral("Export…"))), pages_(new QStackedWidget)
{
    setObjectName(QStringLiteral("results_dock"));
    sorted_->setSourceModel(model_);
    sorted_->setSortRole(RunModel::SortRole);
    table_->setObjectName(QStringLiteral("results_table"));
    table_->setAccessibleName(QStringLiteral("Errors of the finished layers"));
    table_->setModel(sorted_);
    table_->setSortingEnabled(true);
    table_->setTextElideMode(Qt::ElideLeft); // the end of a layer's name tells it from the others
    table_->sortByColumn(RunModel::Layer, Qt::AscendingOrder);
    const int widths[RunModel::k_columns] = {190, 64, 92, 112, 84, 64, 56};
    for (int column = 0; column < RunModel::k_columns; ++column)
        table_->setColumnWidth(column, widths[column]);
    table_->horizontalHeader()->setSectionResizeMode(RunModel::Layer, QHeaderView::Stretch);
    plot_->setObjectName(QStringLiteral("error_plot"));
    plot_->setMinimumWidth(265);

    auto* splitter = new QSplitter(Qt::Horizontal);
    splitter->addWidget(table_);
    splitter->addWidget(plot_);
    splitter->setStretchFactor(0, 2);
    splitter->setStretchFactor(1, 1);
    splitter->setChildrenCollapsible(false);

    auto* page = new QWidget;
    auto* layout = new QVBoxLayout(page);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    layout->addWidget(buildHeader());
    layout->addWidget(splitter, 1);

    auto* empty = new EmptyPage(QStringLiteral("No runs yet."), QStringLiteral("Run plan"));
    connect(empty, &EmptyPage::triggered, this, &ResultsDock::runRequested);
    pages_->addWidget(empty);
    pages_->addWidget(page);
    setWidget(pages_);
    setTitleBarWidget(new QWidget(this)); // the tab says it already

    connect(&session_, &Session::runChanged, this, &ResultsDock::refresh);
    connect(&session_, &Session::modelChanged, this, [this] {
        evaluate_->setEnabled(session_.model() && session_.model()->architecture().runs());
    });
    connect(&session_, &Session::evaluationChanged, this, &ResultsDock::showEvaluation);
    connect(&session_, &Session::selectionChanged, this, &ResultsDock::showSelection);
    connect(table_->selectionModel(), &QItemSelectionModel::currentRowChanged, this,
            [this](const QModelIndex& current) {
                const LayerResult* result = model_->resultAt(sorted_->mapToSource(current).row());
                if (!following_ && result)
                    session_.selectLayer(toQString(result->layer));
                showTrace();
            });
    refresh();
}

QWidget* ResultsDock::buildHeader()
{
    auto* header = new QWidget;
    auto* grid = new QGridLayout(header);
    grid->setContentsMargins(8, 4, 8, 4);
    grid->setHorizontalSpacing(20);
    grid->setVerticalSpacing(0);
    grid->addWidget(caption(QStringLiteral("Perplexity before")), 0, 0);
    grid->addWidget(caption(QStringLiteral("Perplexity after")), 0, 1);
    grid->addWidget(before_, 1, 0);
    grid->addWidget(after_, 1, 1);
    how_->setForegroundRole(QPalette::PlaceholderText);
    grid->addWidget(summary_, 0, 2);
    grid->addWidget(how_, 1, 2);
    grid->setColumnStretch(2, 1);
    evaluate_->setToolTip(QStringLiteral("Measure perplexity before and after"));
    export_->setObjectName(QStringLiteral("results_export"));
    export_->setIcon(Theme::instance().icon(QStringLiteral("export")));
    export_->setToolTip(QStringLiteral("Write the compressed model (Ctrl+E)"));
    grid->addWidget(evaluate_, 0, 3, 2, 1, Qt::AlignVCenter);
    grid->addWidget(export_, 0, 4, 2, 1, Qt::AlignVCenter);
    connect(evaluate_, &QPushButton::clicked, this, &ResultsDock::evaluateRequested);
    connect(export_, &QPushButton::clicked, this, &ResultsDock::exportRequested);
    return header;
}

void ResultsDock::refresh()
{
    const bool any = model_->rowCount() > 0;
    pages_->setCurrentIndex(any ? 1 : 0);
    summary_->setFullText(model_->summary());
    showEvaluation();
    showSelection(session_.selection());
    showTrace();
}

void ResultsDock::showEvaluation()
{
    const auto& evaluation = session_.evaluation();
    before_->setText(evaluation ? rankscope::perplexityText(evaluation->before) : noValue());
    after_->setText(evaluation ? rankscope::perplexityText(evaluation->after) : noValue());
    if (!evaluation) {
        how_->setFullText(QStringLiteral("Perplexity is not measured yet."));
        return;
    }
    before_->setToolTip(formatExact(evaluation->before.perplexity));
    after_->setToolTip(formatExact(evaluation->after.perplexity));
    const double change = evaluation->after.perplexity / evaluation->before.perplexity - 1.0;
    how_->setFullText(
        QStringLiteral("%1%2 % on %3 tokens of %4 (%5 windows of %6, protocol %7; ± standard error)")
            .arg(change >= 0.0 ? QStringLiteral("+") : QString())
            .arg(formatMeasured(change * 100.0, 3))
            .arg(formatCount(static_cast<qint64>(evaluation->after.targets)),
                 toQString(evaluation->after.text_file))
            .arg(evaluation->after.windows)
            .arg(evaluation->after.length)
            .arg(toQString(id(evaluation->after.protocol))));
}

QString ResultsDock::perplexityText() const
{
    return before_->text() + QStringLiteral(" → ") + after_->text();
}

void ResultsDock::showTrace()
{
    const LayerResult* result = model_->resultAt(sorted_->mapToSource(table_->currentIndex()).row());
    if (!result || result->trace.empty()) {
        plot_->setTraces({});
        plot_->showMessage(result ? QStringLiteral("%1 does not iterate: there is no error per iteration.")
                                        .arg(toQString(result->method))
                                  : QStringLiteral("Select a layer to see its error per iteration."));
        return;
    }
    const Method* method = find_method(result->method);
    ErrorTrace trace;
    trace.layer = toQString(result->layer);
    if (trace.layer.startsWith(QLatin1String("model."))) // the picture is narrow
        trace.layer.remove(0, 6);
    trace.method = method ? toQString(method->info().title) : toQString(result->method);
    for (std::size_t i = 0; i < result->trace.size(); ++i) {
        trace.steps.append(static_cast<double>(i));
        trace.errors.append(result->trace[i].relative_activation_error);
    }
    plot_->showMessage({});
    plot_->setTraces({trace});
}

void ResultsDock::showSelection(const Selection& selection)
{
    const int row = model_->rowOf(selection.layer);
    if (row < 0)
        return;
    const QModelIndex index = sorted_->mapFromSource(model_->index(row, 0));
    if (!index.isValid() || table_->currentIndex().row() == index.row())
        return;
    following_ = true;
    table_->selectionModel()->setCurrentIndex(index, QItemSelectionModel::ClearAndSelect
                                                         | QItemSelectionModel::Rows);
    following_ = false;
}

} // namespace rankscope
