// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/packed_checkpoint.h"

#include "core/checkpoint/detail/packed_format.h"

#include <array>
#include <cstring>
#include <map>
#include <set>

namespace rankscope {
namespace {

using namespace detail;

constexpr char k_method_key[] = "quant_method";

std::string quant_method(const PackedSource& source)
{
    return quantization_of(source)[k_method_key].string();
}

constexpr std::array k_formats = {
    PackedFormat{"hf-qlr", is_qlr_folder, qlr_linears},
    PackedFormat{"gptq", [](const PackedSource& source) { return quant_method(source) == "gptq"; },
                 gptq_linears},
    PackedFormat{"compressed-tensors",
                 [](const PackedSource& source) { return quant_method(source) == "compressed-tensors"; },
                 compressed_tensors_linears},
};

/// The packed layers of whichever format claims the folder; none for a plain checkpoint.
Result<PackedLinears> find_linears(const PackedSource& source)
{
    std::string known;
    for (const PackedFormat& format : k_formats) {
        if (format.claims(source))
            return format.linears(source);
        known += (known.empty() ? "" : ", ") + std::string(format.name);
    }
    if (quantization_of(source).is_null())
        return PackedLinears{};
    return quantization_error(source, k_method_key,
                              "the weights are quantized with \"" + quant_method(source).substr(0, 80)
                                  + "\", which is not read; known: " + known);
}

class PackedCheckpoint : public CheckpointReader {
public:
    explicit PackedCheckpoint(std::unique_ptr<CheckpointReader> stored) : stored_(std::move(stored)) {}

