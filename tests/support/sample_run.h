// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/plan/layer_plan.h"
#include "tests/support/sample_model.h"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace rankscope::test {

/// A small calibration of it in `folder`, made on the CPU.
std::shared_ptr<const CalibrationStore> small_calibration(const std::filesystem::path& folder);
/// A plan of the sample with 2 bits, groups of 64 and rank 8 where the method has one: with ODLRI it takes
/// long enough to be interrupted.
Plan sample_plan(std::string_view method);
/// A copy of the sample in which the first value of that tensor (F32) is replaced.
void copy_sample_with(const std::filesystem::path& folder, const std::string& tensor, float value);

} // namespace rankscope::test
