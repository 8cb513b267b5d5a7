// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/monitor.h"
#include "core/calibration/calibration_store.h"
#include "core/compute/backend.h"
#include "core/methods/method.h"
#include "core/model/model.h"
#include "core/plan/layer_plan.h"

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// Squared relative error ‖E·H^½‖² / ‖W·H^½‖² of one layer, method and set of parameters by rank (H = 1
/// without a calibration).
struct ErrorCurve {
    std::string layer;
    std::string method;
    Json parameters;                ///< without the rank
    double squared_norm = 0.0;      ///< ‖W·H^½‖²: makes errors of different layers comparable
    std::map<Index, double> points; ///< measured

    /// The lower envelope of the points; between them log error is taken as linear in the rank.
    double error_at(Index rank) const;
    bool measured_at(Index rank) const { return points.contains(rank); }
};

/// Curves kept in a file, each under a key made of everything that its values depend on.
class CurveStore {
public:
    /// What the file holds, or nothing where there is no file yet. An empty path keeps curves in memory only.
    /// Errors: BadInput (no curves, other version, damaged), Io.
    static Result<CurveStore> open(const std::filesystem::path& file);
    /// Replaces the file as a whole. Errors: Io, NoSpace.
    Status save() const;

    const ErrorCurve* find(const std::string& key) const;
    void put(const std::string& key, ErrorCurve curve) { curves_[key] = std::move(curve); }
    std::size_t size() const { return curves_.size(); }

    /// Increases of the loss that were measured (ErrorWeights::Measured), under keys of the same kind.
    std::optional<double> loss_increase(const std::string& key) const;
    void put_loss_increase(const std::string& key, double increase) { increases_[key] = increase; }

private:
    std::filesystem::path file_;
    std::map<std::string, ErrorCurve> curves_;
    std::map<std::string, double> increases_;
};

/// Names a row's result at any rank: weight, method, parameters but the rank, calibration (empty: none), seed.
std::string curve_key(const LayerPlan& row, const Matrix& weight, const std::string& calibration,
                      std::uint64_t seed);

/// True for methods that round first and correct the rounding error afterwards: their factors at rank r are
/// the first r of those at any higher rank, so that one rounding and one decomposition give every rank.
bool ranks_are_nested(const MethodInfo& method);

/// Errors at ranks 0 … rank(L·R) when all but the first r columns of L and rows of R are left out, undamped.
std::vector<double> truncated_errors(const Matrix& weight, const Decomposition& decomposition,
                                     const Moments* moments, Backend& backend);

/// What a row is to be measured at. The row's own rank does not matter.
struct CurveRequest {
    LayerPlan row;
    std::vector<Index> ranks; ///< rising; for methods without a rank {0}
};

/// What measuring needs.
struct CurveSource {
    const Model& model;
    const CalibrationStore* calibration; ///< may be null
    CurveStore& store;
    Backend& backend;
    Monitor& monitor;
};

/// The curve of each request, measured where the store lacks points, which it then holds. Layers are measured
/// in parallel. The store is saved at the end, every half minute, and before a cancellation goes on. Errors:
/// as Method::decompose, naming the layer; Usage when a method needs a calibration.
Result<std::vector<ErrorCurve>> measure_curves(const CurveSource& source, std::uint64_t seed,
                                               std::span<const CurveRequest> requests);

} // namespace rankscope
