// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/run/run.h"

#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace rankscope::test {

/// The sample model; ends the test program when it cannot be opened, as nothing makes sense then.
std::shared_ptr<const Model> sample_model();
/// A small calibration of it in `folder`, made on the CPU.
std::shared_ptr<const CalibrationStore> small_calibration(const std::filesystem::path& folder);
/// Bytes of every file below a folder, by relative name.
std::map<std::string, std::string> folder_content(const std::filesystem::path& folder);
/// A copy of the sample in which the first value of that tensor (F32) is replaced.
void copy_sample_with(const std::filesystem::path& folder, const std::string& tensor, float value);

} // namespace rankscope::test
