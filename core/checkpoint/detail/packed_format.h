// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/thread_pool.h"
#include "core/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope::detail {

/// One linear layer that a checkpoint keeps in several tensors.
struct PackedLinear {
    std::string name; ///< "model.layers.3.mlp.down_proj"
    std::string type; ///< "gptq int4 g64"
    Index out = 0;
    Index in = 0;
    std::vector<std::string> parts; ///< the tensors that it is made of
    /// W, out × in, of the layer that is given: this one. Errors: BadInput.
    std::function<Result<Matrix>(const CheckpointReader& stored, const PackedLinear& linear)> decode;
};
using PackedLinears = std::vector<PackedLinear>;

/// What a format looks at.
struct PackedSource {
    const CheckpointReader& stored;
    const std::filesystem::path& folder;
    const Json& config; ///< config.json
};

/// One row of the registry in packed_checkpoint.cpp.
struct PackedFormat {
    std::string_view name;
    bool (*claims)(const PackedSource&);
    /// All packed layers, their parts checked as far as headers tell. Errors: BadInput naming the tensor or
    /// key.
    Result<PackedLinears> (*linears)(const PackedSource&);
};

Result<PackedLinears> gptq_linears(const PackedSource& source);
Result<PackedLinears> compressed_tensors_linears(const PackedSource& source);
bool is_qlr_folder(const PackedSource& source);
Result<PackedLinears> qlr_linears(const PackedSource& source);
/// The same from the schema's content; `where` is its file. Errors: BadInput naming the layer.
Result<PackedLinears> qlr_linears(const CheckpointReader& stored, const Json& schema, const std::string& where);

/// "quantization_config" of config.json.
const Json& quantization_of(const PackedSource& source);
/// Whether an option is absent, false or an empty object.
bool is_off(const Json& option);
/// An error about a key of that object.
Error quantization_error(const PackedSource& source, std::string_view key, std::string message);

/// Names of the layers that have a tensor with this ending.
std::vector<std::string> layers_with(const CheckpointReader& stored, std::string_view suffix);
/// The part `layer` + `suffix` with one of these types and this shape; a side of −1 may be anything. Errors:
/// BadInput.
Result<const TensorInfo*> part_of(const CheckpointReader& stored, const std::string& layer,
                                  std::string_view suffix, std::initializer_list<DType> types,
                                  const Shape& shape);
/// An error about that tensor.
Error part_error(const CheckpointReader& stored, const std::string& tensor, std::string message);

/// What turns codes into weights: W(o, i) = scales(o, g) · (code(o, i) − zeros(o, g)) in float32, g =
/// group_of[i].
struct GridTables {
    Matrix scales;               ///< out × groups
    CodeMatrix zeros;            ///< out × groups
    std::vector<Index> group_of; ///< of each input

    /// Groups of `width` consecutive inputs.
    static std::vector<Index> consecutive(Index in, Index width);
};
/// The group of each input as an I32 tensor of `in` numbers tells, each below `groups`. Errors: BadInput.
Result<std::vector<Index>> read_group_indices(const CheckpointReader& stored, const std::string& tensor,
                                              Index in, Index groups);
/// `code(row, column)` gives the unsigned code; called from several threads.
template <class Code>
Matrix dequantize(const GridTables& tables, Code code)
{
    constexpr Index k_rows = 16; // neighboring rows share cache lines where codes are packed down a column
    const Index out = tables.scales.rows();
    const auto in = static_cast<Index>(tables.group_of.size());
    Matrix weights(out, in);
    parallel_for(0, (out + k_rows - 1) / k_rows, [&](Index tile) {
        const Index end = std::min(out, (tile + 1) * k_rows);
        for (Index col = 0; col < in; ++col) {
            const Index group = tables.group_of[static_cast<std::size_t>(col)];
            for (Index row = tile * k_rows; row < end; ++row)
                weights(row, col) =
                    tables.scales(row, group)
                    * static_cast<float>(static_cast<int>(code(row, col)) - tables.zeros(row, group));
        }
    });
    return weights;
}

/// "int4 g64", or "int4 channel" where one scale serves the row.
std::string grid_name(int bits, Index group, Index in);

} // namespace rankscope::detail
