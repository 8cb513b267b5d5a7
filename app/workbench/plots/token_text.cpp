// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/token_text.h"

#include <QList>

namespace rankscope {

QString tokenText(const QString& token, const QFontMetrics& font)
{
    if (token.isEmpty())
        return QStringLiteral("“”");
    QString shown;
    const auto characters = token.toUcs4();
    for (const uint character : characters) {
        if (character == U' ') {
            shown += font.inFontUcs4(0x2423) ? QChar(0x2423) : QLatin1Char('_');
            continue;
        }
        if (character == U'\n' || character == U'\t' || character == U'\r') {
            shown +=
                character == U'\n' ? QLatin1String("\\n") : QLatin1String(character == U'\t' ? "\\t" : "\\r");
            continue;
        }
        // A mark needs a letter before it, and a format character shows nothing.
        const QChar::Category category = QChar::category(character);
        const bool mark = category == QChar::Mark_NonSpacing || category == QChar::Mark_Enclosing
                          || category == QChar::Mark_SpacingCombining;
        const bool visible = QChar::isPrint(character) && category != QChar::Other_Format
                             && category != QChar::Separator_Space && !(mark && shown.isEmpty())
                             && font.inFontUcs4(character);
        if (visible)
            shown += QString::fromUcs4(reinterpret_cast<const char32_t*>(&character), 1);
        else
            shown += QStringLiteral("\\u{%1}")
                         .arg(character, 0, 16)
                         .toUpper()
                         .replace(QLatin1String("\\U"), QLatin1String("\\u"));
    }
    return shown;
}

} // namespace rankscope
