// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/formula.h"

#include "app/workbench/tour/formula_nodes.h"

#include <algorithm>

namespace rankscope {
namespace {

using formula::Extent;
using formula::NodePointer;

constexpr double k_least_size = 6.0; ///< points
constexpr double k_line_gap = 0.35;  ///< of a line's height
constexpr int k_most_depth = 24;

/// Recursive descent over the source; what it does not know it names in problem().
class Parser {
public:
    explicit Parser(const QString& source) : source_(source) {}

    std::vector<NodePointer> lines()
    {
        std::vector<NodePointer> result;
        std::vector<NodePointer> parts;
        while (!atEnd()) {
            if (take(QStringLiteral("\\quad"))) {
                result.push_back(formula::row(std::move(parts)));
                parts.clear();
            } else if (NodePointer part = scripted()) {
                parts.push_back(std::move(part));
            }
        }
        result.push_back(formula::row(std::move(parts)));
        return result;
    }
    const QString& problem() const { return problem_; }

private:
    bool atEnd()
    {
        while (at_ < source_.size() && source_[at_] == QLatin1Char(' '))
            ++at_;
        return at_ >= source_.size();
    }
    bool take(const QString& text)
    {
        if (!source_.mid(at_).startsWith(text))
            return false;
        at_ += text.size();
        return true;
    }
    void complain(const QString& what)
    {
        if (problem_.isEmpty())
            problem_ = QStringLiteral("%1 at character %2 of \"%3\"").arg(what).arg(at_).arg(source_);
    }

    NodePointer scripted()
    {
        NodePointer base = atom();
        NodePointer above, below;
        while (!atEnd() && (source_[at_] == QLatin1Char('^') || source_[at_] == QLatin1Char('_'))) {
            NodePointer& target = source_[at_] == QLatin1Char('^') ? above : below;
            if (target)
                complain(QStringLiteral("a second script"));
            ++at_;
            target = argument();
        }
        if (!above && !below)
            return base;
        return formula::scripts(base ? std::move(base) : formula::space(0.0), std::move(above),
                                std::move(below));
    }

    /// {…} or a single atom.
    NodePointer argument()
    {
        if (atEnd()) {
            complain(QStringLiteral("an argument is missing"));
            return formula::space(0.0);
        }
        if (source_[at_] == QLatin1Char('{'))
            return group();
        NodePointer one = atom();
        return one ? std::move(one) : formula::space(0.0);
    }

    NodePointer group()
    {
        ++at_; // the brace
        if (++depth_ > k_most_depth) {
            complain(QStringLiteral("braces too deep"));
            at_ = source_.size();
            return formula::space(0.0);
        }
        std::vector<NodePointer> parts;
        while (!atEnd() && source_[at_] != QLatin1Char('}'))
            if (NodePointer part = scripted())
                parts.push_back(std::move(part));
        if (atEnd())
            complain(QStringLiteral("a brace has no partner"));
        else
            ++at_;
        --depth_;
        return formula::row(std::move(parts));
    }

    QString plain()
    {
        QString text;
        if (atEnd() || source_[at_] != QLatin1Char('{')) {
            complain(QStringLiteral("a name in braces is missing"));
            return text;
        }
        const auto end = source_.indexOf(QLatin1Char('}'), at_);
        if (end < 0) {
            complain(QStringLiteral("a brace has no partner"));
            at_ = source_.size();
            return text;
        }
        text = source_.mid(at_ + 1, end - at_ - 1);
        at_ = end + 1;
        return text.replace(QStringLiteral("\\ "), QStringLiteral(" "));
    }

    NodePointer bracketed()
    {
        const QString left = delimiter();
        std::vector<NodePointer> parts;
        while (!atEnd() && !source_.mid(at_).startsWith(QLatin1String("\\right")))
            if (NodePointer part = scripted())
                parts.push_back(std::move(part));
        if (!take(QStringLiteral("\\right")))
            complain(QStringLiteral("\\left has no \\right"));
        return formula::brackets(left, formula::row(std::move(parts)), delimiter());
    }

    QString delimiter()
    {
        if (take(QStringLiteral("\\lfloor")))
            return QStringLiteral("⌊");
        if (take(QStringLiteral("\\rceil")))
            return QStringLiteral("⌉");
        return atEnd() ? QString() : QString(source_[at_++]);
    }

    NodePointer command()
    {
        static const QString letters = QStringLiteral("abcdefghijklmnopqrstuvwxyz");
        QString name;
        while (at_ < source_.size() && letters.contains(source_[at_]))
            name += source_[at_++];
        if (name.isEmpty()) { // \, \{ \}
            const QChar sign = at_ < source_.size() ? source_[at_++] : QLatin1Char(' ');
            return sign == QLatin1Char(',')   ? formula::space(0.17)
                   : sign == QLatin1Char(' ') ? formula::space(0.3)
                                              : formula::glyphs(QString(sign), false, 0.0, 0.0);
        }
        if (name == QLatin1String("frac")) {
            NodePointer above = argument();
            return formula::fraction(std::move(above), argument());
        }
        if (name == QLatin1String("sqrt"))
            return formula::root(argument());
        if (name == QLatin1String("hat") || name == QLatin1String("bar"))
            return formula::accent(argument(), name == QLatin1String("hat"));
        if (name == QLatin1String("mathrm"))
            return formula::glyphs(plain(), false, 0.08, 0.08);
        if (name == QLatin1String("log"))
            return formula::glyphs(name, false, 0.08, 0.08);
        if (name == QLatin1String("sum"))
            return formula::glyphs(QStringLiteral("∑"), false, 0.08, 0.12, 1.35);
        if (name == QLatin1String("left"))
            return bracketed();
        if (name == QLatin1String("lfloor") || name == QLatin1String("rceil"))
            return formula::glyphs(
                name == QLatin1String("lfloor") ? QStringLiteral("⌊") : QStringLiteral("⌉"), false, 0.0, 0.0);
        if (name == QLatin1String("term")) {
            const QString id = plain();
            return formula::term(id, argument());
        }
        complain(QStringLiteral("unknown command \\%1").arg(name));
        return nullptr;
    }

