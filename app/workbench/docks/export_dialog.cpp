// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/export_dialog.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"

#include <QCheckBox>
#include <QDir>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QProgressBar>
#include <QPushButton>
#include <QStandardPaths>
#include <QVBoxLayout>

namespace rankscope {

ExportDialog::ExportDialog(Session& session, Workflow& workflow, QWidget* parent)
    : QDialog(parent), session_(session), workflow_(workflow), formats_(new QListWidget),
      summary_(new QLabel), size_(new QLabel), folder_(new QLineEdit),
      replace_(new QCheckBox(QStringLiteral("Replace what is there"))),
      requantize_(new QCheckBox(QStringLiteral("Round weights a second time"))), progress_(new QProgressBar),
      verdict_icon_(new QLabel), verdict_(new QLabel), export_(new QPushButton(QStringLiteral("Export")))
{
    setObjectName(QStringLiteral("export_dialog"));
    setWindowTitle(QStringLiteral("Export the compressed model"));
    resize(640, 380);

    nameParts();
    auto* browse = new QPushButton(QStringLiteral("Browse…"));
    browse->setAutoDefault(false);
    auto* close = new QPushButton(QStringLiteral("Close"));
    close->setAutoDefault(false);
    auto* folder_row = new QHBoxLayout;
    folder_row->addWidget(folder_, 1);
    folder_row->addWidget(browse);
    auto* form = new QFormLayout;
    form->setLabelAlignment(Qt::AlignLeft);
    form->addRow(QStringLiteral("F&ormat"), formats_);
    form->addRow(QString(), summary_);
    auto* folder_label = new QLabel(QStringLiteral("Fo&lder"));
    folder_label->setBuddy(folder_);
    form->addRow(folder_label, folder_row);
    form->addRow(QString(), replace_);
    form->addRow(QString(), requantize_);
    form->addRow(QStringLiteral("Size"), size_);
    auto* verdict_row = new QHBoxLayout;
    verdict_row->setSpacing(8);
    verdict_row->addWidget(verdict_icon_, 0, Qt::AlignTop);
    verdict_row->addWidget(verdict_, 1);
    auto* buttons = new QHBoxLayout;
    buttons->addStretch(1);
    buttons->addWidget(close);
    buttons->addWidget(export_);
    auto* layout = new QVBoxLayout(this);
    layout->setSpacing(8);
    layout->addLayout(form);
    layout->addStretch(1);
    layout->addWidget(progress_);
    layout->addLayout(verdict_row);
    layout->addLayout(buttons);
    connect(browse, &QPushButton::clicked, this, &ExportDialog::chooseFolder);
    connect(close, &QPushButton::clicked, this, &QDialog::close);
    connectParts();
    export_->setEnabled(false);
    size_->setText(QStringLiteral("Looking…"));
    workflow_.requestExportOutlook({});
}

void ExportDialog::nameParts()
{
    formats_->setObjectName(QStringLiteral("export_formats"));
    formats_->setAccessibleName(QStringLiteral("Formats"));
    formats_->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
    summary_->setWordWrap(true);
    summary_->setForegroundRole(QPalette::PlaceholderText);
    summary_->setFixedHeight(2 * fontMetrics().lineSpacing() + 4);
    summary_->setAlignment(Qt::AlignLeft | Qt::AlignTop);
    size_->setAccessibleName(QStringLiteral("Estimated size and free disk"));
    size_->setTextInteractionFlags(Qt::TextSelectableByMouse);
    folder_->setObjectName(QStringLiteral("export_folder"));
    folder_->setAccessibleName(QStringLiteral("Folder to write"));
    requantize_->setObjectName(QStringLiteral("export_requantize"));
    requantize_->setVisible(false);
    export_->setObjectName(QStringLiteral("export_button"));
    export_->setDefault(true);
    progress_->setRange(0, 0);
    progress_->setAccessibleName(QStringLiteral("Export progress"));
    progress_->setVisible(false);
    verdict_->setObjectName(QStringLiteral("export_verdict"));
    verdict_->setWordWrap(true);
    verdict_->setTextInteractionFlags(Qt::TextSelectableByMouse);
    verdict_->setMinimumHeight(2 * fontMetrics().lineSpacing());
}

void ExportDialog::connectParts()
{
    settle_.setSingleShot(true);
    settle_.setInterval(200);
    connect(&settle_, &QTimer::timeout, this, [this] { workflow_.requestExportOutlook(folder_->text()); });
    connect(folder_, &QLineEdit::textChanged, &settle_, qOverload<>(&QTimer::start));
    connect(folder_, &QLineEdit::textEdited, this, [this] { folder_edited_ = true; });
    connect(replace_, &QCheckBox::toggled, this, &ExportDialog::showFormat);
    connect(requantize_, &QCheckBox::toggled, this, &ExportDialog::showFormat);
    connect(formats_, &QListWidget::currentRowChanged, this, [this] {
        suggestFolder();
        showFormat();
    });
    connect(export_, &QPushButton::clicked, this, &ExportDialog::startExport);
    connect(&workflow_, &Workflow::exportOutlookReady, this, &ExportDialog::showOutlook);
    connect(&workflow_, &Workflow::exported, this, &ExportDialog::showOutcome);
    connect(&Theme::instance(), &Theme::changed, this, &ExportDialog::paintVerdict);
}

void ExportDialog::chooseFolder()
{
    auto* dialog = new QFileDialog(this, QStringLiteral("Folder to write"), folder_->text());
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::Directory);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& folder) {
        folder_edited_ = true;
        folder_->setText(folder);
    });
    dialog->open();
}

const ExportFormat* ExportDialog::format() const
{
    const int row = formats_->currentRow();
    return row >= 0 && row < outlook_.formats.size() ? &outlook_.formats[row] : nullptr;
}

