// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/test_paths.h"

#include <cstdlib>

namespace rankscope::test {

std::optional<std::filesystem::path> shared_folder()
{
    const char* variable = std::getenv("RANKSCOPE_SHARED");
    const std::filesystem::path candidates[] = {variable ? variable : "", RANKSCOPE_DEFAULT_SHARED,
                                                std::filesystem::path(RANKSCOPE_SOURCE_DIR).parent_path()
                                                    / "shared"};
    for (const auto& folder : candidates) {
        if (!folder.empty() && std::filesystem::is_directory(folder / "golden"))
            return folder;
    }
    return std::nullopt;
}

std::filesystem::path sample_folder()
{
    return std::filesystem::path(RANKSCOPE_SOURCE_DIR) / "resources" / "sample";
}

std::filesystem::path data_folder()
{
    return std::filesystem::path(RANKSCOPE_SOURCE_DIR) / "tests" / "core" / "data";
}

std::filesystem::path artifact_folder()
{
    const auto folder = std::filesystem::path(RANKSCOPE_BINARY_DIR) / "artifacts";
    std::filesystem::create_directories(folder);
    return folder;
}

std::filesystem::path program_folder() { return std::filesystem::path(RANKSCOPE_BINARY_DIR) / "bin"; }

} // namespace rankscope::test
