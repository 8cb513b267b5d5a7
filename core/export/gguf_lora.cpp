// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/gguf_lora.h"

#include "core/export/detail/gguf_file.h"
#include "core/export/detail/peft_adapter.h"

namespace rankscope {
namespace {

using namespace export_common;

constexpr char k_base_file[] = "base.gguf";
constexpr char k_adapter_file[] = "lora.gguf";
constexpr std::uint64_t k_texts_bytes = 1 << 20; // metadata and the report, generously

class GgufLoraExporter : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{
            "gguf-lora", "GGUF base + LoRA adapter",
            "base.gguf holds Q in llama.cpp's block formats (F16 where none holds it), "
            "lora.gguf L and R: llama-cli -m base.gguf --lora lora.gguf"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override
    {
        if (auto fits = check_weights_alone(run, model); !fits)
            return fits;
        if (auto factors = require_factors(run, "gguf"); !factors)
            return factors;
        return check_gguf(model);
    }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override
    {
        auto plan = plan_gguf({run, model, {}, silent_monitor()}, GgufFactorsGo::IntoAdapter);
        if (!plan)
            return plan.error();
        return gguf_bytes(model, *plan) + 2 * companion_bytes(model) + k_texts_bytes; // the vocabulary is one
    }

protected:
    Status write_content(const ExportJob& job, Json& report) const override
    {
        auto plan = plan_gguf(job, GgufFactorsGo::IntoAdapter);
        if (!plan)
            return plan.error();
        describe_storage(*plan, report);
        report.set("model", k_base_file);
        report.set("adapter", k_adapter_file);
        if (auto written = write_gguf_model(job, *plan, k_base_file); !written)
            return written;
        return write_gguf_adapter(job, *plan, k_adapter_file);
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        auto plan = plan_gguf(job, GgufFactorsGo::IntoAdapter);
        if (!plan)
            return plan.error();
        if (auto same = check_gguf_model(job, *plan, k_base_file); !same)
            return same;
        return check_gguf_adapter(job, *plan, k_adapter_file);
    }
};

} // namespace

const Exporter& gguf_lora_exporter()
{
    static const GgufLoraExporter exporter;
    return exporter;
}

} // namespace rankscope
