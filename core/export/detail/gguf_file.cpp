// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/gguf_file.h"

#include "core/export/detail/gguf_blocks.h"
#include "core/export/detail/stored_floats.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <cstring>

namespace rankscope::export_common {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

/// The type that a tensor of the checkpoint's keeps: F32, F16 and BF16 as they are, others as F32.
DType kept_type(const TensorInfo& info)
{
    return info.dtype == DType::F16 || info.dtype == DType::BF16 ? info.dtype : DType::F32;
}

/// As llama.cpp numbers what most weights of a file are (general.file_type).
std::int64_t file_type_of(const GgufStorage& storage)
{
    constexpr std::uint32_t k_bf16 = 30;
    switch (storage.number) {
    case static_cast<std::uint32_t>(BlockFormat::Q8_0):
        return 7;
    case static_cast<std::uint32_t>(BlockFormat::Q5_0):
        return 8;
    case static_cast<std::uint32_t>(BlockFormat::Q5_1):
        return 9;
    case k_bf16:
        return 32;
    default:
        return storage.number; // F32, F16, Q4_0 and Q4_1 have one number for both
    }
}

Matrix in_file_order(const Matrix& ours, const std::vector<Index>& order)
{
    if (order.empty())
        return ours;
    Matrix result(ours.rows(), ours.cols());
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (ours.rows() == 1)
            result(0, static_cast<Index>(i)) = ours(0, order[i]);
        else
            result.row(static_cast<Index>(i)) = ours.row(order[i]);
    }
    return result;
}

void append(Bytes& target, const Bytes& more) { target.insert(target.end(), more.begin(), more.end()); }

/// Makes the bytes of a model's tensors.
class TensorMaker {
public:
    TensorMaker(const ExportJob& job, const GgufPlan& plan) : model_(job.model), plan_(plan), cache_(job.run)
    {}

    std::vector<GgufTensorSource> sources() const
    {
        std::vector<GgufTensorSource> result;
        for (const GgufTensor& tensor : plan_.form.tensors)
            result.push_back({tensor.name, storage(tensor), tensor.shape,
                              [maker = *this, &tensor] { return maker.bytes(tensor); }});
        for (const GgufFactors& factors : plan_.form.factors)
            result.push_back({factors.name,
                              GgufStorage::of(DType::F32),
                              {static_cast<std::int64_t>(factors.values.size())},
                              [&factors]() -> Result<Bytes> {
                                  const auto count = static_cast<Index>(factors.values.size());
                                  return float_bytes(
                                      DType::F32, Eigen::Map<const Matrix>(factors.values.data(), 1, count));
                              }});
        return result;
    }

    /// The weight of ours that a reader of the file must find.
    Result<Matrix> expected_weight(const GgufLayer& entry) const
    {
        auto decomposition = cache_.get(entry.layer->name);
        if (!decomposition)
            return decomposition.error();
        if (const BlockLayout* layout = block_layout(entry.storage.number))
            return stored_values((*decomposition)->quantized, layout->format);
        auto dense = dense_weight(entry);
        if (!dense)
            return dense;
        return through(dense_type(entry.storage), *dense);
    }

private:
    static DType dense_type(const GgufStorage& storage)
    {
        for (const DType dtype : {DType::F16, DType::BF16}) {
            if (GgufStorage::of(dtype) == storage)
                return dtype;
        }
        return DType::F32;
    }

    const GgufLayer* layer_of(const std::string& source) const
    {
        const auto found = plan_.layers.find(source);
        return found == plan_.layers.end() ? nullptr : &found->second;
    }

    GgufStorage storage(const GgufTensor& tensor) const
    {
        if (const GgufLayer* layer = layer_of(tensor.sources.front()))
            return layer->storage;
        const TensorInfo& info = *model_.checkpoint().find(tensor.sources.front());
        if (info.block) // of a GGUF checkpoint: the blocks are copied
            return GgufStorage::of(info.block->format);
        return GgufStorage::of(tensor.exact_floats ? DType::F32 : kept_type(info));
    }

    Result<Matrix> dense_weight(const GgufLayer& entry) const
    {
        auto decomposition = cache_.get(entry.layer->name);
        if (!decomposition)
            return decomposition.error();
        return entry.part == DensePart::Whole ? (*decomposition)->reconstruct()
                                              : base_weight(**decomposition, *entry.layer);
    }

