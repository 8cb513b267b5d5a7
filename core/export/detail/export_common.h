// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/exporter.h"
#include "core/tensor/half.h"

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

/// What the Hugging Face exporters share.
namespace rankscope::export_common {

/// The run is complete, was made from this very checkpoint, and its layers are matrices of float tensors in
/// it.
Status check_exportable(const Run& run, const Model& model);

/// The folder that holds the checkpoint's config.json and tokenizer.
std::filesystem::path model_folder(const Model& model);
/// Configuration, tokenizer, chat template and licence files that stand beside the checkpoint, by name.
std::vector<std::string> companion_files(const Model& model);
std::uint64_t companion_bytes(const Model& model);
Status copy_companions(const Model& model, const std::filesystem::path& folder);
/// Every companion in `folder` has the bytes of the original.
Status check_companions(const Model& model, const std::filesystem::path& folder);

/// A tensor's bytes as they stand in the checkpoint.
Result<std::vector<std::byte>> original_bytes(const Model& model, const std::string& tensor);
/// Q + L·R of a layer in `dtype`, laid out as the checkpoint stores it. Errors: BadInput (another shape than the checkpoint's, or a value beyond
/// the dtype).
Result<std::vector<std::byte>> dense_bytes(const Run& run, const LinearLayer& layer, DType dtype);

/// The tensor `name` of `reader` has this type, shape and content. Errors: BadInput naming it.
Status compare_tensor(const CheckpointReader& reader, const std::string& name, DType dtype,
                      const Shape& shape, const std::vector<std::byte>& bytes);

/// What was done, layer by layer: plan row, bits and errors; with the run's origin.
Json describe_run(const Run& run, const Model& model, std::string_view format);

/// Names of the layers that the run replaced.
std::vector<std::string> replaced_layers(const Run& run);

} // namespace rankscope::export_common
