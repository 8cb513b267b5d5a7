// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/hidden_states.h"
#include "core/calibration/token_windows.h"
#include "core/methods/block_reconstruction.h"
#include "core/model/model.h"

#include <filesystem>

namespace rankscope {

/// Rounded activations of the published settings of LRQ (methods-learned §1.4): what linears read, and keys
/// and values before their rotation, to `bits` each. Keys and values have a range for each token; inputs too,
/// or one for the tensor. L·R reads the rounded input as well.
struct ActivationSimulation {
    int bits = 8;
    bool static_ranges = false;
    std::map<int, ActivationRanges> kept; ///< of blocks: those that a run was learned with
    std::filesystem::path ranges_text;    ///< the others are measured on this text, in the compressed model
    Index ranges_samples = 64;            ///< sequences of it, as long as the evaluation's windows
};

/// The input of the final norm for every token of the windows, with activations rounded on the way. Errors:
/// Usage (experts, a rotated model, layers that round their own inputs, no text to measure ranges on), those
/// of the weights and of the text. Throws Cancelled, BackendFailure.
Result<HiddenStates> simulated_states(const Model& model, const WeightSource& weights,
                                      const TokenWindows& windows, const ActivationSimulation& simulation,
                                      std::uint64_t memory_budget_bytes, Backend& backend, Monitor& monitor);

} // namespace rankscope