    NodePointer atom()
    {
        if (atEnd())
            return nullptr;
        const QChar sign = source_[at_];
        if (sign == QLatin1Char('{'))
            return group();
        ++at_;
        if (sign == QLatin1Char('\\'))
            return command();
        if (sign == QLatin1Char('}')) {
            complain(QStringLiteral("a brace too many"));
            return nullptr;
        }
        static const QString relations = QStringLiteral("=≈<>≤≥∝∈←→");
        static const QString operators = QStringLiteral("+−·×");
        if (relations.contains(sign))
            return formula::glyphs(QString(sign), false, 0.26, 0.26);
        if (operators.contains(sign))
            return formula::glyphs(QString(sign), false, 0.16, 0.16);
        if (sign == QLatin1Char(','))
            return formula::glyphs(QString(sign), false, 0.0, 0.1);
        const bool latin = sign.unicode() < 128 && sign.isLetter();
        return formula::glyphs(QString(sign), latin, 0.0, latin ? 0.03 : 0.0);
    }

    QString source_;
    qsizetype at_ = 0;
    int depth_ = 0;
    QString problem_;
};

struct Line {
    std::vector<const formula::Node*> parts;
    Extent extent;
};

std::vector<Line> flow(const std::vector<NodePointer>& parts, const QFont& font, double width)
{
    std::vector<Line> lines;
    const double gap = QFontMetricsF(font).height();
    for (const NodePointer& part : parts) {
        const Extent extent = part->measure(font);
        const bool fits = !lines.empty() && lines.back().extent.width + gap + extent.width <= width;
        if (!fits)
            lines.push_back({});
        Line& line = lines.back();
        line.extent.width += extent.width + (line.parts.empty() ? 0.0 : gap);
        line.extent.ascent = std::max(line.extent.ascent, extent.ascent);
        line.extent.descent = std::max(line.extent.descent, extent.descent);
        line.parts.push_back(part.get());
    }
    return lines;
}

/// A line that is too long even alone is drawn smaller.
QFont fitted(const std::vector<NodePointer>& parts, const QFont& font, double width)
{
    const auto widest = [&parts](const QFont& tried) {
        double most = 0.0;
        for (const NodePointer& part : parts)
            most = std::max(most, part->measure(tried).width);
        return most;
    };
    QFont result = font;
    // Glyphs are hinted, so that widths do not follow the size exactly: down until it fits.
    while (width > 0.0 && result.pointSizeF() > k_least_size && widest(result) > width)
        result.setPointSizeF(std::max(k_least_size, result.pointSizeF() * 0.96));
    return result;
}

} // namespace

Formula::Formula() = default;
Formula::~Formula() = default;
Formula::Formula(Formula&&) noexcept = default;
Formula& Formula::operator=(Formula&&) noexcept = default;

Formula::Formula(const QString& source)
{
    Parser parser(source);
    lines_ = parser.lines();
    problem_ = parser.problem();
}

QStringList Formula::terms() const
{
    QStringList names;
    for (const NodePointer& line : lines_)
        line->collectTerms(names);
    return names;
}

QSizeF Formula::size(const QFont& font, double width) const
{
    const QFont used = fitted(lines_, font, width);
    QSizeF whole(0.0, 0.0);
    for (const Line& line : flow(lines_, used, width)) {
        const double height = line.extent.ascent + line.extent.descent;
        whole.setWidth(std::max(whole.width(), line.extent.width));
        whole.rheight() += height + k_line_gap * QFontMetricsF(used).height();
    }
    return whole;
}

void Formula::paint(QPainter& painter, const QRectF& area, const QFont& font, const Ink& ink) const
{
    const QFont used = fitted(lines_, font, area.width());
    const double gap = QFontMetricsF(used).height();
    double y = area.top() + 0.5 * k_line_gap * gap;
    for (const Line& line : flow(lines_, used, area.width())) {
        double x = area.left();
        y += line.extent.ascent;
        for (const formula::Node* part : line.parts) {
            part->paint(painter, {x, y}, used, ink);
            x += part->measure(used).width + gap;
        }
        y += line.extent.descent + k_line_gap * gap;
    }
}

QString Formula::spoken() const
{
    QStringList parts;
    for (const NodePointer& line : lines_)
        parts << line->spoken().simplified();
    return parts.join(QStringLiteral("; "));
}

} // namespace rankscope