    Result<Bytes> bytes(const GgufTensor& tensor) const
    {
        Bytes all;
        for (const std::string& source : tensor.sources) {
            const GgufLayer* layer = layer_of(source);
            auto one = layer ? layer_bytes(*layer, tensor) : other_bytes(source, tensor);
            if (!one)
                return one;
            if (tensor.sources.size() == 1)
                return one;
            append(all, *one);
        }
        return all;
    }

    Result<Bytes> layer_bytes(const GgufLayer& entry, const GgufTensor& tensor) const
    {
        if (const BlockLayout* layout = block_layout(entry.storage.number)) {
            auto decomposition = cache_.get(entry.layer->name);
            if (!decomposition)
                return decomposition.error();
            return encode_blocks((*decomposition)->quantized, layout->format, tensor.row_order);
        }
        auto weight = dense_weight(entry);
        if (!weight)
            return weight.error();
        const DType dtype = dense_type(entry.storage);
        if (!through(dtype, *weight).allFinite())
            return bad_input("a weight is beyond what " + std::string(name(dtype)) + " can hold",
                             entry.layer->name, "Compress this layer with more bits, or leave it out");
        return float_bytes(dtype, in_file_order(*weight, tensor.row_order));
    }

    /// A tensor that the run did not touch.
    Result<Bytes> other_bytes(const std::string& source, const GgufTensor& tensor) const
    {
        const TensorInfo& info = *model_.checkpoint().find(source);
        const DType dtype = dense_type(storage(tensor));
        const bool moved = tensor.transposed || tensor.one_added || !tensor.row_order.empty();
        // An embedding is often the largest tensor: it is not decoded only to be encoded again.
        if (info.block || (!moved && info.packed.empty() && info.dtype == dtype))
            return original_bytes(model_, source);
        auto matrix = model_.checkpoint().read(source);
        if (!matrix)
            return matrix.error();
        if (tensor.transposed)
            *matrix = Matrix(matrix->transpose());
        Matrix stored = in_file_order(*matrix, tensor.row_order);
        if (tensor.one_added)
            stored.array() += 1.0F;
        return float_bytes(dtype, stored);
    }

    const Model& model_;
    const GgufPlan& plan_;
    LayerCache cache_;
};

/// What most bytes of the replaced layers are stored as.
GgufStorage usual_storage(const GgufPlan& plan)
{
    std::map<std::uint32_t, std::pair<Index, GgufStorage>> weights;
    for (const auto& [name, entry] : plan.layers) {
        auto& sum = weights[entry.storage.number];
        sum.first += entry.layer->out * entry.layer->in;
        sum.second = entry.storage;
    }
    const auto most = std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) {
        return a.second.first < b.second.first;
    });
    return most == weights.end() ? GgufStorage::of(DType::F32) : most->second.second;
}

Result<GgufValues> all_values(const ExportJob& job, const GgufPlan& plan)
{
    auto vocabulary = gguf_vocabulary(job.model);
    if (!vocabulary)
        return vocabulary;
    GgufValues values = plan.form.metadata;
    values.merge(*vocabulary);
    values["general.file_type"] = {GgufType::U32, file_type_of(usual_storage(plan))};
    return values;
}

/// llama.cpp ends the process on the first character that neither the vocabulary nor byte tokens hold.
void warn_of_missing_bytes(const GgufValues& values, Monitor& monitor)
{
    constexpr std::int64_t k_byte = 6;
    const auto model = values.find("tokenizer.ggml.model");
    const auto types = values.find("tokenizer.ggml.token_type");
    if (model == values.end() || types == values.end() || model->second.value.string() != "llama")
        return;
    const Json::Array* list = types->second.value.array_if();
    if (list && std::none_of(list->begin(), list->end(), [](const Json& type) {
            return type.integer() == k_byte;
        }))
        monitor.warn(
            "This vocabulary has no byte tokens: llama.cpp ends on the first character that it lacks");
}

Error differs(const std::string& what, const fs::path& file)
{
    return bad_input(what, file.string(), "Export again");
}

} // namespace

Status compare_gguf_values(const CheckpointReader& reader, const GgufValues& expected)
{
    for (const auto& [key, value] : expected) {
        const Json& found = reader.metadata()[key];
        const bool rounded = value.type == GgufType::F32;
        if (rounded ? found.is_null() : !(found == value.value))
            return differs("the metadata " + key + " is not what was written", reader.path());
    }
    return {};
}

