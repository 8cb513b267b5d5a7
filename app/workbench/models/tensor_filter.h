// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>
#include <QVector>

#include <limits>

namespace rankscope {

/// What a filter can ask about a tensor.
struct TensorFacts {
    QString name;   ///< as in the checkpoint
    QString role;   ///< "q", "down", "norm", …
    QString dtype;  ///< "BF16"
    int block = -1; ///< decoder block; −1: none
    double crest = std::numeric_limits<double>::quiet_NaN();
    double kurtosis = std::numeric_limits<double>::quiet_NaN();
};

/// The filter box of the checkpoint tree. Words separated by blanks must all match: `role:down`,
/// `layer:10-20`, `dtype:bf16`, `kurtosis>8`, `max/rms<12`; a word with * or ? is a glob over the whole name;
/// any other word is looked for inside the name, whatever its case.
class TensorFilter {
public:
    TensorFilter() = default;
    explicit TensorFilter(const QString& text);

    bool empty() const { return terms_.isEmpty(); }
    bool matches(const TensorFacts& tensor) const;

private:
    enum class Kind { Inside, Glob, Role, Dtype, Block, Kurtosis, Crest };
    struct Term {
        Kind kind = Kind::Inside;
        QString text;
        double low = 0.0;
        double high = 0.0;
    };
    static Term parse(const QString& word);
    static bool matches(const Term& term, const TensorFacts& tensor);

    QVector<Term> terms_;
};

} // namespace rankscope
