// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/golden/golden_case.h"

#include <set>

namespace rankscope::golden {

/// How far what was computed is from what is known, each figure as a multiple of its tolerance for a float32
/// path. A tolerance of null means that float32 cannot hold that figure: it does not count. What the case
/// expects and nobody compared counts as failed.
class Verdict {
public:
    explicit Verdict(const GoldenCase& golden) : case_(golden) {}

    /// Against the tensor expect.NAME: relative Frobenius norm, or with a `codes` tolerance the share that
    /// differs.
    void tensor(const std::string& name, const MatrixD& actual);
    void tensor(const std::string& name, const Matrix& actual)
    {
        tensor(name, MatrixD(actual.cast<double>()));
    }
    void scalar(const std::string& name, double actual);
    /// With a relative tolerance of its own, where the case's note gives one.
    void scalar(const std::string& name, double expected, double actual, double tolerance);
    /// Inside the case's band [suspect below, accept up to]: half its width is the tolerance.
    void band(const std::string& name, double actual);
    /// This scalar is the outcome of a chaotic loop: the case's bands judge it.
    void leave_to_bands(const std::string& name) { compared_.insert(name); }
    void fail(std::string reason);
    /// Looks for what was left out.
    void finish();

    bool passed() const { return reason_.empty() && worst_ <= 1.0; }
    double worst() const { return worst_; } ///< multiple of the tolerance
    const std::string& worst_name() const { return worst_name_; }
    const std::string& reason() const { return reason_; } ///< why it failed without a figure; else empty
    int comparisons() const { return comparisons_; }

private:
    void deviation(const std::string& name, double multiple);

    const GoldenCase& case_;
    std::set<std::string> compared_;
    double worst_ = 0.0;
    std::string worst_name_;
    std::string reason_;
    int comparisons_ = 0;
};

} // namespace rankscope::golden
