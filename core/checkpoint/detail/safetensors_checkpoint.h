// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_reader.h"
#include "core/tensor/mapped_file.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rankscope::detail {

/// Tensors of one safetensors file or of several shards, seen as one checkpoint.
class SafetensorsCheckpoint : public CheckpointReader {
public:
    /// Maps the files and checks their headers. Errors: Io; BadInput, also when two files hold the same
    /// tensor.
    static Result<std::unique_ptr<SafetensorsCheckpoint>> open(const std::filesystem::path& path,
                                                               std::vector<std::filesystem::path> files);

    const std::filesystem::path& path() const override { return path_; }
    std::span<const std::filesystem::path> files() const override { return files_; }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return metadata_; }
    std::string header_hash() const override { return header_hash_; }
    Result<TensorView> view(std::string_view name) const override;

private:
    SafetensorsCheckpoint() = default;
    Status sort_and_check();

    std::filesystem::path path_;
    std::vector<std::filesystem::path> files_;
    std::vector<std::shared_ptr<const MappedFile>> mappings_;
    std::vector<TensorInfo> tensors_;
    Json metadata_;
    std::string header_hash_;
};

/// A single .safetensors file.
Result<std::unique_ptr<CheckpointReader>> open_safetensors_file(const std::filesystem::path& path,
                                                                const std::filesystem::path& file);
/// Shards named by an index file in the same folder.
Result<std::unique_ptr<CheckpointReader>> open_sharded_folder(const std::filesystem::path& path,
                                                              const std::filesystem::path& index_file);

} // namespace rankscope::detail
