// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/compressed_tensors.h"
#include "core/export/exporter.h"
#include "core/export/gguf.h"
#include "core/export/gguf_lora.h"
#include "core/export/gptq.h"
#include "core/export/hf.h"
#include "core/export/hf_qlr.h"
#include "core/export/peft.h"
#include "core/export/report.h"

#include <algorithm>
#include <array>

namespace rankscope {

std::span<const Exporter* const> exporters()
{
    static const std::array all = {
        &hf_exporter(),   &hf_qlr_exporter(), &peft_exporter(),      &compressed_tensors_exporter(),
        &gptq_exporter(), &gguf_exporter(),   &gguf_lora_exporter(), &report_exporter()};
    return all;
}

std::uint64_t checkpoint_bytes(const Model& model)
{
    std::uint64_t bytes = 0;
    for (const TensorInfo& tensor : model.checkpoint().tensors())
        bytes += tensor.bytes;
    return bytes;
}

Result<const Exporter*> require_exporter(std::string_view id)
{
    const auto all = exporters();
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const Exporter* exporter) { return exporter->info().id == id; });
    if (found != all.end())
        return *found;
    std::string known;
    for (const Exporter* exporter : all)
        known += (known.empty() ? "" : ", ") + exporter->info().id;
    return usage_error("there is no export format \"" + std::string(id) + "\"", "--format",
                       "Choose one of: " + known);
}

} // namespace rankscope