Status compare_gguf_tensors(const CheckpointReader& reader, const std::vector<GgufTensorSource>& sources,
                            Monitor& monitor)
{
    if (reader.tensors().size() != sources.size())
        return differs("it holds " + std::to_string(reader.tensors().size()) + " tensors, expected "
                           + std::to_string(sources.size()),
                       reader.path());
    ExportProgress progress(monitor, sources.size());
    for (const GgufTensorSource& source : sources) {
        progress.step(source.name);
        const TensorInfo* info = reader.find(source.name);
        if (!info || info->shape != source.shape || info->type_name() != source.storage.name)
            return differs("the tensor " + source.name + " is missing, or not "
                               + std::string(source.storage.name) + to_string(source.shape),
                           reader.path());
        auto expected = source.fill();
        if (!expected)
            return expected.error();
        auto view = reader.view(source.name);
        if (!view)
            return view.error();
        if (!std::equal(expected->begin(), expected->end(), view->bytes.begin(), view->bytes.end()))
            return differs("the tensor " + source.name + " differs from the run", reader.path());
    }
    return {};
}

bool GgufPlan::has_adapter() const
{
    return std::any_of(layers.begin(), layers.end(), [](const auto& entry) { return entry.second.rank > 0; });
}

Status check_gguf(const Model& model)
{
    if (auto form = GgufForm::of(model); !form)
        return form.error();
    if (auto vocabulary = gguf_vocabulary(model); !vocabulary)
        return vocabulary.error();
    return {};
}

namespace {

Result<GgufLayer> decide(const ExportJob& job, const LinearLayer& layer, GgufFactorsGo factors_go)
{
    auto decomposition = job.run.decomposition(layer.name);
    if (!decomposition)
        return decomposition.error();
    GgufLayer entry;
    entry.layer = &layer;
    const bool has_factors = decomposition->low_rank.rank() > 0;
    const bool rotated = !decomposition->transform.empty();
    if (has_factors && factors_go == GgufFactorsGo::IntoWeights) {
        entry.part = DensePart::Whole;
        entry.storage = GgufStorage::of(kept_type(*job.model.checkpoint().find(layer.weight())));
        return entry;
    }
    const auto block = rotated ? std::nullopt : exact_block(decomposition->quantized);
    entry.storage =
        block ? GgufStorage::of(*block) : GgufStorage::of(factor_type(base_weight(*decomposition, layer)));
    if (has_factors) {
        const LowRank factors = weight_factors(*decomposition);
        entry.rank = factors.rank();
        entry.left = factor_type(factors.left);
        entry.right = factor_type(factors.right);
    }
    return entry;
}

/// Stacked experts share one storage: the largest block format that holds each of them, else the widest type.
Status unify(const ExportJob& job, const GgufTensor& tensor, GgufPlan& plan)
{
    std::vector<GgufLayer*> entries;
    for (const std::string& source : tensor.sources) {
        if (const auto found = plan.layers.find(source); found != plan.layers.end())
            entries.push_back(&found->second);
    }
    if (entries.empty())
        return {};
    if (entries.size() != tensor.sources.size())
        return usage_error(
            "GGUF stacks the experts of a block in one tensor, but this run leaves some of them as "
            "they are",
            tensor.name, "Plan all experts of a block, or none");
    const bool same = std::all_of(entries.begin(), entries.end(), [&](const GgufLayer* entry) {
        return entry->storage == entries.front()->storage && entry->left == entries.front()->left
               && entry->right == entries.front()->right;
    });
    if (same)
        return {};
    GgufStorage shared = GgufStorage::of(BlockFormat::Q8_0);
    for (const GgufLayer* entry : entries) {
        auto decomposition = job.run.decomposition(entry->layer->name);
        if (!decomposition)
            return decomposition.error();
        const bool blocks = entry->part == DensePart::Base && decomposition->transform.empty()
                            && fits_block(decomposition->quantized, BlockFormat::Q8_0);
        shared = blocks ? shared : GgufStorage::of(DType::F32);
    }
    for (GgufLayer* entry : entries) {
        entry->storage = shared;
        entry->left = entry->right = DType::F32;
    }
    return {};
}

} // namespace

