// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <filesystem>
#include <optional>

namespace rankscope::test {

/// The folder with golden cases and reference models: $RANKSCOPE_SHARED, the CMake cache's, or ../shared
/// beside the sources. Empty where there is none: tests then QSKIP(k_no_shared).
std::optional<std::filesystem::path> shared_folder();
inline constexpr char k_no_shared[] =
    "no reference data here: set RANKSCOPE_SHARED to the folder that holds golden/ and models/";

/// resources/sample of the source tree.
std::filesystem::path sample_folder();
/// Small files that came from other programs, kept with the tests.
std::filesystem::path data_folder();
/// A folder of the build tree for files that a person looks at afterwards (screenshots); made if need be.
std::filesystem::path artifact_folder();
/// build/bin, where the programs are.
std::filesystem::path program_folder();

} // namespace rankscope::test
