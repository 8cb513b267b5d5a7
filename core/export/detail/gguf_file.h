// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/export_common.h"
#include "core/export/detail/folder_exporter.h"
#include "core/model/gguf_form.h"

#include <map>
#include <string>
#include <vector>

namespace rankscope::export_common {

/// How one layer of the run goes into a GGUF file.
struct GgufLayer {
    const LinearLayer* layer = nullptr;
    DensePart part = DensePart::Base;
    GgufStorage storage;
    Index rank = 0; ///< of the pair in the adapter; 0: none
    DType left = DType::F16;
    DType right = DType::F16;
};

/// What a pass over the run decides.
struct GgufPlan {
    GgufForm form;
    std::map<std::string, GgufLayer> layers; ///< by the tensor of ours that they replace

    bool has_adapter() const;
};

/// Whether L·R goes into an adapter, or into the weights.
enum class GgufFactorsGo : std::uint8_t { IntoAdapter, IntoWeights };

/// Layers whose Q stands alone take the block format that holds it exactly; what no block holds, and Q + L·R,
/// stays dense: F16 (F32 where F16 loses) for Q, the checkpoint's own type for Q + L·R. Errors: those of
/// GgufForm::of.
Result<GgufPlan> plan_gguf(const ExportJob& job, GgufFactorsGo factors);

/// Whether the model has a form and a tokenizer that llama.cpp knows.
Status check_gguf(const Model& model);

/// Writes job.folder/file: metadata, vocabulary and all tensors.
Status write_gguf_model(const ExportJob& job, const GgufPlan& plan, const std::string& file);
/// Every tensor has the bytes that it should, and a model opened from the file has the weights that it
/// should.
Status check_gguf_model(const ExportJob& job, const GgufPlan& plan, const std::string& file);

/// Writes L and R as a LoRA adapter of llama.cpp's (formats.md §3).
Status write_gguf_adapter(const ExportJob& job, const GgufPlan& plan, const std::string& file);
Status check_gguf_adapter(const ExportJob& job, const GgufPlan& plan, const std::string& file);

/// The metadata of a file are these; numbers of F32 only have to be there, because the file rounds them.
Status compare_gguf_values(const CheckpointReader& reader, const GgufValues& expected);
/// The file holds these tensors and no others. Errors: BadInput naming the first that differs.
Status compare_gguf_tensors(const CheckpointReader& reader, const std::vector<GgufTensorSource>& sources,
                            Monitor& monitor);

/// Adds to the report what each layer is stored as.
void describe_storage(const GgufPlan& plan, Json& report);

/// Upper bound of the bytes of all tensors, the adapter's included, and of their headers.
std::uint64_t gguf_bytes(const Model& model, const GgufPlan& plan);

} // namespace rankscope::export_common
