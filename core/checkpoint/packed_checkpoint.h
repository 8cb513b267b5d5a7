// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"

#include <filesystem>
#include <memory>

namespace rankscope {

/// Models that were compressed before keep a linear layer in several tensors: codes, scales, zero points,
/// factors. This presents each such layer as what it stands for: one tensor "….weight", out × in, whose type
/// says how it is stored ("gptq int4 g64"), whose bytes are those of its parts and which read() decodes. The
/// parts disappear; every other tensor stays. `view` refuses a packed layer, because it has no bytes of its
/// own.
///
/// `folder` holds the checkpoint, `config` is its config.json. Formats: GPTQ and compressed-tensors, which
/// "quantization_config" names, and Rankscope's own hf-qlr. A checkpoint without packed layers comes back as
/// it is. Nothing but headers is read, except for the shape that compressed-tensors keeps in a tensor of 16
/// bytes a layer. Errors: BadInput (a quantization that is not known, parts that are missing or do not fit
/// together or the config).
Result<std::unique_ptr<CheckpointReader>> with_dense_layers(std::unique_ptr<CheckpointReader> stored,
                                                            const std::filesystem::path& folder,
                                                            const Json& config);

} // namespace rankscope
