// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/help/help.h"

#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "core/base/json.h"

#include <QApplication>
#include <QFile>
#include <QHeaderView>
#include <QHelpEvent>
#include <QLabel>
#include <QToolTip>

namespace rankscope {
namespace {

constexpr int k_longest_label = 48; ///< a longer text is read, not looked up

Json resource(const char* name)
{
    QFile file(QStringLiteral(":/help/%1.json").arg(QString::fromLatin1(name)));
    if (!file.open(QIODevice::ReadOnly))
        return {};
    const QByteArray bytes = file.readAll();
    auto json = Json::parse(std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())));
    return json ? std::move(*json) : Json();
}

bool hasWord(const QString& text, const QString& word)
{
    for (qsizetype at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
        const qsizetype end = at + word.size();
        if ((at == 0 || !text[at - 1].isLetterOrNumber())
            && (end == text.size() || !text[end].isLetterOrNumber()))
            return true;
    }
    return false;
}

/// The column that a place in a header belongs to, as its title and tooltip.
QString headerText(const QHeaderView& header, const QPoint& place, QString& tip)
{
    const int section = header.logicalIndexAt(place);
    if (section < 0 || !header.model())
        return {};
    tip = header.model()->headerData(section, header.orientation(), Qt::ToolTipRole).toString();
    return header.model()->headerData(section, header.orientation()).toString();
}

} // namespace

const Help& Help::instance()
{
    static const Help help;
    return help;
}

Help::Help()
{
    Theme::instance(); // resources of a static library are there once someone asks
    const Json entries = resource("glossary");
    if (const Json::Array* list = entries.array_if())
        for (const Json& entry : *list) {
            GlossaryEntry one{toQString(entry["id"].string()),
                              toQString(entry["term"].string()),
                              {},
                              toQString(entry["text"].string())};
            if (const Json::Array* words = entry["words"].array_if())
                for (const Json& word : *words)
                    one.words << toQString(word.string());
            glossary_ << one;
        }
    const Json texts = resource("controls");
    if (const Json::Object* object = texts.object_if())
        for (const auto& [name, text] : *object)
            controls_.insert(toQString(name), toQString(text.string()));
}

QVector<const GlossaryEntry*> Help::termsIn(const QString& text, int most) const
{
    QVector<const GlossaryEntry*> found;
    const QString lower = text.toLower();
    for (const GlossaryEntry& entry : glossary_) {
        if (found.size() == most)
            break;
        for (const QString& word : entry.words)
            if (hasWord(lower, word)) {
                found << &entry;
                break;
            }
    }
    return found;
}

QString Help::explained(const QVector<const GlossaryEntry*>& entries)
{
    QString text;
    for (const GlossaryEntry* entry : entries)
        text += QStringLiteral("<p><b>%1.</b> %2</p>")
                    .arg(entry->term.toHtmlEscaped(), entry->text.toHtmlEscaped());
    return text;
}

QString Help::glossaryPage() const
{
    QString page =
        QStringLiteral("# Glossary\n\nThe words of the window and the command line. This page is what "
                       "`rankscope --glossary` prints; the\nwindow shows the same texts in tooltips and "
                       "with F1.\n");
    for (const GlossaryEntry& entry : glossary_)
        page += QStringLiteral("\n## %1\n\n%2\n").arg(entry.term, entry.text);
    return page;
}

void Help::describe(QWidget& window) const
{
    for (auto text = controls_.begin(); text != controls_.end(); ++text)
        for (QWidget* widget : window.findChildren<QWidget*>(text.key()))
            widget->setWhatsThis(text.value());
}

QString Help::about(const QWidget* control) const
{
    QString name;
    QString own;
    for (const QWidget* widget = control; widget; widget = widget->parentWidget()) {
        if (name.isEmpty())
            name = widget->accessibleName().isEmpty() ? widget->windowTitle() : widget->accessibleName();
        if (own.isEmpty() && widget == control)
            own = widget->toolTip();
        if (widget->whatsThis().isEmpty())
            continue;
        QString text =
            name.isEmpty() ? QString() : QStringLiteral("<p><b>%1</b></p>").arg(name.toHtmlEscaped());
        if (!own.isEmpty())
            text += QStringLiteral("<p>%1</p>").arg(Qt::mightBeRichText(own) ? own : own.toHtmlEscaped());
        text += QStringLiteral("<p>%1</p>").arg(widget->whatsThis().toHtmlEscaped());
        return text
               + explained(termsIn(name + QLatin1Char(' ') + own + QLatin1Char(' ') + widget->whatsThis()));
    }
    return {};
}

GlossaryToolTips::GlossaryToolTips(QObject* parent) : QObject(parent) { qApp->installEventFilter(this); }

QString GlossaryToolTips::textAt(QWidget* widget, const QPoint& place)
{
    QString shown;
    QString tip;
    if (const auto* header = qobject_cast<QHeaderView*>(widget->parentWidget());
        header && widget == header->viewport()) {
        shown = headerText(*header, place, tip);
    } else if (const auto* label = qobject_cast<QLabel*>(widget)) {
        if (label->text().size() > k_longest_label)
            return {};
        tip = label->toolTip();
        shown = label->text() + QLatin1Char(' ') + label->accessibleName();
    }
    if (shown.isEmpty())
        return {};
    const QString terms = Help::explained(Help::instance().termsIn(shown + QLatin1Char(' ') + tip, 2));
    if (terms.isEmpty())
        return {};
    if (tip.isEmpty())
        return terms;
    return QStringLiteral("<p>%1</p>").arg(Qt::mightBeRichText(tip) ? tip : tip.toHtmlEscaped()) + terms;
}

bool GlossaryToolTips::eventFilter(QObject* watched, QEvent* event)
{
    if (event->type() == QEvent::ToolTip) {
        auto* widget = qobject_cast<QWidget*>(watched);
        const auto* help = static_cast<QHelpEvent*>(event);
        if (widget) {
            if (const QString text = textAt(widget, help->pos()); !text.isEmpty()) {
                QToolTip::showText(help->globalPos(), text, widget);
                return true;
            }
        }
    }
    return QObject::eventFilter(watched, event);
}

} // namespace rankscope
