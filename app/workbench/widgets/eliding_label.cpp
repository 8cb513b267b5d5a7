// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/widgets/eliding_label.h"

#include <QEvent>

namespace rankscope {

ElidingLabel::ElidingLabel(const QString& name, Qt::TextElideMode mode, QWidget* parent)
    : QLabel(parent), mode_(mode)
{
    setAccessibleName(name);
    setTextFormat(Qt::PlainText);
    setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    setTextInteractionFlags(Qt::TextSelectableByMouse);
}

void ElidingLabel::setFullText(const QString& text)
{
    if (text == text_)
        return;
    text_ = text;
    setToolTip(text);
    setAccessibleDescription(text);
    elide();
}

void ElidingLabel::resizeEvent(QResizeEvent* event)
{
    QLabel::resizeEvent(event);
    elide();
}

void ElidingLabel::changeEvent(QEvent* event)
{
    QLabel::changeEvent(event);
    if (event->type() == QEvent::FontChange)
        elide();
}

void ElidingLabel::elide()
{
    const QString shown = fontMetrics().elidedText(text_, mode_, contentsRect().width());
    if (shown != QLabel::text())
        setText(shown);
}

} // namespace rankscope
