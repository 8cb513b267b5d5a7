// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"
#include "core/model/rotation.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace rankscope {

inline constexpr char k_rotation_file[] = "rankscope-rotation.json";

/// What a rotated model's folder says. Its weights are turned as they are read, so that it holds nothing
/// else: the file k_rotation_file.
struct RotationManifest {
    std::filesystem::path checkpoint; ///< the model itself, absolute
    std::string checkpoint_hash;
    std::uint64_t seed = 0;

    static bool is_rotated(const std::filesystem::path& folder);
    /// Errors: Io, BadInput.
    static Result<RotationManifest> read(const std::filesystem::path& folder);
};

/// The model's checkpoint rotated by this, tensor by tensor under its own names and with gains of 1; tied
/// embeddings get a head of their own, as only the head takes the final norm's gain. view() of the
/// embedding shows its rows unrotated, and refuses other tensors that a rotation changes.
std::unique_ptr<CheckpointReader> rotated_checkpoint(std::unique_ptr<CheckpointReader> stored,
                                                     const RotationManifest& manifest,
                                                     const std::filesystem::path& folder,
                                                     const Architecture& architecture,
                                                     const ModelConfig& config);

/// Makes `folder` a rotated model of the one at `checkpoint`. Errors: BadInput (no model, one that cannot be
/// rotated or is rotated already, `folder` exists), Io.
Status write_rotated_model(const std::filesystem::path& checkpoint, std::uint64_t seed,
                           const std::filesystem::path& folder, bool replace);

} // namespace rankscope
