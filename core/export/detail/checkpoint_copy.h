// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/detail/folder_exporter.h"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace rankscope::export_common {

/// Name of a checkpoint's tensor → the tensors that stand in its place, each able to make its bytes.
using Replacements = std::map<std::string, std::vector<TensorSource>>;

/// The checkpoint's tensors in its own shards (a single file is called model.safetensors) with some of them
/// replaced, and an index where there are several shards. `note` says in each file what was replaced.
Status write_checkpoint(const ExportJob& job, const Replacements& replacements, const std::string& note);

/// The folder holds exactly those tensors: the replaced ones as their sources make them, the others byte for
/// byte. Errors: BadInput naming the first that differs.
Status check_checkpoint(const ExportJob& job, const Replacements& replacements);

/// What write_checkpoint takes on disk beside the replacements: the bytes of all other tensors and headers.
std::uint64_t untouched_bytes(const Model& model, const std::set<std::string>& replaced);

} // namespace rankscope::export_common
