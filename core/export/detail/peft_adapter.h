// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/export_common.h"
#include "core/export/detail/folder_exporter.h"

#include <cstdint>

namespace rankscope::export_common {

/// Folder of the adapter inside an export.
inline constexpr char k_adapter_folder[] = "adapter";

/// L·R as a PEFT LoRA adapter (formats.md §4): why some layer cannot be adapted, or success. A run without
/// L·R needs no adapter and passes.
Status check_adaptable(const Run& run, const Model& model);

/// Upper bound of the adapter's files, taking factors as F16.
std::uint64_t adapter_bytes(const Run& run, const Model& model);

/// Writes job.folder/adapter; nothing when no layer has L·R.
Status write_peft_adapter(const ExportJob& job);
/// Reads it back: configuration, names, types, and every value as the run has it, rounded to its type.
Status check_peft_adapter(const ExportJob& job);

} // namespace rankscope::export_common
