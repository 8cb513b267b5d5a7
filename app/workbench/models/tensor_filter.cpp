// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/tensor_filter.h"

#include "app/workbench/text.h"
#include "core/plan/layer_plan.h"

#include <QRegularExpression>
#include <QStringList>

#include <algorithm>

namespace rankscope {

namespace {
constexpr double k_infinity = std::numeric_limits<double>::infinity();
}

TensorFilter::TensorFilter(const QString& text)
{
    static const QRegularExpression blanks(QStringLiteral("\\s+"));
    for (const QString& word : text.split(blanks, Qt::SkipEmptyParts))
        terms_.append(parse(word));
}

TensorFilter::Term TensorFilter::parse(const QString& word)
{
    static const QRegularExpression comparison(
        QStringLiteral("^(kurtosis|max/rms|crest)([<>])([0-9]+(?:\\.[0-9]+)?)$"),
        QRegularExpression::CaseInsensitiveOption);
    static const QRegularExpression range(QStringLiteral("^layer:(\\d{1,6})(?:-(\\d{1,6}))?$"),
                                          QRegularExpression::CaseInsensitiveOption);
    if (const auto match = comparison.match(word); match.hasMatch()) {
        Term term;
        term.kind = match.captured(1).toLower() == QLatin1String("kurtosis") ? Kind::Kurtosis : Kind::Crest;
        const double bound = match.captured(3).toDouble();
        const bool above = match.captured(2) == QLatin1String(">");
        term.low = above ? bound : -k_infinity;
        term.high = above ? k_infinity : bound;
        return term;
    }
    if (const auto match = range.match(word); match.hasMatch()) {
        const double first = match.captured(1).toDouble();
        const double last = match.captured(2).isEmpty() ? first : match.captured(2).toDouble();
        return {Kind::Block, {}, std::min(first, last), std::max(first, last)};
    }
    if (word.startsWith(QLatin1String("role:"), Qt::CaseInsensitive))
        return {Kind::Role, word.mid(5).toLower(), 0.0, 0.0};
    if (word.startsWith(QLatin1String("dtype:"), Qt::CaseInsensitive))
        return {Kind::Dtype, word.mid(6).toUpper(), 0.0, 0.0};
    const bool glob = word.contains(QLatin1Char('*')) || word.contains(QLatin1Char('?'));
    return {glob ? Kind::Glob : Kind::Inside, word, 0.0, 0.0};
}

bool TensorFilter::matches(const TensorFacts& tensor) const
{
    return std::all_of(terms_.cbegin(), terms_.cend(),
                       [&](const Term& term) { return matches(term, tensor); });
}

bool TensorFilter::matches(const Term& term, const TensorFacts& tensor)
{
    switch (term.kind) {
    case Kind::Inside:
        return tensor.name.contains(term.text, Qt::CaseInsensitive);
    case Kind::Glob: {
        // A layer is named without ".weight" on the command line; a glob written that way must work here too.
        const std::string pattern = toStd(term.text);
        QString layer = tensor.name;
        if (layer.endsWith(QLatin1String(".weight")))
            layer.chop(7);
        return glob_match_any(pattern, toStd(tensor.name)) || glob_match_any(pattern, toStd(layer));
    }
    case Kind::Role:
        return tensor.role == term.text;
    case Kind::Dtype:
        return tensor.dtype == term.text;
    case Kind::Block:
        return tensor.block >= term.low && tensor.block <= term.high;
    case Kind::Kurtosis:
        return tensor.kurtosis > term.low && tensor.kurtosis < term.high;
    case Kind::Crest:
        return tensor.crest > term.low && tensor.crest < term.high;
    }
    return false;
}

} // namespace rankscope
