// SPDX-License-Identifier: GPL-3.0-or-later
// A GGUF file's tensors under Hugging Face's names, in Hugging Face's form.
#include "core/model/gguf_model.h"

#include "core/model/detail/gguf_family.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace rankscope {
namespace {

using namespace detail;

constexpr Index k_max_experts = 1024;

/// Tensors that config.json holds as numbers.
bool is_configuration(std::string_view name)
{
    return name == "rope_freqs.weight" || name == "rope_factors_long.weight"
           || name == "rope_factors_short.weight";
}

/// Where a tensor that is shown under a new name lies.
struct Origin {
    std::string name;
    Stored stored = Stored::AsIs;
    Index expert = -1; ///< of Stored::Experts
};

/// Whether `stem` is `pattern` with a number for its "#" (or has none); the number's text goes to `number`.
bool matches(std::string_view stem, std::string_view pattern, std::string_view& number)
{
    const auto mark = pattern.find('#');
    if (mark == std::string_view::npos)
        return stem == pattern;
    if (!stem.starts_with(pattern.substr(0, mark)))
        return false;
    number = stem.substr(mark);
    return !number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string numbered(std::string_view name, std::string_view number)
{
    std::string text(name);
    if (const auto mark = text.find('#'); mark != std::string::npos)
        text.replace(mark, 1, number);
    return text;
}

/// "blk.3.attn_q.weight" → "model.layers.3.self_attn.q_proj.weight" and the entry that says so; of stacked
/// experts the name keeps its "#". Nothing for names without a counterpart.
std::optional<std::pair<std::string, const GgufName*>> translated(const GgufFamily& family,
                                                                  std::string_view name)
{
    const auto dot = name.rfind('.');
    if (dot == std::string_view::npos)
        return std::nullopt;
    const std::string suffix(name.substr(dot));
    std::string_view stem = name.substr(0, dot);
    for (const GgufName& entry : family.model_names) {
        if (entry.gguf == stem)
            return std::pair{std::string(entry.hugging_face) + suffix, &entry};
    }
    if (!stem.starts_with("blk."))
        return std::nullopt;
    stem.remove_prefix(4);
    const auto end = stem.find('.');
    if (end == std::string_view::npos || end == 0)
        return std::nullopt;
    for (const GgufName& entry : family.block_names) {
        std::string_view number = "#";
        if (matches(stem.substr(end + 1), entry.gguf, number))
            return std::pair{std::string(family.blocks) + std::string(stem.substr(0, end)) + "."
                                 + numbered(entry.hugging_face, number) + suffix,
                             &entry};
    }
    return std::nullopt;
}

/// A bias is one row of columns.
Matrix reordered(const Matrix& matrix, const RowOrder& order)
{
    Matrix result(matrix.rows(), matrix.cols());
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (matrix.rows() == 1)
            result(0, static_cast<Index>(i)) = matrix(0, order[i]);
        else
            result.row(static_cast<Index>(i)) = matrix.row(order[i]);
    }
    return result;
}

class RenamedGguf : public CheckpointReader {
public:
    static Result<std::unique_ptr<RenamedGguf>> make(std::unique_ptr<CheckpointReader> gguf,
                                                     const GgufFamily& family)
    {
        std::unique_ptr<RenamedGguf> renamed(new RenamedGguf(std::move(gguf), family));
        for (const TensorInfo& tensor : renamed->gguf_->tensors()) {
            if (is_configuration(tensor.name))
                continue;
            if (auto added = renamed->add(family, tensor); !added)
                return added.error();
        }
        auto& tensors = renamed->tensors_;
        std::sort(tensors.begin(), tensors.end(),
                  [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
        return renamed;
    }

    const std::filesystem::path& path() const override { return gguf_->path(); }
    std::span<const std::filesystem::path> files() const override { return gguf_->files(); }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return gguf_->metadata(); }
    std::string header_hash() const override { return gguf_->header_hash(); }

    Result<TensorView> view(std::string_view name) const override
    {
        const Origin origin = origin_of(name);
        auto whole = gguf_->view(origin.name);
        const TensorInfo* info = find(name);
        if (!whole || !info)
            return whole;
        whole->shape = info->shape;
        if (origin.expert >= 0)
            whole->bytes = whole->bytes.subspan(static_cast<std::size_t>(origin.expert) * info->bytes,
                                                static_cast<std::size_t>(info->bytes));
        return whole;
    }

    Result<Matrix> read(std::string_view name) const override
    {
        const Origin origin = origin_of(name);
        if (origin.expert >= 0)
            return CheckpointReader::read(name);
        auto matrix = gguf_->read(origin.name);
        if (!matrix)
            return matrix;
        if (origin.stored == Stored::OneAdded) {
            matrix->array() -= 1.0F;
            return matrix;
        }
        const RowOrder order = row_order(origin.stored, matrix->rows() == 1 ? matrix->cols() : matrix->rows(),
                                         heads_, kv_heads_);
        return order.empty() ? matrix : Result<Matrix>(reordered(*matrix, order));
    }

    Result<RowSource> rows(std::string_view name) const override
    {
        const Origin origin = origin_of(name);
        if (origin.expert >= 0)
            return CheckpointReader::rows(name);
        auto source = gguf_->rows(origin.name);
        if (!source)
            return source;
        if (source->rows == 1 || origin.stored == Stored::OneAdded)
            return rows_of(read(name));
        RowOrder order = row_order(origin.stored, source->rows, heads_, kv_heads_);
        if (order.empty())
            return source;
        return RowSource{source->rows, source->cols,
                         [stored = source->decode, from = std::move(order)](std::int64_t row, float* values) {
                             stored(from[static_cast<std::size_t>(row)], values);
                         }};
    }

private:
    RenamedGguf(std::unique_ptr<CheckpointReader> gguf, const GgufFamily& family) : gguf_(std::move(gguf))
    {
        const GgufMetadata metadata(*gguf_, family.id);
        const auto heads = metadata.value("attention.head_count", KeyKind::Whole);
        const auto kv_heads = metadata.value("attention.head_count_kv", KeyKind::Whole);
        heads_ = heads ? heads->integer() : 0;
        kv_heads_ = kv_heads ? kv_heads->integer(heads_) : 0;
    }

    Status add(const GgufFamily& family, const TensorInfo& tensor)
    {
        const auto name = translated(family, tensor.name);
        const Stored stored = name ? name->second->stored : Stored::AsIs;
        if (stored == Stored::Experts)
            return add_experts(name->first, tensor);
        TensorInfo renamed = tensor;
        renamed.name = name ? name->first : tensor.name;
        if (stored == Stored::OneRow && renamed.shape.size() == 1)
            renamed.shape.insert(renamed.shape.begin(), 1);
        return add(std::move(renamed), {tensor.name, stored, -1});
    }

    Status add_experts(const std::string& name, const TensorInfo& tensor)
    {
        const std::string where = path().string() + ": tensor " + tensor.name;
        if (tensor.shape.size() != 3)
            return bad_input("it has " + std::to_string(tensor.shape.size())
                                 + " dimensions, but experts are stacked in three",
                             where);
        const Index experts = tensor.shape.front();
        if (experts < 1 || experts > k_max_experts)
            return bad_input("it holds " + std::to_string(experts) + " experts; between 1 and "
                                 + std::to_string(k_max_experts) + " are accepted",
                             where);
        for (Index expert = 0; expert < experts; ++expert) {
            TensorInfo one = tensor;
            one.name = numbered(name, std::to_string(expert));
            one.shape.erase(one.shape.begin());
            one.bytes = tensor.bytes / static_cast<std::uint64_t>(experts);
            one.offset += static_cast<std::uint64_t>(expert) * one.bytes;
            if (auto added = add(std::move(one), {tensor.name, Stored::Experts, expert}); !added)
                return added;
        }
        return {};
    }

    Status add(TensorInfo renamed, Origin origin)
    {
        const auto [known, added] = origins_.emplace(renamed.name, origin);
        if (!added)
            return bad_input("it stands for " + renamed.name + ", and so does " + known->second.name,
                             path().string() + ": tensor " + origin.name);
        tensors_.push_back(std::move(renamed));
        return {};
    }

    Origin origin_of(std::string_view name) const
    {
        const auto found = origins_.find(name);
        return found == origins_.end() ? Origin{std::string(name), Stored::AsIs, -1} : found->second;
    }

    std::unique_ptr<CheckpointReader> gguf_;
    Index heads_ = 0;
    Index kv_heads_ = 0;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, Origin, std::less<>> origins_; ///< by our name
};

} // namespace

bool is_gguf(const CheckpointReader& reader)
{
    return reader.metadata().find("general.architecture") != nullptr;
}

Result<std::unique_ptr<CheckpointReader>> gguf_with_hugging_face_names(std::unique_ptr<CheckpointReader> gguf)
{
    const auto family = gguf_family_of(*gguf);
    if (!family)
        return family.error();
    auto renamed = RenamedGguf::make(std::move(gguf), **family);
    if (!renamed)
        return renamed.error();
    return std::unique_ptr<CheckpointReader>(std::move(*renamed));
}

} // namespace rankscope
