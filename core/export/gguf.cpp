// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/gguf.h"

#include "core/export/detail/gguf_file.h"

namespace rankscope {
namespace {

using namespace export_common;

constexpr char k_file[] = "model.gguf";
constexpr std::uint64_t k_texts_bytes = 1 << 20; // metadata and the report, generously

class GgufExporter : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{
            "gguf", "GGUF, one file",
            "A model that llama.cpp runs by itself: layers without L·R in the block "
            "format that holds their Q exactly, Q + L·R dense"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override
    {
        if (auto fits = check_weights_alone(run, model); !fits)
            return fits;
        return check_gguf(model);
    }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override
    {
        auto plan = plan_gguf({run, model, {}, silent_monitor()}, GgufFactorsGo::IntoWeights);
        if (!plan)
            return plan.error();
        return gguf_bytes(model, *plan) + 2 * companion_bytes(model) + k_texts_bytes; // the vocabulary is one
    }

protected:
    Status write_content(const ExportJob& job, Json& report) const override
    {
        auto plan = plan_gguf(job, GgufFactorsGo::IntoWeights);
        if (!plan)
            return plan.error();
        describe_storage(*plan, report);
        report.set("model", k_file);
        return write_gguf_model(job, *plan, k_file);
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        auto plan = plan_gguf(job, GgufFactorsGo::IntoWeights);
        if (!plan)
            return plan.error();
        return check_gguf_model(job, *plan, k_file);
    }
};

} // namespace

const Exporter& gguf_exporter()
{
    static const GgufExporter exporter;
    return exporter;
}

} // namespace rankscope
