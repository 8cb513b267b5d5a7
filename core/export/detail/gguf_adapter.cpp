// SPDX-License-Identifier: GPL-3.0-or-later
//
// llama.cpp adds (alpha / rank) · B·(A·x), with the rank of each pair, or B·(A·x) where alpha is 0: lora_a is
// R and lora_b is L, its rows in the base's order.
#include "core/export/detail/gguf_file.h"

#include "core/export/detail/stored_floats.h"

#include <algorithm>

namespace rankscope::export_common {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

/// A tensor of the base that has L·R; of stacked experts all have the largest rank, filled up with zeros.
struct Pair {
    const GgufTensor* tensor = nullptr;
    std::vector<const GgufLayer*> layers;
    Index rank = 0;
    bool equal_ranks = true;
};

std::vector<Pair> pairs_of(const GgufPlan& plan)
{
    std::vector<Pair> pairs;
    for (const GgufTensor& tensor : plan.form.tensors) {
        Pair pair{&tensor, {}, 0, true};
        for (const std::string& source : tensor.sources) {
            const auto found = plan.layers.find(source);
            if (found == plan.layers.end())
                break;
            pair.layers.push_back(&found->second);
            pair.equal_ranks = pair.equal_ranks && found->second.rank == pair.layers.front()->rank;
            pair.rank = std::max(pair.rank, found->second.rank);
        }
        if (pair.rank > 0)
            pairs.push_back(std::move(pair));
    }
    return pairs;
}

Matrix in_file_order(const Matrix& left, const std::vector<Index>& order)
{
    if (order.empty())
        return left;
    Matrix result(left.rows(), left.cols());
    for (std::size_t i = 0; i < order.size(); ++i)
        result.row(static_cast<Index>(i)) = left.row(order[i]);
    return result;
}

/// One half of a pair, all its experts.
Result<Bytes> half_of(const LayerCache& cache, const Pair& pair, bool left, DType dtype)
{
    Bytes all;
    for (const GgufLayer* entry : pair.layers) {
        auto decomposition = cache.get(entry->layer->name);
        if (!decomposition)
            return decomposition.error();
        const LowRank factors = weight_factors(**decomposition);
        Matrix half =
            left ? Matrix::Zero(entry->layer->out, pair.rank) : Matrix::Zero(pair.rank, entry->layer->in);
        if (left && factors.rank() > 0)
            half.leftCols(factors.rank()) = in_file_order(factors.left, pair.tensor->row_order);
        if (!left && factors.rank() > 0)
            half.topRows(factors.rank()) = factors.right;
        const Bytes bytes = float_bytes(dtype, half);
        all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
}

std::vector<GgufTensorSource> sources_of(const ExportJob& job, const std::vector<Pair>& pairs)
{
    const LayerCache cache(job.run);
    std::vector<GgufTensorSource> sources;
    for (const Pair& pair : pairs) {
        const LinearLayer& layer = *pair.layers.front()->layer;
        const DType left = pair.layers.front()->left;
        const DType right = pair.layers.front()->right;
        Shape a = {pair.rank, layer.in};
        Shape b = {layer.out, pair.rank};
        if (pair.layers.size() > 1) {
            a.insert(a.begin(), static_cast<std::int64_t>(pair.layers.size()));
            b.insert(b.begin(), static_cast<std::int64_t>(pair.layers.size()));
        }
        sources.push_back({pair.tensor->name + ".lora_a", GgufStorage::of(right), a,
                           [cache, &pair, right] { return half_of(cache, pair, false, right); }});
        sources.push_back({pair.tensor->name + ".lora_b", GgufStorage::of(left), b,
                           [cache, &pair, left] { return half_of(cache, pair, true, left); }});
    }
    return sources;
}

GgufValues values_of(const GgufPlan& plan, const std::vector<Pair>& pairs)
{
    const Index rank = pairs.empty() ? 0 : pairs.front().rank;
    const bool one_rank = std::all_of(
        pairs.begin(), pairs.end(), [&](const Pair& pair) { return pair.rank == rank && pair.equal_ranks; });
    GgufValues values;
    values["general.architecture"] = {GgufType::Text, plan.form.architecture};
    values["general.type"] = {GgufType::Text, "adapter"};
    values["general.file_type"] = {GgufType::U32, 1};
    values["adapter.type"] = {GgufType::Text, "lora"};
    values["adapter.lora.alpha"] = {GgufType::F32, one_rank ? static_cast<double>(rank) : 0.0};
    return values;
}

} // namespace

Status write_gguf_adapter(const ExportJob& job, const GgufPlan& plan, const std::string& file)
{
    const std::vector<Pair> pairs = pairs_of(plan);
    std::vector<GgufTensorSource> sources = sources_of(job, pairs);
    ExportProgress progress(job.monitor, sources.size());
    report_each(sources, progress);
    return write_gguf(job.folder / file, values_of(plan, pairs), sources, false);
}

Status check_gguf_adapter(const ExportJob& job, const GgufPlan& plan, const std::string& file)
{
    auto reader = CheckpointReader::open(job.folder / file);
    if (!reader)
        return reader.error();
    const std::vector<Pair> pairs = pairs_of(plan);
    if (auto same = compare_gguf_values(**reader, values_of(plan, pairs)); !same)
        return same;
    return compare_gguf_tensors(**reader, sources_of(job, pairs), job.monitor);
}

} // namespace rankscope::export_common
