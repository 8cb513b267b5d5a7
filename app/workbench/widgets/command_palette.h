// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QAbstractTableModel>
#include <QDialog>
#include <QString>
#include <QVector>

#include <functional>
#include <vector>

class QLabel;
class QLineEdit;
class QTreeView;

namespace rankscope {

/// One thing that can be done by its name.
struct PaletteEntry {
    QString text;
    QString detail; ///< at the right: a key, a shape
    QString help;   ///< tooltip, and read aloud
    bool enabled = true;
    std::function<void()> choose;
};

/// How well `text` answers `query`: every word of it must be in the text, whole (better at the start of a
/// word) or with its letters in this order. Higher is better, −1: not at all, 0 for an empty query. Case is
/// ignored.
int paletteScore(const QString& query, const QString& text);

/// The entries that answer a query, best first; equal ones in the order given.
class PaletteModel : public QAbstractTableModel {
    Q_OBJECT

public:
    using QAbstractTableModel::QAbstractTableModel;

    void setEntries(std::vector<PaletteEntry> entries);
    void setQuery(const QString& query);
    const PaletteEntry& entry(int row) const;
    int matches() const { return matches_; } ///< also those beyond the rows that are listed

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    Qt::ItemFlags flags(const QModelIndex& index) const override;

private:
    std::vector<PaletteEntry> entries_;
    QVector<int> rows_;
    int matches_ = 0;
};

/// Ctrl+K: every action, tensor and view by name. Arrows move in the list while typing, Enter takes, Esc
/// leaves.
class CommandPalette : public QDialog {
    Q_OBJECT

public:
    explicit CommandPalette(QWidget* parent);

    /// Over the top of the parent; deletes nothing, may be shown again.
    void open(std::vector<PaletteEntry> entries);
    PaletteModel& model() { return *model_; }
    QLineEdit& query() { return *query_; }

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void refresh();
    void move(int step);
    void take();

    PaletteModel* model_;
    QLineEdit* query_;
    QTreeView* list_;
    QLabel* summary_;
};

} // namespace rankscope
