// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QHash>
#include <QObject>
#include <QString>
#include <QStringList>
#include <QVector>

class QWidget;

namespace rankscope {

struct GlossaryEntry {
    QString id;
    QString term;
    QStringList words; ///< that stand for it in a text, lower case
    QString text;
};

/// What the program can say about its words and its parts: resources/help/*.json, the source of
/// docs/glossary.md too. Lives on the GUI thread.
class Help {
public:
    static const Help& instance();

    const QVector<GlossaryEntry>& glossary() const { return glossary_; }
    /// Texts for What's This, by the object name of what they are about.
    const QHash<QString, QString>& controls() const { return controls_; }

    /// The entries whose words occur in the text as whole words, in the glossary's order, `most` at most.
    QVector<const GlossaryEntry*> termsIn(const QString& text, int most = 3) const;
    /// Rich text: a paragraph for each entry; empty without any.
    static QString explained(const QVector<const GlossaryEntry*>& entries);
    /// The page docs/glossary.md.
    QString glossaryPage() const;

    /// Gives the named parts of a window their texts.
    void describe(QWidget& window) const;
    /// Rich text about a control: its name, what it or the part that holds it is for, and the words in that;
    /// empty when nothing is known.
    QString about(const QWidget* control) const;

private:
    Help();
    QVector<GlossaryEntry> glossary_;
    QHash<QString, QString> controls_;
};

/// Adds the glossary to the tooltips of column headers and of short labels, in the whole program.
class GlossaryToolTips : public QObject {
    Q_OBJECT

public:
    explicit GlossaryToolTips(QObject* parent);
    /// What would be shown at this place of a widget (its own coordinates); empty: as without.
    static QString textAt(QWidget* widget, const QPoint& place);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;
};

} // namespace rankscope
