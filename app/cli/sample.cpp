// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/sample.h"

namespace rankscope::cli {

Result<std::filesystem::path> find_sample()
{
    namespace fs = std::filesystem;
    constexpr int k_levels = 5; // build/preset/bin is three below the sources
    std::error_code problem;
    const fs::path program = fs::read_symlink("/proc/self/exe", problem);
    fs::path folder = program.parent_path();
    for (int level = 0; level < k_levels && folder.has_relative_path(); ++level) {
        for (const char* place : {"share/rankscope/sample", "resources/sample"}) {
            if (fs::exists(folder / place / "config.json", problem))
                return folder / place;
        }
        folder = folder.parent_path();
    }
    return bad_input("the sample model was not found near the program", program.string(),
                     "Name its folder with --sample");
}

} // namespace rankscope::cli
