// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/checkpoint_copy.h"
#include "core/export/detail/integer_layers.h"

#include <span>
#include <vector>

namespace rankscope::export_common {

/// A Hugging Face folder whose layers hold Q as packed integers on one grid, with a PEFT adapter of L and R
/// beside them. A format adds its tensors, what config.json says of them, and what else it asks for.
class IntegerExporter : public FolderExporter {
public:
    Status accepts(const Run& run, const Model& model) const override;
    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override;

protected:
    /// Bits that a code may take, rising: narrower codes are stored in the next of them.
    virtual std::span<const int> widths() const = 0;
    /// Why the format cannot hold these layers, or success.
    virtual Status accepts_layers(const IntegerLayers& layers, const Model& model) const = 0;
    /// The tensors that take the place of a layer's weight.
    virtual std::vector<TensorSource> tensors(const IntegerTensors& integers, const LinearLayer& layer,
                                              DType scale_type) const = 0;
    /// "quantization_config" of config.json.
    virtual Json quantization_config(const IntegerLayers& layers, const Model& model) const = 0;

    Status write_content(const ExportJob& job, Json& report) const override;
    Status check_content(const ExportJob& job, const Json& report) const override;

private:
    Result<IntegerLayers> find(const ExportJob& job) const;
    Replacements replacements(const ExportJob& job, const IntegerLayers& layers) const;
    Json config_additions(const IntegerLayers& layers, const Model& model) const;
};

} // namespace rankscope::export_common
