// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/widgets/empty_page.h"

#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>

namespace rankscope {

EmptyPage::EmptyPage(const QString& sentence, const QString& action, QWidget* parent) : QWidget(parent)
{
    auto* text = new QLabel(sentence);
    text->setAlignment(Qt::AlignCenter);
    auto* button = new QPushButton(action);
    auto* layout = new QVBoxLayout(this);
    layout->addStretch();
    layout->addWidget(text);
    layout->addWidget(button, 0, Qt::AlignCenter);
    layout->addStretch();
    connect(button, &QPushButton::clicked, this, &EmptyPage::triggered);
}

} // namespace rankscope
