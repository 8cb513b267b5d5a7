// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/widgets/command_palette.h"

#include "app/workbench/theme.h"

#include <QFrame>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QTreeView>
#include <QVBoxLayout>

#include <algorithm>

namespace rankscope {
namespace {

constexpr int k_listed = 200; // more than a person reads; a 70B checkpoint has some 700 tensors
constexpr int k_width = 640;
constexpr int k_height = 420;
constexpr int k_row_height = 26;

bool startsWord(const QString& text, qsizetype at) { return at == 0 || !text.at(at - 1).isLetterOrNumber(); }

/// The letters of `word` in order, wherever they stand; fewer gaps are better. −1: not all are there.
int scatteredScore(const QString& word, const QString& text)
{
    int gaps = 0;
    qsizetype from = 0;
    for (const QChar letter : word) {
        const qsizetype at = text.indexOf(letter, from, Qt::CaseInsensitive);
        if (at < 0)
            return -1;
        gaps += at > from && from > 0 ? 1 : 0;
        from = at + 1;
    }
    return std::max(1, 20 - 4 * gaps);
}

int wordScore(const QString& word, const QString& text)
{
    qsizetype at = text.indexOf(word, 0, Qt::CaseInsensitive);
    if (at < 0)
        return scatteredScore(word, text);
    while (at >= 0) {
        if (startsWord(text, at))
            return 100 + (at == 0 ? 20 : 0);
        at = text.indexOf(word, at + 1, Qt::CaseInsensitive);
    }
    return 60;
}

} // namespace

int paletteScore(const QString& query, const QString& text)
{
    int score = 0;
    for (const QString& word : query.split(QLatin1Char(' '), Qt::SkipEmptyParts)) {
        const int one = wordScore(word, text);
        if (one < 0)
            return -1;
        score += one;
    }
    return score;
}

void PaletteModel::setEntries(std::vector<PaletteEntry> entries)
{
    beginResetModel();
    entries_ = std::move(entries);
    rows_.clear();
    endResetModel();
    setQuery({});
}

void PaletteModel::setQuery(const QString& query)
{
    beginResetModel();
    std::vector<std::pair<int, int>> found; // score, place
    for (int i = 0; i < static_cast<int>(entries_.size()); ++i)
        if (const int score = paletteScore(query, entries_[static_cast<std::size_t>(i)].text); score >= 0)
            found.emplace_back(score, i);
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    matches_ = static_cast<int>(found.size());
    found.resize(std::min<std::size_t>(found.size(), k_listed));
    rows_.clear();
    for (const auto& [score, place] : found)
        rows_.append(place);
    endResetModel();
}

const PaletteEntry& PaletteModel::entry(int row) const
{
    return entries_[static_cast<std::size_t>(rows_.at(row))];
}

int PaletteModel::rowCount(const QModelIndex& parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}

int PaletteModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : 2; }

QVariant PaletteModel::data(const QModelIndex& index, int role) const
{
    if (!index.isValid())
        return {};
    const PaletteEntry& of = entry(index.row());
    switch (role) {
    case Qt::DisplayRole:
        return index.column() == 0 ? of.text : of.detail;
    case Qt::ToolTipRole:
        return of.help;
    case Qt::AccessibleTextRole:
        return index.column() == 0 ? QStringLiteral("%1. %2").arg(of.text, of.help) : of.detail;
    case Qt::TextAlignmentRole:
        return QVariant::fromValue(Qt::Alignment(Qt::AlignVCenter)
                                   | (index.column() == 0 ? Qt::AlignLeft : Qt::AlignRight));
    case Qt::SizeHintRole:
        return index.column() == 0 ? QSize(24, k_row_height) : QVariant();
    case Qt::ForegroundRole:
        if (index.column() == 1 && of.enabled)
            return Theme::instance().color(Theme::Token::Muted);
        return {};
    default:
        return {};
    }
}

Qt::ItemFlags PaletteModel::flags(const QModelIndex& index) const
{
    if (!index.isValid())
        return Qt::NoItemFlags;
    const bool enabled = entry(index.row()).enabled;
    return enabled ? Qt::ItemIsEnabled | Qt::ItemIsSelectable | Qt::ItemNeverHasChildren
                   : Qt::ItemFlags(Qt::ItemIsSelectable | Qt::ItemNeverHasChildren);
}

