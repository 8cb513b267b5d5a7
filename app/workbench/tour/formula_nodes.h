// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/tour/formula.h"

namespace rankscope::formula {

/// The measure of a part, from its baseline.
struct Extent {
    double width = 0.0;
    double ascent = 0.0;
    double descent = 0.0;
};

/// A part of a formula. Nothing is cached: formulas are short and drawn once a page.
class Node {
public:
    virtual ~Node() = default;
    virtual Extent measure(const QFont& font) const = 0;
    /// `at`: left end of the baseline.
    virtual void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const = 0;
    virtual QString spoken() const = 0;
    virtual void collectTerms(QStringList&) const {}
    virtual bool stacksScripts() const { return false; } ///< sums carry them above and below
};
using NodePointer = std::unique_ptr<Node>;

NodePointer glyphs(QString text, bool italic, double space_before, double space_after, double size = 1.0);
NodePointer space(double ems);
NodePointer row(std::vector<NodePointer> parts);
NodePointer fraction(NodePointer above, NodePointer below);
NodePointer root(NodePointer inside);
NodePointer accent(NodePointer inside, bool hat);
NodePointer brackets(QString left, NodePointer inside, QString right);
NodePointer scripts(NodePointer base, NodePointer above, NodePointer below);
NodePointer term(QString name, NodePointer inside);

} // namespace rankscope::formula
