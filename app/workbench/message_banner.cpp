// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/message_banner.h"

#include "app/workbench/theme.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QToolButton>

namespace rankscope {

MessageBanner::MessageBanner(QWidget* parent)
    : QFrame(parent), icon_(new QLabel), text_(new QLabel), buttons_(new QHBoxLayout), close_(new QToolButton)
{
    setObjectName(QStringLiteral("message_banner"));
    setAccessibleName(QStringLiteral("Message"));
    text_->setWordWrap(true);
    text_->setTextFormat(Qt::PlainText);
    text_->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    close_->setAutoRaise(true);
    close_->setIcon(Theme::instance().icon(QStringLiteral("close")));
    close_->setToolTip(QStringLiteral("Dismiss"));
    close_->setAccessibleName(QStringLiteral("Dismiss this message"));
    connect(close_, &QToolButton::clicked, this, &MessageBanner::dismiss);

    auto* layout = new QHBoxLayout(this);
    layout->setContentsMargins(12, 6, 8, 6);
    layout->setSpacing(8);
    layout->addWidget(icon_);
    layout->addWidget(text_, 1);
    buttons_->setSpacing(8);
    layout->addLayout(buttons_);
    layout->addWidget(close_);
    connect(&Theme::instance(), &Theme::changed, this, &MessageBanner::restyle);
    hide();
}

void MessageBanner::show(Kind kind, const QString& text, const std::vector<Action>& actions)
{
    kind_ = kind;
    actions_ = actions;
    text_->setText(text);
    setAccessibleDescription(text);
    while (QLayoutItem* item = buttons_->takeAt(0)) {
        item->widget()->deleteLater();
        delete item;
    }
    for (const Action& action : actions) {
        auto* button = new QPushButton(action.text);
        connect(button, &QPushButton::clicked, this, [this, run = action.run] {
            dismiss();
            run();
        });
        buttons_->addWidget(button);
    }
    restyle();
    setVisible(true);
}

void MessageBanner::dismiss()
{
    actions_.clear();
    hide();
}

QString MessageBanner::text() const { return isHidden() ? QString() : text_->text(); }

bool MessageBanner::trigger(const QString& action)
{
    for (const Action& offered : actions_) {
        if (offered.text == action) {
            const auto run = offered.run;
            dismiss();
            run();
            return true;
        }
    }
    return false;
}

void MessageBanner::restyle()
{
    const Theme& theme = Theme::instance();
    const bool error = kind_ == Kind::Error;
    const QString icon = error                    ? QStringLiteral("error")
                         : kind_ == Kind::Warning ? QStringLiteral("warning")
                                                  : QStringLiteral("info");
    icon_->setPixmap(theme.icon(icon).pixmap(QSize(16, 16), devicePixelRatioF()));
    const QColor edge = theme.color(error ? Theme::Token::Error : Theme::Token::Accent);
    setStyleSheet(
        QStringLiteral("QFrame#message_banner { background: %1; border: 0; border-left: 4px solid %2; "
                       "border-bottom: 1px solid %3; }")
            .arg(theme.color(Theme::Token::Base).name(), edge.name(),
                 theme.color(Theme::Token::Border).name()));
}

} // namespace rankscope
