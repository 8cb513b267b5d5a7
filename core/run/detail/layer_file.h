// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/methods/method.h"
#include "core/plan/layer_plan.h"

#include <cstdint>
#include <filesystem>

namespace rankscope {

/// layers/NAME.safetensors of a run. Its bytes follow from the plan row and the decomposition alone: nothing
/// that changes from run to run (times, paths, threads) is in it.
std::filesystem::path layer_file_path(const std::filesystem::path& run_folder, std::string_view layer);

Status write_layer_file(const std::filesystem::path& file, const LayerPlan& row,
                        const Decomposition& decomposition);
/// Errors: BadInput (missing tensor, shapes that do not fit together), Io.
Result<Decomposition> read_layer_file(const std::filesystem::path& file);

/// Bytes that the file of this row will have, from above.
std::uint64_t layer_file_bytes(const LayerPlan& row, const LinearLayer& layer);

} // namespace rankscope