    /// Puts the layers in the place of their parts.
    Status present(PackedLinears linears)
    {
        std::set<std::string_view> parts;
        for (const PackedLinear& linear : linears)
            parts.insert(linear.parts.begin(), linear.parts.end());
        for (const TensorInfo& tensor : stored_->tensors()) {
            if (!parts.contains(tensor.name))
                tensors_.push_back(tensor);
        }
        for (PackedLinear& linear : linears) {
            TensorInfo info = described(linear);
            if (stored_->find(info.name))
                return part_error(*stored_, info.name,
                                  "the layer is stored twice, packed and as a plain weight");
            if (!linears_.emplace(info.name, std::move(linear)).second)
                return part_error(*stored_, info.name, "the layer is packed twice");
            tensors_.push_back(std::move(info));
        }
        std::sort(tensors_.begin(), tensors_.end(),
                  [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
        return {};
    }

    const std::filesystem::path& path() const override { return stored_->path(); }
    std::span<const std::filesystem::path> files() const override { return stored_->files(); }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return stored_->metadata(); }
    std::string header_hash() const override { return stored_->header_hash(); }

    Result<TensorView> view(std::string_view name) const override
    {
        const auto packed = linears_.find(name);
        if (packed == linears_.end())
            return stored_->view(name);
        return part_error(*stored_, std::string(name),
                          "this weight is stored as " + packed->second.type + " and has no plain bytes");
    }

    Result<Matrix> read(std::string_view name) const override
    {
        const auto packed = linears_.find(name);
        if (packed == linears_.end())
            return stored_->read(name);
        const PackedLinear& linear = packed->second;
        auto weight = linear.decode(*stored_, linear);
        for (const std::string& part : linear.parts) {
            if (auto whole = stored_->confirm(part); !whole)
                return whole.error();
        }
        if (!weight)
            return weight;
        if (!weight->allFinite())
            return part_error(*stored_, std::string(name), "the layer decodes to values that are not finite");
        return weight;
    }

    Result<RowSource> rows(std::string_view name) const override
    {
        return linears_.contains(name) ? rows_of(read(name)) : stored_->rows(name);
    }

private:
    TensorInfo described(const PackedLinear& linear) const
    {
        TensorInfo info;
        info.name = linear.name + ".weight";
        info.packed = linear.type;
        info.shape = {linear.out, linear.in};
        for (const std::string& part : linear.parts)
            info.bytes += stored_->find(part)->bytes;
        const TensorInfo& first = *stored_->find(linear.parts.front());
        info.offset = first.offset;
        info.file = first.file;
        return info;
    }

    std::unique_ptr<CheckpointReader> stored_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, PackedLinear, std::less<>> linears_; ///< by the name of the weight
};

} // namespace

Result<std::unique_ptr<CheckpointReader>> with_dense_layers(std::unique_ptr<CheckpointReader> stored,
                                                            const std::filesystem::path& folder,
                                                            const Json& config)
{
    auto linears = find_linears({*stored, folder, config});
    if (!linears)
        return linears.error();
    if (linears->empty())
        return stored;
    auto packed = std::make_unique<PackedCheckpoint>(std::move(stored));
    if (auto presented = packed->present(std::move(*linears)); !presented)
        return presented.error();
    return std::unique_ptr<CheckpointReader>(std::move(packed));
}

namespace detail {

const Json& quantization_of(const PackedSource& source) { return source.config["quantization_config"]; }

bool is_off(const Json& option)
{
    return option.is_null() || (option.is_bool() && !option.boolean())
           || (option.is_object() && option.object_if()->empty());
}

Error quantization_error(const PackedSource& source, std::string_view key, std::string message)
{
    return bad_input(std::move(message),
                     (source.folder / "config.json").string() + ": key quantization_config."
                         + std::string(key),
                     "Open the model in a format that is read, or its unquantized original");
}

Error part_error(const CheckpointReader& stored, const std::string& tensor, std::string message)
{
    return bad_input(std::move(message), stored.path().string() + ": tensor " + tensor,
                     "Check that config.json belongs to these weights, or download both again");
}

std::vector<std::string> layers_with(const CheckpointReader& stored, std::string_view suffix)
{
    std::vector<std::string> layers;
    for (const TensorInfo& tensor : stored.tensors()) {
        if (tensor.name.size() > suffix.size() && std::string_view(tensor.name).ends_with(suffix))
            layers.push_back(tensor.name.substr(0, tensor.name.size() - suffix.size()));
    }
    return layers;
}

Result<const TensorInfo*> part_of(const CheckpointReader& stored, const std::string& layer,
                                  std::string_view suffix, std::initializer_list<DType> types,
                                  const Shape& shape)
{
    const std::string name = layer + std::string(suffix);
    const TensorInfo* tensor = stored.find(name);
    if (!tensor)
        return part_error(stored, name, "this part of a packed layer is missing");
    std::string expected;
    bool fits = false;
    for (const DType type : types) {
        fits = fits || (!tensor->is_quantized() && tensor->dtype == type);
        expected += (expected.empty() ? "" : " or ") + std::string(rankscope::name(type));
    }
    fits = fits && tensor->shape.size() == shape.size();
    std::string sides;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        fits = fits && (shape[i] == -1 || shape[i] == tensor->shape[i]);
        sides += (i > 0 ? ", " : "") + (shape[i] == -1 ? "any" : std::to_string(shape[i]));
    }
    if (!fits)
        return part_error(stored, name,
                          "it is " + std::string(tensor->type_name()) + " " + to_string(tensor->shape)
                              + ", expected " + expected + " [" + sides + "]");
    return tensor;
}

std::vector<Index> GridTables::consecutive(Index in, Index width)
{
    std::vector<Index> groups(static_cast<std::size_t>(in));
    for (Index i = 0; i < in; ++i)
        groups[static_cast<std::size_t>(i)] = i / width;
    return groups;
}

Result<std::vector<Index>> read_group_indices(const CheckpointReader& stored, const std::string& tensor,
                                              Index in, Index groups)
{
    const auto view = stored.view(tensor);
    if (!view)
        return view.error();
    std::vector<Index> result(static_cast<std::size_t>(in));
    for (std::size_t i = 0; i < result.size(); ++i) {
        std::int32_t group = 0;
        std::memcpy(&group, view->bytes.data() + i * sizeof group, sizeof group);
        if (group < 0 || group >= groups)
            return part_error(stored, tensor,
                              "input " + std::to_string(i) + " is in group " + std::to_string(group) + " of "
                                  + std::to_string(groups));
        result[i] = group;
    }
    return result;
}

std::string grid_name(int bits, Index group, Index in)
{
    return "int" + std::to_string(bits)
           + (group < in ? " g" + std::to_string(group) : std::string(" channel"));
}

} // namespace detail
} // namespace rankscope
