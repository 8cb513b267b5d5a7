// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "tests/support/sample_model.h"

#include <filesystem>
#include <memory>
#include <string>

namespace rankscope::test {

/// A small calibration of it in `folder`, made on the CPU.
std::shared_ptr<const CalibrationStore> small_calibration(const std::filesystem::path& folder);
/// A copy of the sample in which the first value of that tensor (F32) is replaced.
void copy_sample_with(const std::filesystem::path& folder, const std::string& tensor, float value);

} // namespace rankscope::test
