// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/tensor/matrix.h"

#include <filesystem>
#include <map>
#include <string>

namespace rankscope::golden {

/// One known answer: NAME.json with method, parameters, scalars and tolerances, and NAME.safetensors beside
/// it with the inputs under plain names and the results as `expect.*`.
class GoldenCase {
public:
    /// Errors: Io, BadInput.
    static Result<GoldenCase> read(const std::filesystem::path& json_file);

    const std::string& name() const { return name_; }
    const std::string& method() const { return method_; }
    const Json& parameters() const { return json_["parameters"]; }
    const Json& json() const { return json_; }

    bool has(std::string_view tensor) const { return tensors_.contains(tensor); }
    /// In float64, whatever it was stored in; a vector is one row, more than two dimensions are (first ×
    /// rest). Empty when there is no such tensor.
    const MatrixD& tensor(std::string_view name) const;
    Matrix single(std::string_view name) const { return tensor(name).cast<float>(); }

private:
    std::string name_;
    std::string method_;
    Json json_;
    std::map<std::string, MatrixD, std::less<>> tensors_;
};

} // namespace rankscope::golden
