// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/plan_dock.h"

#include "app/workbench/budget_bar.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/widgets/data_table.h"
#include "app/workbench/widgets/eliding_label.h"
#include "app/workbench/widgets/empty_page.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPoint>
#include <QPushButton>
#include <QSpinBox>
#include <QStackedWidget>
#include <QStyledItemDelegate>
#include <QVBoxLayout>

namespace rankscope {

namespace {

/// Editors made from what the model says of the cell: a list for methods, a number within its range.
class PlanDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;

    QWidget* createEditor(QWidget* parent, const QStyleOptionViewItem& option,
                          const QModelIndex& index) const override
    {
        const QString name = index.model()->headerData(index.column(), Qt::Horizontal).toString();
        const QStringList choices = index.data(PlanModel::ChoicesRole).toStringList();
        if (!choices.isEmpty()) {
            auto* box = new QComboBox(parent);
            const QStringList ids = index.data(PlanModel::ChoiceIdsRole).toStringList();
            for (qsizetype i = 0; i < choices.size(); ++i)
                box->addItem(choices[i], ids.value(i));
            box->setAccessibleName(name);
            connect(box, &QComboBox::activated, this, [this, box] {
                auto* self = const_cast<PlanDelegate*>(this);
                Q_EMIT self->commitData(box);
                Q_EMIT self->closeEditor(box);
            });
            return box;
        }
        const QVariant range = index.data(PlanModel::RangeRole);
        if (!range.isValid())
            return QStyledItemDelegate::createEditor(parent, option, index);
        auto* box = new QSpinBox(parent);
        box->setFrame(false);
        box->setRange(range.toPoint().x(), range.toPoint().y());
        box->setAlignment(Qt::AlignRight);
        box->setAccessibleName(name);
        return box;
    }

    void setEditorData(QWidget* editor, const QModelIndex& index) const override
    {
        if (auto* choice = qobject_cast<QComboBox*>(editor))
            choice->setCurrentIndex(choice->findData(index.data(Qt::EditRole)));
        else if (auto* number = qobject_cast<QSpinBox*>(editor))
            number->setValue(index.data(Qt::EditRole).toInt());
    }

    void setModelData(QWidget* editor, QAbstractItemModel* model, const QModelIndex& index) const override
    {
        if (const auto* choice = qobject_cast<QComboBox*>(editor)) {
            if (choice->currentIndex() >= 0)
                model->setData(index, choice->currentData());
        } else if (auto* number = qobject_cast<QSpinBox*>(editor)) {
            number->interpretText();
            model->setData(index, number->value());
        }
    }
};

} // namespace

PlanDock::PlanDock(Session& session, QWidget* parent)
    : QDockWidget(QStringLiteral("Plan"), parent), session_(session), model_(new PlanModel(session, this)),
      table_(new DataTable), budget_(new BudgetBar(session)), presets_(new QComboBox),
      measure_(new QPushButton(QStringLiteral("Measure layers"))),
      run_(new QPushButton(QStringLiteral("Run plan"))), footer_(new QLabel),
      notice_(new ElidingLabel(QStringLiteral("Last edit"))), pages_(new QStackedWidget)
{
    setObjectName(QStringLiteral("plan_dock"));
    buildTable();
    auto* page = new QWidget;
    auto* page_layout = new QVBoxLayout(page);
    page_layout->setContentsMargins(0, 0, 0, 0);
    page_layout->setSpacing(0);
    page_layout->addWidget(buildBar());
    page_layout->addWidget(budget_);
    page_layout->addWidget(table_, 1);
    auto* bottom = new QHBoxLayout;
    bottom->setContentsMargins(8, 3, 8, 4);
    footer_->setObjectName(QStringLiteral("plan_footer"));
    footer_->setAccessibleName(QStringLiteral("Size of the plan"));
    footer_->setTextInteractionFlags(Qt::TextSelectableByMouse);
    notice_->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
    bottom->addWidget(footer_);
    bottom->addWidget(notice_, 1);
    page_layout->addLayout(bottom);

    auto* empty = new EmptyPage(QStringLiteral("Open a checkpoint to plan it."), QStringLiteral("Open…"));
    connect(empty, &EmptyPage::triggered, this, &PlanDock::openRequested);
    pages_->addWidget(page);
    pages_->addWidget(empty);
    setWidget(pages_);
    setTitleBarWidget(new QWidget(this)); // the tab says it already

    connect(table_->selectionModel(), &QItemSelectionModel::selectionChanged, this,
            [this] { model_->setSelectedRows(table_->selectedRows()); });
    connect(table_->selectionModel(), &QItemSelectionModel::currentRowChanged, this,
            [this](const QModelIndex& current) {
                if (!following_ && current.isValid() && table_->selectedRows().size() <= 1)
                    session_.selectLayer(model_->layerAt(current.row()));
            });
    connect(&session_, &Session::selectionChanged, this, &PlanDock::showSelection);
    connect(&session_, &Session::modelChanged, this, [this] {
        if (session_.model())
            presets_->setCurrentIndex(presets_->findData(defaultPresetId(*session_.model())));
    });
    connect(model_, &PlanModel::footerChanged, this, &PlanDock::showFooter);
    connect(model_, &PlanModel::edited, this, [this](const QString& what) {
        showNotice(what, false);
        Q_EMIT edited(what);
    });
    connect(budget_, &BudgetBar::edited, this, [this](const QString& what) {
        showNotice(what, false);
        Q_EMIT edited(what);
    });
    connect(budget_, &BudgetBar::refused, this, [this](const QString& reason) { showNotice(reason, true); });
    connect(model_, &PlanModel::refused, this, [this](const QString& reason) {
        showNotice(reason, true);
        Q_EMIT refused(reason);
    });
    showFooter();
}

