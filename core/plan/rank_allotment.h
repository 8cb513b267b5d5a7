// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/plan/budget.h"
#include "core/plan/layer_plan.h"
#include "core/plan/layer_spectrum.h"

#include <memory>
#include <span>
#include <vector>

namespace rankscope {

/// The ranks that a plan's rows may take, with the errors that the spectra of their rounding residuals
/// predict: made once, then asked for one budget after the other (a slider). Bits and methods stay as
/// planned. Rows that are locked, that have no rank, or whose spectrum is not known keep their rank. Const;
/// what it holds is its own.
class RankAllotment {
public:
    /// Multiples of the step, up to the highest or the first that leaves no error.
    struct Ranks {
        Index step = 16;
        Index highest = 256;
    };

    /// `spectra`: one for each row of the plan, null where it is not known; of the row's grid, with or
    /// without moments. Errors: Usage (a step below 1, other numbers of spectra than of rows, a row that
    /// names no linear, no row that could change).
    static Result<RankAllotment> make(const Plan& plan, const Model& model,
                                      std::span<const std::shared_ptr<const LayerSpectrum>> spectra,
                                      const Ranks& ranks);

    std::uint64_t least_bytes() const { return least_bytes_; }
    std::uint64_t most_bytes() const { return most_bytes_; }
    Index rows() const { return static_cast<Index>(layers_.size()); } ///< included rows
    Index free_rows() const { return free_rows_; }                    ///< those whose rank may change

    struct Choice {
        Plan plan;
        std::uint64_t bytes = 0;
        double mean_error =
            0.0; ///< root mean square of the predicted relative errors of the rows with a spectrum
        double worst_error = 0.0; ///< the largest of them
        bool proven = false;      ///< no other ranks within the budget have a smaller mean error
    };
    /// The ranks of least mean squared error whose bytes stay within the budget. Not `exact`: the rounded
    /// relaxation, for a slider that is being dragged. Errors: Usage (a budget below least_bytes, naming
    /// both).
    Result<Choice> at(std::uint64_t bytes, bool exact, Monitor& monitor = silent_monitor()) const;

private:
    struct Row {
        std::size_t index = 0; ///< in the plan
        std::vector<LayerPlan> options;
        bool known = false; ///< there is a spectrum: its error counts
    };

    Plan plan_;
    std::vector<Row> rows_;
    std::vector<BudgetLayer> layers_;
    std::uint64_t least_bytes_ = 0;
    std::uint64_t most_bytes_ = 0;
    Index free_rows_ = 0;
};

} // namespace rankscope
