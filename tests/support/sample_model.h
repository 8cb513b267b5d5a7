// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/run/run.h"
#include "core/tensor/matrix.h"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace rankscope::test {

/// The sample checkpoint. Fails the process with a message when it cannot be opened.
std::shared_ptr<const Model> sample_model();

/// A copy of the sample in `folder` whose tensors went through `change` (name, values); for broken or other
/// checkpoints.
Status copy_sample(const std::filesystem::path& folder,
                   const std::function<void(std::string_view, Matrix&)>& change, DType dtype = DType::F32);

/// The sample as a folder of three shards with their index, named as on the Hub.
Status shard_sample(const std::filesystem::path& folder);

/// Calibrates the sample on a little text, with the covariances of activations rounded so where a method
/// needs them, and runs one plan for all layers, in `folder`/calibration and `folder`/run.
Result<std::shared_ptr<const Run>>
make_sample_run(const std::shared_ptr<const Model>& model, const std::filesystem::path& folder,
                std::string_view method, const std::map<std::string, ParameterValue, std::less<>>& parameters,
                const ActivationQuantization& rounding = {});

/// Every regular file below `folder`: path relative to it → content.
std::map<std::string, std::string> folder_contents(const std::filesystem::path& folder);

} // namespace rankscope::test
