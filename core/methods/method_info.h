// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rankscope {

using ParameterValue = std::variant<bool, std::int64_t, double, std::string>;
std::string to_string(const ParameterValue& value);
Json to_json(const ParameterValue& value);

enum class ParameterType : std::uint8_t { Flag, Integer, Real, Choice };

/// One typed parameter of a method: the single description behind --help, plan validation, the workbench's
/// editors and the documentation.
struct ParameterInfo {
    std::string name;  ///< as in plans, golden cases and --set: "rank"
    std::string title; ///< "Rank"
    ParameterType type = ParameterType::Integer;
    ParameterValue fallback; ///< default; for `derived` ones what is shown
    double minimum = 0.0;    ///< Integer, Real
    double maximum = 0.0;
    std::vector<std::string> choices; ///< Choice
    std::string unit;                 ///< "bits", "inputs"; may be empty
    std::string help;                 ///< one sentence
};

/// What a method must be given besides the weight.
struct MethodNeeds {
    bool hessian = false;
    bool quantized_activations = false; ///< their covariances too, unless its activation_bits say 16
};

class Parameters;

struct MethodInfo {
    std::string id;      ///< "odlri"
    std::string title;   ///< "ODLRI"
    std::string summary; ///< one sentence
    std::string source;  ///< paper with arXiv number
    MethodNeeds needs;
    bool has_low_rank = false;
    std::vector<ParameterInfo> parameters;
    /// Says why values that are fine each by itself do not go together; null: all do.
    Status (*check)(const Parameters&) = nullptr;

    const ParameterInfo* find(std::string_view name) const;
};

/// Values for a method's parameters, complete and checked.
class Parameters {
public:
    std::int64_t integer(std::string_view name) const; ///< asserts that the method declares it
    double real(std::string_view name) const;
    bool flag(std::string_view name) const;
    const std::string& text(std::string_view name) const;
    const std::map<std::string, ParameterValue, std::less<>>& values() const { return values_; }
    bool operator==(const Parameters&) const = default;

    /// Defaults, overridden by `given` (values or their texts). Errors: Usage: unknown name (with the known
    /// ones), wrong type, out of range, values that do not go together.
    static Result<Parameters> make(const MethodInfo& method,
                                   const std::map<std::string, ParameterValue, std::less<>>& given);
    /// Usage error when values do not go together (MethodInfo::check).
    Status check(const MethodInfo& method) const;
    /// Copy with one value changed, which is checked by itself: call check() after the last of several changes.
    Result<Parameters> with(const MethodInfo& method, std::string_view name,
                            const ParameterValue& value) const;
    Json to_json() const;
    static Result<Parameters> from_json(const MethodInfo& method, const Json& object);

private:
    std::map<std::string, ParameterValue, std::less<>> values_;
};

} // namespace rankscope
