// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QColor>
#include <QFont>
#include <QPainter>
#include <QString>
#include <QStringList>

#include <memory>
#include <vector>

namespace rankscope {

namespace formula {
class Node;
}

/// A formula that is drawn as one: fractions, roots, sub- and superscripts, accents, growing brackets.
/// Written in a small part of TeX:
///   x_i^2 {group} \frac{a}{b} \sqrt{a} \hat{W} \bar{x} \sum_{t} \mathrm{top} \left( … \right)
///   \left\lfloor … \right\rceil \log \, (thin space) \quad (where a line may end) \{ \}
///   \term{name}{…}: a part that can be lit.
/// Latin letters are italic, everything else stands upright. Greek letters and signs are written as
/// themselves.
class Formula {
public:
    Formula();
    explicit Formula(const QString& source);
    ~Formula();
    Formula(Formula&&) noexcept;
    Formula& operator=(Formula&&) noexcept;

    /// Why the source could not be read; empty: it could. What could be read is drawn all the same.
    const QString& problem() const { return problem_; }
    QStringList terms() const; ///< names that can be lit, in order

    struct Ink {
        QColor text;
        QColor lit;   ///< of the lit term, which also gets a line below
        QString term; ///< which one; empty: none
    };
    /// Room that it takes in lines of at most this width; a line is broken at \quad only.
    QSizeF size(const QFont& font, double width) const;
    void paint(QPainter& painter, const QRectF& area, const QFont& font, const Ink& ink) const;
    /// As text for who does not see it: "W ≈ Q + (a) / (b)".
    QString spoken() const;

private:
    std::vector<std::unique_ptr<formula::Node>> lines_; ///< parts between \quad
    QString problem_;
};

} // namespace rankscope
