// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <filesystem>

namespace rankscope::cli {

/// The sample that comes with the program: share/rankscope/sample beside the installed binary's folder, or
/// resources/sample of the source tree that the binary was built in.
Result<std::filesystem::path> find_sample();

} // namespace rankscope::cli