CommandPalette::CommandPalette(QWidget* parent)
    : QDialog(parent, Qt::Popup | Qt::FramelessWindowHint), model_(new PaletteModel(this)),
      query_(new QLineEdit), list_(new QTreeView), summary_(new QLabel)
{
    setObjectName(QStringLiteral("command_palette"));
    setWindowTitle(QStringLiteral("Commands"));
    query_->setObjectName(QStringLiteral("palette_query"));
    query_->setPlaceholderText(QStringLiteral("A command, a tensor or a view"));
    query_->setAccessibleName(QStringLiteral("Command, tensor or view"));
    query_->setClearButtonEnabled(true);
    query_->installEventFilter(this);
    list_->setObjectName(QStringLiteral("palette_list"));
    list_->setAccessibleName(QStringLiteral("What answers the words above"));
    list_->setModel(model_);
    list_->setHeaderHidden(true);
    list_->setRootIsDecorated(false);
    list_->setUniformRowHeights(true);
    list_->setFocusPolicy(Qt::NoFocus); // the line keeps it: typing goes on while the list is walked
    list_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    list_->setTextElideMode(Qt::ElideMiddle);
    list_->header()->setStretchLastSection(false);
    list_->header()->setSectionResizeMode(0, QHeaderView::Stretch);
    list_->header()->setSectionResizeMode(1, QHeaderView::ResizeToContents);
    summary_->setProperty("muted", true);
    auto* card = new QFrame;
    card->setProperty("card", true);
    auto* around = new QVBoxLayout(this);
    around->setContentsMargins(0, 0, 0, 0);
    around->addWidget(card);
    auto* layout = new QVBoxLayout(card);
    layout->setContentsMargins(8, 8, 8, 8);
    layout->addWidget(query_);
    layout->addWidget(list_, 1);
    layout->addWidget(summary_);
    connect(query_, &QLineEdit::textChanged, this, &CommandPalette::refresh);
    // Not every window manager gives the focus back to the window that a popup came from.
    connect(this, &QDialog::finished, this, [this] {
        if (parentWidget())
            parentWidget()->activateWindow();
    });
    connect(list_, &QTreeView::clicked, this, [this](const QModelIndex& index) {
        list_->setCurrentIndex(index);
        take();
    });
}

void CommandPalette::open(std::vector<PaletteEntry> entries)
{
    model_->setEntries(std::move(entries));
    query_->clear();
    refresh();
    const QWidget* over = parentWidget();
    resize(std::min(k_width, over->width() - 48), std::min(k_height, over->height() - 96));
    QWidget::move(over->mapToGlobal(QPoint((over->width() - width()) / 2, 48)));
    show();
    query_->setFocus(Qt::PopupFocusReason);
}

void CommandPalette::refresh()
{
    model_->setQuery(query_->text());
    const int listed = model_->rowCount();
    summary_->setText(
        model_->matches() == 0 ? QStringLiteral("Nothing has these words in its name.")
        : model_->matches() > listed
            ? QStringLiteral("The best %1 of %2: type more to see others.").arg(listed).arg(model_->matches())
            : QStringLiteral("↑ ↓ choose · Enter does it · Esc leaves"));
    int first = 0;
    while (first < listed && !model_->entry(first).enabled)
        ++first;
    if (first < listed)
        list_->setCurrentIndex(model_->index(first, 0));
}

void CommandPalette::move(int step)
{
    const int rows = model_->rowCount();
    int row = list_->currentIndex().row();
    const int direction = step > 0 ? 1 : -1;
    for (int left = std::abs(step); left > 0; --left) {
        int next = row + direction;
        while (next >= 0 && next < rows && !model_->entry(next).enabled)
            next += direction;
        if (next < 0 || next >= rows)
            break;
        row = next;
    }
    if (row >= 0 && row < rows)
        list_->setCurrentIndex(model_->index(row, 0));
}

void CommandPalette::take()
{
    const QModelIndex at = list_->currentIndex();
    if (!at.isValid() || !model_->entry(at.row()).enabled)
        return;
    const std::function<void()> choose = model_->entry(at.row()).choose;
    accept();
    choose();
}

bool CommandPalette::eventFilter(QObject* watched, QEvent* event)
{
    if (watched != query_ || event->type() != QEvent::KeyPress)
        return QDialog::eventFilter(watched, event);
    constexpr int page = 8;
    switch (static_cast<QKeyEvent*>(event)->key()) {
    case Qt::Key_Up:
        move(-1);
        return true;
    case Qt::Key_Down:
        move(1);
        return true;
    case Qt::Key_PageUp:
        move(-page);
        return true;
    case Qt::Key_PageDown:
        move(page);
        return true;
    case Qt::Key_Return:
    case Qt::Key_Enter:
        take();
        return true;
    default:
        return QDialog::eventFilter(watched, event);
    }
}

} // namespace rankscope
