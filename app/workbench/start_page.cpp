// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/start_page.h"

#include "app/workbench/settings.h"
#include "app/workbench/theme.h"

#include <QFileInfo>
#include <QHBoxLayout>
#include <QLabel>
#include <QListWidget>
#include <QPushButton>
#include <QVBoxLayout>

namespace rankscope {

namespace {

constexpr int k_missing_role = Qt::UserRole + 1;

QFrame* card(const QString& name)
{
    auto* frame = new QFrame;
    frame->setObjectName(QStringLiteral("card"));
    frame->setAccessibleName(name);
    frame->setMinimumSize(260, 250);
    frame->setMaximumSize(320, 250);
    auto* layout = new QVBoxLayout(frame);
    layout->setContentsMargins(20, 16, 20, 16);
    layout->setSpacing(8);
    auto* title = new QLabel(name);
    QFont font = title->font();
    font.setBold(true);
    font.setPointSizeF(font.pointSizeF() * 1.2);
    title->setFont(font);
    layout->addWidget(title);
    return frame;
}

QLabel* paragraph(const QString& text)
{
    auto* label = new QLabel(text);
    label->setWordWrap(true);
    label->setForegroundRole(QPalette::PlaceholderText);
    return label;
}

QPushButton* button(const QString& text, const QString& icon, const QString& name)
{
    auto* made = new QPushButton(Theme::instance().icon(icon), text);
    made->setObjectName(name);
    made->setMinimumHeight(32);
    made->setAutoDefault(true); // Enter on the focused button
    return made;
}

} // namespace

StartPage::StartPage(JobRunner& runner, QWidget* parent) : QWidget(parent), runner_(runner)
{
    setObjectName(QStringLiteral("start_page"));
    auto* name = new QLabel(QStringLiteral("Rankscope"));
    QFont font = name->font();
    font.setBold(true);
    font.setPointSizeF(font.pointSizeF() * 2.0);
    name->setFont(font);
    auto* sentence =
        new QLabel(QStringLiteral("See the outlier channels of a language model, take them out with L·R, "
                                  "quantize the calm rest to Q, and measure what is lost: W ≈ Q + L·R."));
    sentence->setAlignment(Qt::AlignCenter);
    sentence->setWordWrap(true);
    sentence->setForegroundRole(QPalette::PlaceholderText);

    auto* cards = new QHBoxLayout;
    cards->setSpacing(16);
    cards->addStretch(1);
    sample_ = nullptr;
    open_card_ = buildOpenCard();
    cards->addWidget(open_card_, 4);
    cards->addWidget(buildRecentCard(), 4);
    cards->addWidget(buildSampleCard(), 4);
    cards->addStretch(1);

    auto* layout = new QVBoxLayout(this);
    layout->setSpacing(16);
    layout->addStretch(2);
    layout->addWidget(name, 0, Qt::AlignCenter);
    layout->addWidget(sentence);
    layout->addSpacing(8);
    layout->addLayout(cards);
    layout->addStretch(3);
    setTabOrder(recent_, remove_);
    setTabOrder(remove_, sample_);
    connect(&Theme::instance(), &Theme::changed, this, &StartPage::restyle);
    restyle();
    refreshRecent();
}

QWidget* StartPage::buildOpenCard()
{
    QFrame* frame = card(QStringLiteral("Open checkpoint"));
    auto* layout = static_cast<QVBoxLayout*>(frame->layout());
    open_hint_ = paragraph(
        QStringLiteral("A Hugging Face folder, a .safetensors file beside its config.json, or a .gguf file. Drop it "
                       "anywhere in this window; it is mapped, not loaded."));
    layout->addWidget(open_hint_);
    layout->addStretch(1);
    auto* file = button(QStringLiteral("Open file…  Ctrl+O"), QStringLiteral("open"),
                        QStringLiteral("start_open_file"));
    auto* folder = button(QStringLiteral("Open folder…  Ctrl+Shift+O"), QStringLiteral("folder"),
                          QStringLiteral("start_open_folder"));
    layout->addWidget(file);
    layout->addWidget(folder);
    connect(file, &QPushButton::clicked, this, &StartPage::openFileRequested);
    connect(folder, &QPushButton::clicked, this, &StartPage::openFolderRequested);
    return frame;
}

QWidget* StartPage::buildRecentCard()
{
    QFrame* frame = card(QStringLiteral("Recent"));
    auto* layout = static_cast<QVBoxLayout*>(frame->layout());
    recent_ = new QListWidget;
    recent_->setObjectName(QStringLiteral("start_recent"));
    recent_->setAccessibleName(QStringLiteral("Recent checkpoints"));
    recent_->setFrameShape(QFrame::NoFrame);
    recent_->setTextElideMode(Qt::ElideMiddle);
    recent_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    remove_ = new QPushButton(QStringLiteral("Remove from list"));
    remove_->setMinimumHeight(28);
    remove_->setEnabled(false);
    layout->addWidget(recent_, 1);
    layout->addWidget(remove_);
    connect(recent_, &QListWidget::itemActivated, this, [this](const QListWidgetItem* item) {
        if (!item->data(k_missing_role).toBool() && !item->data(Qt::UserRole).toString().isEmpty())
            Q_EMIT recentChosen(item->data(Qt::UserRole).toString());
    });
    connect(recent_, &QListWidget::currentItemChanged, this, [this](const QListWidgetItem* item) {
        remove_->setEnabled(item && !item->data(Qt::UserRole).toString().isEmpty());
    });
    connect(remove_, &QPushButton::clicked, this, [this] {
        if (const QListWidgetItem* item = recent_->currentItem()) {
            settings::removeRecentFile(item->data(Qt::UserRole).toString());
            refreshRecent();
        }
    });
    return frame;
}

QWidget* StartPage::buildSampleCard()
{
    QFrame* frame = card(QStringLiteral("Sample model"));
    auto* layout = static_cast<QVBoxLayout*>(frame->layout());
    layout->addWidget(
        paragraph(QStringLiteral("stories260k: a small trained Llama of 5 blocks that comes with the "
                                 "program, with texts to calibrate and to evaluate on. Nothing is "
                                 "downloaded; the whole job takes less than a minute.")));
    layout->addStretch(1);
    sample_ =
        button(QStringLiteral("Open the sample"), QStringLiteral("sample"), QStringLiteral("start_sample"));
    sample_->setDefault(true);
    layout->addWidget(sample_);
    connect(sample_, &QPushButton::clicked, this, &StartPage::sampleRequested);
    return frame;
}

void StartPage::refreshRecent()
{
    recent_->clear();
    const QStringList files = settings::recentFiles();
    for (const QString& file : files) {
        auto* item = new QListWidgetItem(file, recent_);
        item->setData(Qt::UserRole, file);
        item->setToolTip(file);
    }
    remove_->setEnabled(false);
    if (files.isEmpty()) {
        auto* item = new QListWidgetItem(QStringLiteral("Nothing opened yet"), recent_);
        item->setFlags(Qt::NoItemFlags);
        return;
    }
    // Looking at a path can hang on a drive that is gone: not on the GUI thread.
    runner_.start<QStringList>(
        {QStringLiteral("Look for recent files"), JobLane::View, false}, this,
        [files](JobMonitor&) -> Result<QStringList> {
            QStringList missing;
            for (const QString& file : files) {
                if (!QFileInfo::exists(file))
                    missing << file;
            }
            return missing;
        },
        [this](const Result<QStringList>& missing) {
            if (missing)
                markMissing(*missing);
        });
}

void StartPage::markMissing(const QStringList& missing)
{
    for (int row = 0; row < recent_->count(); ++row) {
        QListWidgetItem* item = recent_->item(row);
        const bool gone = missing.contains(item->data(Qt::UserRole).toString());
        item->setData(k_missing_role, gone);
        item->setForeground(gone ? Theme::instance().color(Theme::Token::Muted)
                                 : palette().color(QPalette::Text));
        if (gone)
            item->setToolTip(item->data(Qt::UserRole).toString() + QStringLiteral("\nNot there now"));
    }
}

void StartPage::focusRecent()
{
    recent_->setFocus(Qt::ShortcutFocusReason);
    if (recent_->currentRow() < 0)
        recent_->setCurrentRow(0);
}

void StartPage::setBusy(bool busy) { setEnabled(!busy); }

void StartPage::setDropHint(bool dragging)
{
    dragging_ = dragging;
    restyle();
}

void StartPage::restyle()
{
    const Theme& theme = Theme::instance();
    const QString border = theme.color(Theme::Token::Border).name();
    setStyleSheet(QStringLiteral("QFrame#card { background: %1; border: 1px solid %2; border-radius: 8px; } "
                                 "QListWidget { background: transparent; }")
                      .arg(theme.color(Theme::Token::Base).name(), border));
    open_card_->setStyleSheet(dragging_ ? QStringLiteral("QFrame#card { border: 2px dashed %1; }")
                                              .arg(theme.color(Theme::Token::Accent).name())
                                        : QString());
}

} // namespace rankscope
