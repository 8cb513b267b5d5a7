// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/formula_nodes.h"

#include <QFontMetricsF>

#include <algorithm>
#include <cmath>

namespace rankscope::formula {
namespace {

constexpr double k_script_size = 0.7;

QFont scaled(const QFont& font, double factor)
{
    QFont result = font;
    result.setPointSizeF(std::max(4.0, font.pointSizeF() * factor));
    return result;
}

double em(const QFont& font) { return QFontMetricsF(font).height() * 0.85; }
double axis(const QFont& font)
{
    return QFontMetricsF(font).xHeight() * 0.55;
} ///< height of a fraction's bar
double stroke(const QFont& font) { return std::max(1.0, em(font) / 16.0); }

class Glyphs final : public Node {
public:
    Glyphs(QString text, bool italic, double before, double after, double size)
        : text_(std::move(text)), italic_(italic), before_(before), after_(after), size_(size)
    {}
    Extent measure(const QFont& font) const override
    {
        const QFontMetricsF metrics(face(font));
        const QRectF ink = metrics.tightBoundingRect(text_);
        const double drop = shift(font);
        return {metrics.horizontalAdvance(text_) + (before_ + after_) * em(font),
                std::max(-ink.top() - drop, metrics.xHeight()), std::max(0.0, ink.bottom() + drop)};
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        painter.setFont(face(font));
        painter.setPen(ink.text);
        painter.drawText(at + QPointF(before_ * em(font), shift(font)), text_);
    }
    QString spoken() const override
    {
        return before_ > 0.0 ? QLatin1Char(' ') + text_ + QLatin1Char(' ') : text_;
    }
    bool stacksScripts() const override { return size_ > 1.0; }

private:
    QFont face(const QFont& font) const
    {
        QFont result = scaled(font, size_);
        result.setItalic(italic_);
        return result;
    }
    /// Large signs are centered about the axis.
    double shift(const QFont& font) const
    {
        if (size_ <= 1.0)
            return 0.0;
        const QRectF ink = QFontMetricsF(face(font)).tightBoundingRect(text_);
        return -ink.center().y() - axis(font);
    }
    QString text_;
    bool italic_;
    double before_, after_, size_;
};

class Space final : public Node {
public:
    explicit Space(double ems) : ems_(ems) {}
    Extent measure(const QFont& font) const override { return {ems_ * em(font), 0.0, 0.0}; }
    void paint(QPainter&, QPointF, const QFont&, const Formula::Ink&) const override {}
    QString spoken() const override { return QStringLiteral(" "); }

private:
    double ems_;
};

class Row final : public Node {
public:
    explicit Row(std::vector<NodePointer> parts) : parts_(std::move(parts)) {}
    Extent measure(const QFont& font) const override
    {
        Extent whole;
        for (const NodePointer& part : parts_) {
            const Extent one = part->measure(font);
            whole.width += one.width;
            whole.ascent = std::max(whole.ascent, one.ascent);
            whole.descent = std::max(whole.descent, one.descent);
        }
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        for (const NodePointer& part : parts_) {
            part->paint(painter, at, font, ink);
            at.rx() += part->measure(font).width;
        }
    }
    QString spoken() const override
    {
        QString text;
        for (const NodePointer& part : parts_)
            text += part->spoken();
        return text;
    }
    void collectTerms(QStringList& terms) const override
    {
        for (const NodePointer& part : parts_)
            part->collectTerms(terms);
    }
    bool stacksScripts() const override { return parts_.size() == 1 && parts_.front()->stacksScripts(); }

private:
    std::vector<NodePointer> parts_;
};

class Fraction final : public Node {
public:
    Fraction(NodePointer above, NodePointer below) : above_(std::move(above)), below_(std::move(below)) {}
    Extent measure(const QFont& font) const override
    {
        const Extent top = above_->measure(part(font));
        const Extent bottom = below_->measure(part(font));
        const double gap = em(font) * 0.18;
        return {std::max(top.width, bottom.width) + em(font) * 0.4,
                axis(font) + gap + top.ascent + top.descent,
                bottom.ascent + bottom.descent + gap - axis(font)};
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        const Extent whole = measure(font);
        const Extent top = above_->measure(part(font));
        const Extent bottom = below_->measure(part(font));
        const double gap = em(font) * 0.18;
        const double bar = at.y() - axis(font);
        const double edge = em(font) * 0.08;
        painter.setPen(QPen(ink.text, stroke(font)));
        painter.drawLine(QPointF(at.x() + edge, bar), QPointF(at.x() + whole.width - edge, bar));
        above_->paint(painter, {at.x() + (whole.width - top.width) / 2.0, bar - gap - top.descent},
                      part(font), ink);
        below_->paint(painter, {at.x() + (whole.width - bottom.width) / 2.0, bar + gap + bottom.ascent},
                      part(font), ink);
    }
    QString spoken() const override
    {
        return QStringLiteral("(%1) / (%2)").arg(above_->spoken(), below_->spoken());
    }
    void collectTerms(QStringList& terms) const override
    {
        above_->collectTerms(terms);
        below_->collectTerms(terms);
    }

private:
    static QFont part(const QFont& font) { return scaled(font, 0.9); }
    NodePointer above_, below_;
};

class Root final : public Node {
public:
    explicit Root(NodePointer inside) : inside_(std::move(inside)) {}
    Extent measure(const QFont& font) const override
    {
        Extent whole = inside_->measure(font);
        whole.width += em(font) * 0.75;
        whole.ascent += em(font) * 0.22;
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        const Extent whole = measure(font);
        const double unit = em(font);
        const double top = at.y() - whole.ascent + unit * 0.06;
        painter.setPen(QPen(ink.text, stroke(font)));
        painter.setBrush(Qt::NoBrush);
        painter.drawPolyline(QPolygonF{{at.x() + unit * 0.05, at.y() - unit * 0.25},
                                       {at.x() + unit * 0.2, at.y() - unit * 0.32},
                                       {at.x() + unit * 0.38, at.y() + whole.descent},
                                       {at.x() + unit * 0.58, top},
                                       {at.x() + whole.width - unit * 0.05, top}});
        inside_->paint(painter, {at.x() + unit * 0.64, at.y()}, font, ink);
    }
    QString spoken() const override { return QStringLiteral("√(%1)").arg(inside_->spoken()); }
    void collectTerms(QStringList& terms) const override { inside_->collectTerms(terms); }

private:
    NodePointer inside_;
};

class Accent final : public Node {
public:
    Accent(NodePointer inside, bool hat) : inside_(std::move(inside)), hat_(hat) {}
    Extent measure(const QFont& font) const override
    {
        Extent whole = inside_->measure(font);
        whole.ascent += em(font) * 0.24;
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        inside_->paint(painter, at, font, ink);
        const Extent inside = inside_->measure(font);
        const double low = at.y() - inside.ascent - em(font) * 0.08;
        const double high = low - em(font) * 0.13;
        const double middle = at.x() + inside.width * 0.54;
        painter.setPen(QPen(ink.text, stroke(font)));
        if (hat_) {
            const double half = std::min(inside.width * 0.35, em(font) * 0.3);
            painter.drawPolyline(QPolygonF{{middle - half, low}, {middle, high}, {middle + half, low}});
        } else {
            painter.drawLine(QPointF(at.x() + inside.width * 0.1, low), QPointF(at.x() + inside.width, low));
        }
    }
    QString spoken() const override
    {
        return inside_->spoken() + (hat_ ? QStringLiteral(" hat") : QStringLiteral(" bar"));
    }
    void collectTerms(QStringList& terms) const override { inside_->collectTerms(terms); }

private:
    NodePointer inside_;
    bool hat_;
};

/// Brackets as high as what they hold, stretched from their own glyphs.
class Brackets final : public Node {
public:
    Brackets(QString left, NodePointer inside, QString right)
        : left_(std::move(left)), right_(std::move(right)), inside_(std::move(inside))
    {}
    Extent measure(const QFont& font) const override
    {
        Extent whole = inside_->measure(font);
        whole.width += 2.0 * side(font);
        whole.ascent += em(font) * 0.08;
        whole.descent += em(font) * 0.08;
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        const Extent whole = measure(font);
        stretched(painter, left_, {at.x(), at.y() - whole.ascent}, whole, font, ink);
        inside_->paint(painter, {at.x() + side(font), at.y()}, font, ink);
        stretched(painter, right_, {at.x() + whole.width - side(font), at.y() - whole.ascent}, whole, font,
                  ink);
    }
    QString spoken() const override { return left_ + inside_->spoken() + right_; }
    void collectTerms(QStringList& terms) const override { inside_->collectTerms(terms); }

private:
    static double side(const QFont& font) { return em(font) * 0.42; }
    static void stretched(QPainter& painter, const QString& sign, QPointF top, const Extent& whole,
                          const QFont& font, const Formula::Ink& ink)
    {
        const QRectF box = QFontMetricsF(font).tightBoundingRect(sign);
        if (box.height() <= 0.0)
            return;
        painter.save();
        painter.setFont(font);
        painter.setPen(ink.text);
        painter.translate(top.x() + (side(font) - box.width()) / 2.0, top.y());
        painter.scale(1.0, (whole.ascent + whole.descent) / box.height());
        painter.drawText(QPointF(-box.left(), -box.top()), sign);
        painter.restore();
    }
    QString left_, right_;
    NodePointer inside_;
};

class Scripts final : public Node {
public:
    Scripts(NodePointer base, NodePointer above, NodePointer below)
        : base_(std::move(base)), above_(std::move(above)), below_(std::move(below))
    {}
    Extent measure(const QFont& font) const override
    {
        Extent whole = base_->measure(font);
        const Extent up = above_ ? above_->measure(part(font)) : Extent{};
        const Extent down = below_ ? below_->measure(part(font)) : Extent{};
        if (base_->stacksScripts()) {
            whole.width = std::max({whole.width, up.width, down.width});
            whole.ascent += above_ ? up.ascent + up.descent + gap(font) : 0.0;
            whole.descent += below_ ? down.ascent + down.descent + gap(font) : 0.0;
            return whole;
        }
        const Extent base = whole;
        whole.width += std::max(up.width, down.width) + em(font) * 0.06;
        if (above_)
            whole.ascent = std::max(whole.ascent, rise(base, font) + up.ascent);
        if (below_)
            whole.descent = std::max(whole.descent, drop(base, font) + down.descent);
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        const Extent base = base_->measure(font);
        if (base_->stacksScripts()) {
            const double width = measure(font).width;
            base_->paint(painter, {at.x() + (width - base.width) / 2.0, at.y()}, font, ink);
            if (above_) {
                const Extent up = above_->measure(part(font));
                above_->paint(
                    painter,
                    {at.x() + (width - up.width) / 2.0, at.y() - base.ascent - gap(font) - up.descent},
                    part(font), ink);
            }
            if (below_) {
                const Extent down = below_->measure(part(font));
                below_->paint(
                    painter,
                    {at.x() + (width - down.width) / 2.0, at.y() + base.descent + gap(font) + down.ascent},
                    part(font), ink);
            }
            return;
        }
        base_->paint(painter, at, font, ink);
        const double x = at.x() + base.width + em(font) * 0.04;
        if (above_)
            above_->paint(painter, {x, at.y() - rise(base, font)}, part(font), ink);
        if (below_)
            below_->paint(painter, {x, at.y() + drop(base, font)}, part(font), ink);
    }
    QString spoken() const override
    {
        QString text = base_->spoken();
        if (below_)
            text += QStringLiteral("_(%1)").arg(below_->spoken());
        if (above_)
            text += QStringLiteral("^(%1)").arg(above_->spoken());
        return text;
    }
    void collectTerms(QStringList& terms) const override
    {
        for (const NodePointer* part : {&base_, &above_, &below_})
            if (*part)
                (*part)->collectTerms(terms);
    }

private:
    static QFont part(const QFont& font) { return scaled(font, k_script_size); }
    static double gap(const QFont& font) { return em(font) * 0.12; }
    static double rise(const Extent& base, const QFont& font)
    {
        return std::max(base.ascent - em(font) * 0.22, em(font) * 0.34);
    }
    static double drop(const Extent& base, const QFont& font)
    {
        return std::max(base.descent + em(font) * 0.05, em(font) * 0.2);
    }
    NodePointer base_, above_, below_;
};

class Term final : public Node {
public:
    Term(QString name, NodePointer inside) : name_(std::move(name)), inside_(std::move(inside)) {}
    Extent measure(const QFont& font) const override
    {
        Extent whole = inside_->measure(font);
        whole.descent += em(font) * 0.14; // room for the line, lit or not: nothing moves
        return whole;
    }
    void paint(QPainter& painter, QPointF at, const QFont& font, const Formula::Ink& ink) const override
    {
        if (ink.term != name_ || name_.isEmpty()) {
            inside_->paint(painter, at, font, ink);
            return;
        }
        Formula::Ink bright = ink;
        bright.text = ink.lit;
        inside_->paint(painter, at, font, bright);
        const Extent inside = inside_->measure(font);
        const double line = at.y() + inside.descent + em(font) * 0.09;
        painter.setPen(QPen(ink.lit, 2.0 * stroke(font)));
        painter.drawLine(QPointF(at.x(), line), QPointF(at.x() + inside.width, line));
    }
    QString spoken() const override { return inside_->spoken(); }
    void collectTerms(QStringList& terms) const override
    {
        if (!terms.contains(name_))
            terms << name_;
        inside_->collectTerms(terms);
    }
    bool stacksScripts() const override { return inside_->stacksScripts(); }

private:
    QString name_;
    NodePointer inside_;
};

} // namespace

NodePointer glyphs(QString text, bool italic, double space_before, double space_after, double size)
{
    return std::make_unique<Glyphs>(std::move(text), italic, space_before, space_after, size);
}
NodePointer space(double ems) { return std::make_unique<Space>(ems); }
NodePointer row(std::vector<NodePointer> parts) { return std::make_unique<Row>(std::move(parts)); }
NodePointer fraction(NodePointer above, NodePointer below)
{
    return std::make_unique<Fraction>(std::move(above), std::move(below));
}
NodePointer root(NodePointer inside) { return std::make_unique<Root>(std::move(inside)); }
NodePointer accent(NodePointer inside, bool hat) { return std::make_unique<Accent>(std::move(inside), hat); }
NodePointer brackets(QString left, NodePointer inside, QString right)
{
    return std::make_unique<Brackets>(std::move(left), std::move(inside), std::move(right));
}
NodePointer scripts(NodePointer base, NodePointer above, NodePointer below)
{
    return std::make_unique<Scripts>(std::move(base), std::move(above), std::move(below));
}
NodePointer term(QString name, NodePointer inside)
{
    return std::make_unique<Term>(std::move(name), std::move(inside));
}

} // namespace rankscope::formula
