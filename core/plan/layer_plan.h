// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/methods/method_info.h"
#include "core/model/model.h"

#include <filesystem>
#include <string>
#include <vector>

namespace rankscope {

/// What happens to one linear.
struct LayerPlan {
    std::string layer;       ///< LinearLayer::name
    bool include = true;     ///< false: the weight stays as it is
    std::string method;      ///< MethodInfo::id
    Parameters parameters;   ///< complete for that method
    bool locked = false;     ///< kept by allotment

    bool operator==(const LayerPlan&) const = default;
};

/// One row per linear of a checkpoint, with what names the result: checkpoint, calibration, seed.
struct Plan {
    std::string checkpoint_hash;
    std::string calibration_id; ///< may be empty while planning
    std::uint64_t seed = 0;
    std::vector<LayerPlan> rows;

    bool operator==(const Plan&) const = default;
    const LayerPlan* find(std::string_view layer) const;
    Json to_json() const;
    static Result<Plan> from_json(const Json& json);
    static Result<Plan> read(const std::filesystem::path& file);
    Status write(const std::filesystem::path& file, bool replace) const;
    /// Every row names a linear of the model and its parameters are legal for that shape (rank, group). Errors: Usage.
    Status check(const Model& model) const;
};

/// The same method for all linears; those whose name matches none of `globs` (comma-separated; empty: all match) are
/// not included. A rank, or a number of outlier channels, that was not `given` is lowered to what fits each matrix; a
/// given one that does not fit is a Usage error naming the first such layer. A rank may be a share of each matrix,
/// "10%" (rank_share.h), here and in apply_setting.
Result<Plan> uniform_plan(const Model& model, std::string_view method,
                          const std::map<std::string, ParameterValue, std::less<>>& given, std::uint64_t seed,
                          std::string_view globs = {});

/// Applies `GLOB:key=value,key=value` (keys: method, include, locked, and the method's parameters), as --set does. A
/// change of method keeps the parameters that both methods have. With a model, defaults that come in with another
/// method are lowered to fit the matrix. All rows are changed or none. Errors: Usage (naming key, value, row).
Status apply_setting(Plan& plan, std::string_view setting, const Model* model = nullptr);
/// Whether that setting gives the layer's row a value for `key`. Errors: Usage, as apply_setting.
Result<bool> setting_gives(std::string_view setting, std::string_view layer, std::string_view key);
/// The setting text that sets exactly this row; apply_setting(setting_text(row)) is the identity.
std::string setting_text(const LayerPlan& row);

/// Shell-like pattern with * and ?, case-sensitive, over the whole name; a backslash takes the next character as it is.
bool glob_match(std::string_view pattern, std::string_view name);
/// Comma-separated globs.
bool glob_match_any(std::string_view patterns, std::string_view name);

/// Exact size of a row's result before it is computed: bits per weight incl. scales, zeros and factors.
double planned_bits_per_weight(const LayerPlan& row, const LinearLayer& layer);
/// The same in bytes, rounded up.
std::uint64_t planned_bytes(const LayerPlan& row, const LinearLayer& layer);
struct PlanSize {
    std::uint64_t original_bytes = 0;   ///< included linears as stored in the checkpoint
    std::uint64_t planned_bytes = 0;
    double bits_per_weight = 0.0;       ///< mean over included linears
};
PlanSize planned_size(const Plan& plan, const Model& model);

} // namespace rankscope
