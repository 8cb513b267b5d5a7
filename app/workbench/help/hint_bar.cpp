// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/help/hint_bar.h"

#include "app/workbench/settings.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>

namespace rankscope {

HintBar::HintBar(QWidget* parent) : QFrame(parent)
{
    setObjectName(QStringLiteral("hint_bar"));
    setProperty("banner", QStringLiteral("info"));
    setAccessibleName(QStringLiteral("Hint"));
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(12, 4, 8, 4);
    text_ = new QLabel;
    text_->setWordWrap(true);
    act_ = new QPushButton;
    act_->setObjectName(QStringLiteral("hint_action"));
    auto* gone = new QPushButton(QStringLiteral("Got it"));
    gone->setObjectName(QStringLiteral("hint_gone"));
    gone->setToolTip(QStringLiteral("Do not show this hint again"));
    row->addWidget(text_, 1);
    row->addWidget(act_);
    row->addWidget(gone);
    connect(gone, &QPushButton::clicked, this, &HintBar::answer);
    connect(act_, &QPushButton::clicked, this, [this] {
        const auto action = action_;
        answer();
        if (action)
            action();
    });
    hide();
}

void HintBar::offer(const QString& id, const QString& text, const QString& button,
                    std::function<void()> action)
{
    if (!hint_.isEmpty() || settings::hintAnswered(id))
        return;
    hint_ = id;
    action_ = std::move(action);
    text_->setText(text);
    act_->setText(button);
    act_->setVisible(action_ != nullptr);
    show();
}

void HintBar::answer()
{
    settings::setHintAnswered(hint_);
    hint_.clear();
    action_ = nullptr;
    hide();
}

} // namespace rankscope
