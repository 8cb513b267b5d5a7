// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/checkpoint_dock.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/widgets/data_table.h"
#include "app/workbench/widgets/empty_page.h"

#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QStackedWidget>
#include <QVBoxLayout>

namespace rankscope {

CheckpointDock::CheckpointDock(Session& session, QWidget* parent)
    : QDockWidget(QStringLiteral("Checkpoint"), parent), session_(session),
      model_(new LayerTableModel(session, this)), proxy_(new LayerFilterModel(*model_, this)),
      filter_(new QLineEdit), count_(new QLabel), pages_(new QStackedWidget), tree_(new DataTree)
{
    setObjectName(QStringLiteral("checkpoint_dock"));
    filter_->setObjectName(QStringLiteral("checkpoint_filter"));
    filter_->setPlaceholderText(QStringLiteral("Filter: down  role:q  layer:1-3  *.mlp.*"));
    filter_->setToolTip(
        QStringLiteral("Words that must all match: part of the name, a glob with * or ?, role:down, "
                       "layer:10-20, dtype:bf16, kurtosis>8, max/rms>12"));
    filter_->setAccessibleName(QStringLiteral("Filter tensors"));
    filter_->setClearButtonEnabled(true);

    tree_->setObjectName(QStringLiteral("checkpoint_tree"));
    tree_->setAccessibleName(QStringLiteral("Tensors of the checkpoint"));
    tree_->setModel(proxy_);
    tree_->setSelectionMode(QAbstractItemView::SingleSelection);
    tree_->setSortingEnabled(true);
    tree_->sortByColumn(LayerTableModel::Name, Qt::AscendingOrder);
    tree_->header()->setStretchLastSection(false);
    tree_->header()->setAccessibleName(QStringLiteral("Columns of the tensor list"));

    auto* nothing = new EmptyPage(QStringLiteral("No tensor matches."), QStringLiteral("Clear filter"));
    connect(nothing, &EmptyPage::triggered, filter_, &QLineEdit::clear);
    pages_->addWidget(tree_);
    pages_->addWidget(nothing);
    count_->setAccessibleName(QStringLiteral("Number of tensors"));
    count_->setContentsMargins(4, 0, 4, 2);

    auto* content = new QWidget;
    auto* layout = new QVBoxLayout(content);
    layout->setContentsMargins(4, 4, 4, 0);
    layout->setSpacing(4);
    layout->addWidget(filter_);
    layout->addWidget(pages_, 1);
    layout->addWidget(count_);
    content->setMinimumWidth(260);
    setWidget(content);

    connect(filter_, &QLineEdit::textChanged, this, &CheckpointDock::applyFilter);
    connect(tree_->selectionModel(), &QItemSelectionModel::currentChanged, this,
            [this](const QModelIndex& current) {
                const QString tensor = current.data(LayerTableModel::TensorRole).toString();
                if (!following_ && !tensor.isEmpty())
                    session_.selectTensor(tensor);
            });
    connect(&session_, &Session::selectionChanged, this, &CheckpointDock::showSelection);
    connect(model_, &QAbstractItemModel::modelReset, this, [this] {
        filter_->clear();
        tree_->expandToDepth(0);
        const int widths[LayerTableModel::k_columns] = {170, 48, 84, 44, 72, 70, 70, 130, 64, 76, 76, 76};
        for (int column = 0; column < LayerTableModel::k_columns; ++column)
            tree_->setColumnWidth(column, widths[column]);
        // While two files are compared, what they differ in stands beside the names.
        for (const int column :
             {LayerTableModel::OtherSize, LayerTableModel::SizeChange, LayerTableModel::Difference})
            tree_->setColumnHidden(column, !session_.comparison());
        for (const int column : {LayerTableModel::Crest, LayerTableModel::Kurtosis, LayerTableModel::Planned})
            tree_->setColumnHidden(column, session_.comparison() != nullptr);
        applyFilter({});
    });
}

void CheckpointDock::focusFilter()
{
    show();
    raise();
    filter_->setFocus(Qt::ShortcutFocusReason);
    filter_->selectAll();
}

void CheckpointDock::applyFilter(const QString& text)
{
    following_ = true; // rows that vanish move the tree's current row: that is no choice of the user
    proxy_->setFilterText(text);
    following_ = false;
    const int matches = proxy_->matches();
    pages_->setCurrentIndex(matches == 0 && !text.trimmed().isEmpty() ? 1 : 0);
    count_->setText(text.trimmed().isEmpty() ? QStringLiteral("%1 tensors").arg(formatCount(matches))
                                             : QStringLiteral("%1 tensors match").arg(formatCount(matches)));
    if (!text.trimmed().isEmpty())
        tree_->expandAll();
    showSelection(session_.selection());
}

void CheckpointDock::showSelection(const Selection& selection)
{
    const QModelIndex index = proxy_->mapFromSource(model_->indexOf(selection.tensor));
    if (index == tree_->currentIndex().siblingAtColumn(0) && index.isValid())
        return;
    following_ = true;
    if (!index.isValid()) {
        tree_->selectionModel()->clear();
        following_ = false;
        return;
    }
    tree_->selectionModel()->setCurrentIndex(index,
                                             QItemSelectionModel::ClearAndSelect | QItemSelectionModel::Rows);
    tree_->scrollTo(index);
    following_ = false;
}

} // namespace rankscope