Result<GgufPlan> plan_gguf(const ExportJob& job, GgufFactorsGo factors)
{
    auto form = GgufForm::of(job.model);
    if (!form)
        return form.error();
    GgufPlan plan{std::move(*form), {}};
    const auto layers = replaced_layers(job.run, job.model);
    ExportProgress progress(job.monitor, layers.size());
    for (const LinearLayer* layer : layers) {
        progress.step("laying out " + layer->name);
        auto entry = decide(job, *layer, factors);
        if (!entry)
            return entry.error();
        plan.layers.emplace(layer->weight(), *entry);
    }
    for (const GgufTensor& tensor : plan.form.tensors) {
        if (tensor.sources.size() < 2)
            continue;
        if (auto unified = unify(job, tensor, plan); !unified)
            return unified.error();
    }
    return plan;
}

Status write_gguf_model(const ExportJob& job, const GgufPlan& plan, const std::string& file)
{
    auto values = all_values(job, plan);
    if (!values)
        return values.error();
    warn_of_missing_bytes(*values, job.monitor);
    for (const std::string& warning : plan.form.warnings)
        job.monitor.warn(warning);
    std::vector<GgufTensorSource> sources = TensorMaker(job, plan).sources();
    ExportProgress progress(job.monitor, sources.size());
    report_each(sources, progress);
    return write_gguf(job.folder / file, *values, sources, false);
}

Status check_gguf_model(const ExportJob& job, const GgufPlan& plan, const std::string& file)
{
    const fs::path path = job.folder / file;
    auto reader = CheckpointReader::open(path);
    if (!reader)
        return reader.error();
    auto values = all_values(job, plan);
    if (!values)
        return values.error();
    if (auto same = compare_gguf_values(**reader, *values); !same)
        return same;
    const TensorMaker maker(job, plan);
    if (auto same = compare_gguf_tensors(**reader, maker.sources(), job.monitor); !same)
        return same;
    auto model = Model::open(path);
    if (!model)
        return model.error();
    ExportProgress progress(job.monitor, plan.layers.size());
    for (const auto& [name, entry] : plan.layers) {
        progress.step(entry.layer->name);
        // GPT-2's files of another spelling come back under the usual one.
        const auto index = static_cast<std::size_t>(entry.layer - job.model.linears().data());
        if (index >= (*model)->linears().size())
            return differs("it holds fewer layers than the run", path);
        auto found = (*model)->weight((*model)->linears()[index]);
        if (!found)
            return found.error();
        auto expected = maker.expected_weight(entry);
        if (!expected)
            return expected.error();
        if (found->rows() != expected->rows() || found->cols() != expected->cols() || *found != *expected)
            return differs("the weight of " + entry.layer->name + " reads back as another one", path);
    }
    return {};
}

void describe_storage(const GgufPlan& plan, Json& report)
{
    Json layers = report["layers"];
    for (const auto& [name, entry] : plan.layers) {
        Json described = layers[entry.layer->name];
        const Shape row = {entry.layer->out, entry.layer->in};
        const auto weights = static_cast<double>(entry.layer->out * entry.layer->in);
        const double factor_bytes =
            static_cast<double>(entry.rank)
            * static_cast<double>(entry.layer->out * static_cast<Index>(size_bytes(entry.left))
                                  + entry.layer->in * static_cast<Index>(size_bytes(entry.right)));
        described.set("stored_as", entry.storage.name);
        described.set("rank", std::int64_t{entry.rank});
        described.set("stored_bits_per_weight",
                      8.0 * (static_cast<double>(entry.storage.size(row)) + factor_bytes) / weights);
        layers.set(entry.layer->name, std::move(described));
    }
    report.set("layers", std::move(layers));
}

std::uint64_t gguf_bytes(const Model& model, const GgufPlan& plan)
{
    constexpr std::uint64_t k_header_bytes_per_tensor = 256; // and padding
    std::uint64_t bytes = 0;
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        const auto found = plan.layers.find(info.name);
        bytes += k_header_bytes_per_tensor;
        if (found == plan.layers.end()) {
            bytes += info.shape.size() == 1 ? 2 * info.bytes : info.bytes; // norms become F32
            continue;
        }
        const GgufLayer& entry = found->second;
        const auto rank = static_cast<std::uint64_t>(entry.rank);
        bytes += 2 * k_header_bytes_per_tensor + entry.storage.size({entry.layer->out, entry.layer->in})
                 + rank
                       * (static_cast<std::uint64_t>(entry.layer->out) * size_bytes(entry.left)
                          + static_cast<std::uint64_t>(entry.layer->in) * size_bytes(entry.right));
    }
    return bytes;
}

} // namespace rankscope::export_common