void ExportDialog::suggestFolder()
{
    if (folder_edited_ || !format() || !session_.model())
        return;
    QString documents = QStandardPaths::writableLocation(QStandardPaths::DocumentsLocation);
    if (documents.isEmpty())
        documents = QDir::homePath();
    const QString model = session_.isSample() ? QStringLiteral("stories260k") : session_.title();
    folder_->setText(QDir::cleanPath(QStringLiteral("%1/%2-%3").arg(documents, model, format()->id)));
}

void ExportDialog::showOutlook(const ExportOutlook& outlook)
{
    const bool first = formats_->count() == 0;
    outlook_ = outlook;
    if (first) {
        const int row_height = std::max(26, fontMetrics().height() + 10);
        for (const ExportFormat& candidate : outlook_.formats) {
            auto* item = new QListWidgetItem(candidate.title, formats_);
            item->setSizeHint(QSize(0, row_height));
            if (!candidate.refusal.isEmpty()) {
                item->setFlags(item->flags() & ~Qt::ItemIsEnabled);
                item->setToolTip(candidate.refusal);
                item->setText(QStringLiteral("%1: %2").arg(candidate.title, candidate.refusal));
            }
        }
        for (int row = 0; row < formats_->count(); ++row) {
            if (outlook_.formats[row].refusal.isEmpty()) {
                formats_->setCurrentRow(row);
                break;
            }
        }
        formats_->setFixedHeight(row_height * std::max(2, formats_->count()) + 2 * formats_->frameWidth()
                                 + 2);
    }
    showFormat();
}

void ExportDialog::showFormat()
{
    const ExportFormat* chosen = format();
    if (!chosen)
        return;
    summary_->setText(chosen->summary);
    const bool fits = chosen->bytes <= outlook_.free_bytes;
    size_->setText(QStringLiteral("about %1, the checkpoint has %2 · %3 free on this drive%4")
                       .arg(formatBytes(static_cast<qint64>(chosen->bytes)),
                            formatBytes(static_cast<qint64>(outlook_.checkpoint_bytes)),
                            formatBytes(static_cast<qint64>(outlook_.free_bytes)),
                            fits ? QString() : QStringLiteral(" · not enough")));
    requantize_->setVisible(!chosen->consent.isEmpty());
    const bool taken = outlook_.folder_exists && !replace_->isChecked();
    const bool twice = !chosen->consent.isEmpty() && !requantize_->isChecked();
    if ((taken || twice) && !writing_ && (hint_ || verdict_->text().isEmpty())) {
        showVerdict(QStringLiteral("info"),
                    twice ? QStringLiteral("Rounding twice adds errors that no figure here shows: %1. Tick “Round "
                                           "weights a second time”, or compress the original checkpoint.")
                                .arg(chosen->consent)
                          : QStringLiteral("This folder exists: choose another name, or tick “Replace”."),
                    false);
        hint_ = true;
    } else if (hint_ && !taken && !twice) {
        showVerdict({}, {}, false);
    }
    replace_->setEnabled(outlook_.folder_exists);
    export_->setEnabled(!writing_ && fits && !taken && !twice && chosen->refusal.isEmpty()
                        && !folder_->text().trimmed().isEmpty());
    layout()->activate();
    const int needed = layout()->totalHeightForWidth(width()); // grows with the list and with what is asked
    if (height() < needed)
        resize(width(), needed);
}

void ExportDialog::startExport()
{
    const ExportFormat* chosen = format();
    if (!chosen || writing_)
        return;
    writing_ = true;
    check_passed_ = false;
    export_->setEnabled(false);
    progress_->setVisible(true);
    showVerdict({}, QStringLiteral("Writing, then reading it back…"), false);
    workflow_.exportRun(chosen->id, folder_->text().trimmed(),
                        {.replace = replace_->isChecked(), .requantize = requantize_->isChecked()});
}

void ExportDialog::showOutcome(const ExportOutcome& outcome)
{
    if (!writing_)
        return;
    writing_ = false;
    progress_->setVisible(false);
    if (outcome.error) {
        showVerdict(QStringLiteral("error"), toQString(outcome.error->sentence()), true);
    } else if (outcome.check_error) {
        showVerdict(QStringLiteral("error"),
                    QStringLiteral("Written, but the reload check failed: %1")
                        .arg(toQString(outcome.check_error->sentence())),
                    true);
    } else {
        check_passed_ = true;
        showVerdict(QStringLiteral("check"),
                    QStringLiteral("Reload check passed: every tensor reads back as it should. %1 in %2")
                        .arg(formatBytes(static_cast<qint64>(outcome.bytes)), outcome.folder),
                    false);
    }
    workflow_.requestExportOutlook(folder_->text());
}

void ExportDialog::showVerdict(const QString& icon, const QString& text, bool error)
{
    hint_ = false;
    verdict_icon_name_ = icon;
    verdict_is_error_ = error;
    verdict_->setText(text);
    verdict_->setAccessibleName(text);
    paintVerdict();
}

void ExportDialog::paintVerdict()
{
    const Theme& theme = Theme::instance();
    verdict_icon_->setPixmap(verdict_icon_name_.isEmpty()
                                 ? QPixmap()
                                 : theme.icon(verdict_icon_name_).pixmap(QSize(20, 20), devicePixelRatioF()));
    QPalette colors = palette();
    colors.setColor(QPalette::WindowText, theme.color(verdict_is_error_ ? Theme::Token::Error
                                                      : check_passed_   ? Theme::Token::Success
                                                                        : Theme::Token::Text));
    verdict_->setPalette(colors);
}

QString ExportDialog::verdict() const { return verdict_->text(); }

} // namespace rankscope
