// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// The window as a screen reader has it.
#include <QAccessible>
#include <QLabel>
#include <QSet>
#include <QStringList>
#include <QWidget>

namespace rankscope::test {

/// Controls that can be seen and take the focus, but have no name. A part that hands its focus on, as the line in a
/// spin box does, is spoken of as the whole.
inline QStringList namelessControls(const QWidget& window)
{
    QStringList found;
    for (QWidget* widget : window.findChildren<QWidget*>()) {
        if (widget->focusPolicy() == Qt::NoFocus || !widget->isVisibleTo(&window) || widget->focusProxy())
            continue;
        const auto* label = qobject_cast<QLabel*>(widget);
        if (label && label->text().isEmpty()) // says nothing yet
            continue;
        const QAccessibleInterface* interface = QAccessible::queryAccessibleInterface(widget);
        const QString name = interface ? interface->text(QAccessible::Name) : QString();
        if (name.trimmed().isEmpty() && widget->accessibleName().isEmpty()) // Qt's tab bars say only their tab
            found << QStringLiteral("%1 \"%2\" in %3")
                         .arg(QString::fromLatin1(widget->metaObject()->className()), widget->objectName(),
                              widget->parentWidget()->objectName());
    }
    return found;
}

/// What can be heard below `interface`: names, values and descriptions.
inline void spoken(QAccessibleInterface* interface, QStringList& words, int depth = 0)
{
    constexpr int k_deepest = 40;
    if (!interface || !interface->isValid() || depth > k_deepest || interface->state().invisible)
        return;
    for (const auto kind : {QAccessible::Name, QAccessible::Value, QAccessible::Description}) {
        const QString text = interface->text(kind);
        if (!text.isEmpty())
            words << text;
    }
    for (int i = 0; i < interface->childCount(); ++i)
        spoken(interface->child(i), words, depth + 1);
}

inline QStringList spoken(QWidget& window)
{
    QStringList words;
    spoken(QAccessible::queryAccessibleInterface(&window), words);
    return words;
}

} // namespace rankscope::test
