// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/smoothed_checkpoint.h"

#include "core/base/atomic_file.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/compute/job_border.h"
#include "core/export/detail/export_common.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr char k_report_file[] = "smoothing.json";

bool reads_attention_norm(LinearRole role)
{
    return role == LinearRole::Query || role == LinearRole::Key || role == LinearRole::Value
           || role == LinearRole::QueryKeyValue;
}

bool reads_mlp_norm(LinearRole role)
{
    return role == LinearRole::Gate || role == LinearRole::Up || role == LinearRole::GateUp;
}

/// How the entries of a tensor are multiplied.
struct Change {
    VectorD factors;      ///< one for each input of a matrix, each entry of a vector
    bool by_rows = false; ///< stored as in × out
    double offset = 0.0;  ///< a gain that is stored as its difference from 1
};
using Changes = std::map<std::string, Change>;

Status add_changes(const Model& model, const SmoothingGroup& group, const VectorD& scales, Changes& changes)
{
    const Index width = group.linears.front()->in;
    if (scales.size() != width || !scales.allFinite() || scales.minCoeff() <= 0.0)
        return bad_input(fmt::format("smoothing needs {} positive factors", width), group.norm);
    const VectorD inverse = scales.cwiseInverse();
    const NormKind kind = model.architecture().norm_kind();
    changes[group.norm] = {inverse, false, kind == NormKind::RootMeanSquareFromOne ? 1.0 : 0.0};
    if (kind == NormKind::MeanVariance)
        changes[norm_bias(group.norm)] = {inverse, false, 0.0};
    for (const LinearLayer* layer : group.linears)
        changes[layer->weight()] = {scales, layer->transposed, 0.0};
    for (const std::string& router : group.routers)
        changes[router] = {scales, false, 0.0};
    return {};
}

Result<std::vector<std::byte>> changed_bytes(const Model& model, const std::string& tensor,
                                             const Change& change)
{
    auto read = model.checkpoint().read(tensor);
    if (!read)
        return read.error();
    MatrixD values = read->cast<double>();
    values.array() += change.offset;
    const Index expected = change.by_rows ? values.rows() : values.cols();
    if (expected != change.factors.size())
        return bad_input("its shape does not fit the factors of smoothing", tensor);
    if (change.by_rows)
        values = change.factors.asDiagonal() * values;
    else
        values = values * change.factors.asDiagonal();
    values.array() -= change.offset;
    const Matrix single = values.cast<float>();
    if (!single.allFinite())
        return bad_input("smoothing leaves the range of 32-bit floating point", tensor,
                         "Choose a smaller alpha.");
    const auto* bytes = reinterpret_cast<const std::byte*>(single.data());
    return std::vector<std::byte>(bytes, bytes + static_cast<std::size_t>(single.size()) * sizeof(float));
}

std::vector<TensorSource> sources_of(const Model& model, const Changes& changes, Monitor& monitor)
{
    std::vector<TensorSource> sources;
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        const auto found = changes.find(info.name);
        TensorSource source{info.name, found == changes.end() ? info.dtype : DType::F32, info.shape, {}};
        source.fill = [&model, &monitor, name = info.name,
                       change = found == changes.end() ? nullptr : &found->second]() {
            monitor.throw_if_cancelled();
            return change ? changed_bytes(model, name, *change) : export_common::original_bytes(model, name);
        };
        sources.push_back(std::move(source));
    }
    return sources;
}

} // namespace

std::vector<SmoothingGroup> smoothing_groups(const Model& model)
{
    std::vector<SmoothingGroup> groups;
    for (int block = 0; block < static_cast<int>(model.config().blocks); ++block) {
        const BlockNames names = model.architecture().block_names(model.config(), block);
        std::vector<SmoothingGroup> own;
        const auto group_of = [&](const std::string& norm) -> SmoothingGroup& {
            const auto found =
                std::find_if(own.begin(), own.end(), [&](const auto& group) { return group.norm == norm; });
            return found != own.end() ? *found : own.emplace_back(SmoothingGroup{block, norm, {}, {}});
        };
        for (const LinearLayer& layer : model.linears()) {
            if (layer.block != block)
                continue;
            if (reads_attention_norm(layer.role) && !names.attention_norm.empty())
                group_of(names.attention_norm).linears.push_back(&layer);
            else if (reads_mlp_norm(layer.role) && !names.mlp_norm.empty())
                group_of(names.mlp_norm).linears.push_back(&layer);
        }
        for (const std::string* router : {&names.router, &names.shared_gate})
            if (!router->empty() && !names.mlp_norm.empty())
                group_of(names.mlp_norm).routers.push_back(*router);
        groups.insert(groups.end(), own.begin(), own.end());
    }
    return groups;
}

bool is_smoothed(const fs::path& folder)
{
    std::error_code problem;
    return fs::is_regular_file(folder / k_report_file, problem);
}

Status write_smoothed_checkpoint(const Model& model,
                                 const std::function<Result<VectorD>(const SmoothingGroup&)>& scales,
                                 const fs::path& folder, const SmoothedCheckpointOptions& options,
                                 Monitor& monitor)
{
    return at_job_border("nothing was written", [&]() -> Status {
        if (model.checkpoint().files().front().extension() == ".gguf")
            return bad_input(
                "a smoothed checkpoint is written as a Hugging Face folder, which a GGUF file is not",
                model.path().string(), "Give the folder that the file was made from.");
        if (model.rotation())
            return usage_error(
                "a rotated model's gains are folded into its weights already: no norm is left that "
                "could take the factors",
                model.path().string(), "Smooth the model first and rotate the copy");
        const std::vector<SmoothingGroup> groups = smoothing_groups(model);
        if (groups.empty())
            return usage_error("no linear of this model reads a norm that could take the factors",
                               model.path().string());
        if (auto ours = options.replace ? require_replaceable(folder, k_report_file) : Status{}; !ours)
            return ours;
        Changes changes;
        std::uint64_t bytes = 0;
        for (const SmoothingGroup& group : groups) {
            monitor.throw_if_cancelled();
            auto factors = scales(group);
            if (!factors)
                return factors.error();
            if (factors->size() == 0)
                continue;
            if (auto added = add_changes(model, group, *factors, changes); !added)
                return added;
        }
        std::vector<TensorSource> sources = sources_of(model, changes, monitor);
        for (const TensorInfo& info : model.checkpoint().tensors())
            bytes += changes.contains(info.name)
                         ? static_cast<std::uint64_t>(element_count(info.shape)) * sizeof(float)
                         : info.bytes;
        if (auto room = require_free_disk(folder, bytes + export_common::companion_bytes(model)); !room)
            return room;
        auto target = AtomicFolder::create(folder, options.replace);
        if (!target)
            return target.error();
        if (auto copied = export_common::copy_companions(model, target->part()); !copied)
            return copied;
        if (auto written = write_safetensors(target->part() / "model.safetensors", std::move(sources),
                                             {{"format", "pt"}}, false);
            !written)
            return written;
        Json report = options.note;
        report.set("format", "rankscope.smoothing");
        report.set("checkpoint", model.checkpoint().header_hash());
        if (auto written = write_text_file(target->part() / k_report_file, report.dump(2) + "\n", false);
            !written)
            return written;
        return target->commit();
    });
}

} // namespace rankscope