void PlanDock::buildTable()
{
    table_->setObjectName(QStringLiteral("plan_table"));
    table_->setAccessibleName(QStringLiteral("Plan, one row per layer"));
    table_->setModel(model_);
    table_->setTextElideMode(Qt::ElideLeft); // the end of a layer's name tells it from the others
    table_->setItemDelegate(new PlanDelegate(table_));
    table_->setEditTriggers(QAbstractItemView::DoubleClicked | QAbstractItemView::EditKeyPressed
                            | QAbstractItemView::AnyKeyPressed);
    const int widths[PlanModel::k_columns] = {36, 44, 200, 110, 50, 58, 54, 54, 116, 80, 92};
    for (int column = 0; column < PlanModel::k_columns; ++column)
        table_->setColumnWidth(column, widths[column]);
    table_->horizontalHeader()->setSectionResizeMode(PlanModel::Layer, QHeaderView::Stretch);
    table_->horizontalHeader()->setMinimumSectionSize(32);
}

QWidget* PlanDock::buildBar()
{
    auto* bar = new QWidget;
    auto* layout = new QHBoxLayout(bar);
    layout->setContentsMargins(8, 4, 8, 4);
    layout->setSpacing(8);
    auto* label = new QLabel(QStringLiteral("&Preset"));
    label->setBuddy(presets_);
    presets_->setObjectName(QStringLiteral("plan_presets"));
    presets_->setAccessibleName(QStringLiteral("Preset for all rows"));
    presets_->setToolTip(QStringLiteral("Sets every row that is not locked"));
    presets_->setPlaceholderText(QStringLiteral("Choose for all rows"));
    for (const PlanPreset& preset : planPresets())
        presets_->addItem(preset.title, preset.id);
    connect(presets_, &QComboBox::activated, this,
            [this](int index) { Q_EMIT presetChosen(presets_->itemData(index).toString()); });

    measure_->setObjectName(QStringLiteral("plan_measure"));
    measure_->setToolTip(
        QStringLiteral("Computes the spectrum of every included layer: fills the column Error"));
    connect(measure_, &QPushButton::clicked, this, &PlanDock::measureRequested);
    run_->setObjectName(QStringLiteral("plan_run"));
    run_->setIcon(Theme::instance().icon(QStringLiteral("run")));
    run_->setToolTip(
        QStringLiteral("Compress the included layers, then measure perplexity before and after (F5)"));
    connect(run_, &QPushButton::clicked, this, &PlanDock::runRequested);

    layout->addWidget(label);
    layout->addWidget(presets_);
    layout->addWidget(measure_);
    layout->addStretch(1);
    layout->addWidget(run_);
    return bar;
}

QStringList PlanDock::selectedLayers() const
{
    QStringList layers;
    for (const int row : table_->selectedRows())
        layers << model_->layerAt(row);
    return layers;
}

void PlanDock::fillDown()
{
    const QModelIndex current = table_->currentIndex();
    if (current.isValid())
        model_->fillDown(table_->selectedRows(), current.column());
}

void PlanDock::showNotice(const QString& text, bool refused)
{
    QPalette colors = palette();
    if (refused)
        colors.setColor(QPalette::WindowText, Theme::instance().color(Theme::Token::Error));
    notice_->setPalette(colors);
    notice_->setFullText(text);
}

void PlanDock::setMeasuring(bool measuring) { measure_->setEnabled(!measuring); }

void PlanDock::showSelection(const Selection& selection)
{
    const int row = model_->rowOf(selection.layer);
    if (row < 0 || table_->currentIndex().row() == row)
        return;
    following_ = true;
    const int column = std::max(0, table_->currentIndex().column());
    table_->selectionModel()->setCurrentIndex(model_->index(row, column), QItemSelectionModel::ClearAndSelect
                                                                              | QItemSelectionModel::Rows);
    table_->scrollTo(model_->index(row, column));
    following_ = false;
}

void PlanDock::showFooter()
{
    const QString text = model_->footer();
    footer_->setText(text);
    pages_->setCurrentIndex(session_.model() ? 0 : 1);
}

} // namespace rankscope
