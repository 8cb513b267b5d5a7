// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/random.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/packed_checkpoint.h"
#include "core/tensor/half.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

/// Layers as GPTQ and compressed-tensors pack them. Streams are written bit by bit, so that the readers'
/// arithmetic on words has a second opinion.
namespace rankscope::test {

struct StoredTensor {
    DType dtype = DType::I32;
    Shape shape;
    std::vector<std::byte> bytes;
};
using Tensors = std::map<std::string, StoredTensor>;

template <class T>
StoredTensor numbers(DType dtype, Shape shape, const std::vector<T>& values)
{
    StoredTensor tensor{dtype, std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
    std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
    return tensor;
}

inline StoredTensor floats(DType dtype, const Matrix& values)
{
    StoredTensor tensor{dtype,
                        {values.rows(), values.cols()},
                        std::vector<std::byte>(static_cast<std::size_t>(values.size()) * size_bytes(dtype))};
    encode_from_float(dtype, values.data(), static_cast<std::size_t>(values.size()), tensor.bytes.data());
    return tensor;
}

using Codes = Eigen::Matrix<std::uint32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Each row a stream: the bits of value k begin at bit k·bits, or at those of its word when words hold whole
/// values.
inline StoredTensor stream_rows(const Codes& values, int bits, bool whole_values = false)
{
    const int each = 32 / bits;
    const Index words = whole_values ? (values.cols() + each - 1) / each : (values.cols() * bits + 31) / 32;
    std::vector<std::uint32_t> out(static_cast<std::size_t>(values.rows() * words), 0);
    for (Index row = 0; row < values.rows(); ++row) {
        for (Index k = 0; k < values.cols(); ++k) {
            for (int bit = 0; bit < bits; ++bit) {
                const Index place = whole_values ? k / each * 32 + k % each * bits + bit : k * bits + bit;
                out[static_cast<std::size_t>(row * words + place / 32)] |= (values(row, k) >> bit & 1U)
                                                                           << (place % 32);
            }
        }
    }
    return numbers(DType::I32, {values.rows(), words}, out);
}

/// The same down the columns.
inline StoredTensor stream_columns(const Codes& values, int bits, bool whole_values = false)
{
    const StoredTensor rows = stream_rows(values.transpose(), bits, whole_values);
    const Index words = rows.shape[1];
    Codes turned(rows.shape[0], words);
    std::memcpy(turned.data(), rows.bytes.data(), rows.bytes.size());
    const Codes columns = turned.transpose();
    return numbers(DType::I32, {words, rows.shape[0]},
                   std::vector<std::uint32_t>(columns.data(), columns.data() + columns.size()));
}

/// One layer: what is stored, and what it means.
struct Layer {
    int bits = 4;
    Index out = 64;
    Index in = 96;
    Index width = 32; ///< of a group
    bool symmetric = false;
    DType scale_type = DType::F16;
    std::vector<std::int32_t> group_of;
    Codes codes;
    Codes zeros;   ///< out × groups
    Matrix scales; ///< out × groups, as read back

    Layer(int code_bits, Index outputs, Index inputs, Index group_width, bool is_symmetric = false,
          DType scales_as = DType::F16)
        : bits(code_bits), out(outputs), in(inputs), width(group_width), symmetric(is_symmetric),
          scale_type(scales_as)
    {
        const RandomStream random(static_cast<std::uint64_t>(bits), "packed layer");
        const Index groups = (in + width - 1) / width;
        const auto below = [&](Index i, std::uint64_t limit) {
            return static_cast<std::uint32_t>(random.below(static_cast<std::uint64_t>(i), limit));
        };
        const std::uint64_t levels = std::uint64_t{1} << bits;
        codes = Codes::NullaryExpr(out, in, [&](Index i, Index j) { return below(i * in + j, levels); });
        zeros = Codes::NullaryExpr(out, groups, [&](Index i, Index j) {
            return symmetric ? 1U << (bits - 1) : 1 + below(1'000'000 + i * groups + j, levels - 1);
        });
        scales = Matrix::NullaryExpr(out, groups, [&](Index i, Index j) {
            return 0.01F + 1e-4F * static_cast<float>(below(2'000'000 + i * groups + j, 1000));
        });
        const StoredTensor stored = floats(scale_type, scales);
        decode_to_float(scale_type, stored.bytes.data(), static_cast<std::size_t>(scales.size()),
                        scales.data());
        for (Index i = 0; i < in; ++i)
            group_of.push_back(static_cast<std::int32_t>(i / width));
    }

    Matrix expected() const
    {
        return Matrix::NullaryExpr(out, in, [&](Index i, Index j) {
            const Index g = group_of[static_cast<std::size_t>(j)];
            return scales(i, g) * (static_cast<float>(codes(i, j)) - static_cast<float>(zeros(i, g)));
        });
    }

    Tensors gptq(bool minus_one, const std::string& name = "layer") const
    {
        const Codes stored_zeros = zeros.array() - (minus_one ? 1U : 0U);
        return {{name + ".qweight", stream_columns(codes.transpose(), bits)},
                {name + ".qzeros", stream_rows(stored_zeros.transpose(), bits)},
                {name + ".scales", floats(scale_type, scales.transpose())},
                {name + ".g_idx", numbers(DType::I32, {in}, group_of)}};
    }

    Tensors compressed_tensors(bool whole_values = false, const std::string& name = "layer") const
    {
        Tensors tensors = {{name + ".weight_packed", stream_rows(codes, bits, whole_values)},
                           {name + ".weight_scale", floats(scale_type, scales)},
                           {name + ".weight_shape", numbers<std::int64_t>(DType::I64, {2}, {out, in})}};
        if (!symmetric)
            tensors[name + ".weight_zero_point"] = stream_columns(zeros, bits, whole_values);
        return tensors;
    }
};

inline Json gptq_config(int bits, Index group, const char* format)
{
    Json quantization;
    quantization.set("quant_method", "gptq");
    quantization.set("bits", bits);
    quantization.set("group_size", std::int64_t{group});
    quantization.set("desc_act", false);
    quantization.set("checkpoint_format", format);
    Json config;
    config.set("quantization_config", std::move(quantization));
    return config;
}

inline Json weights_entry(int bits, Index group, bool symmetric)
{
    Json weights;
    weights.set("num_bits", bits);
    weights.set("type", "int");
    weights.set("symmetric", symmetric);
    weights.set("strategy", group > 0 ? "group" : "channel");
    weights.set("group_size", group > 0 ? Json(std::int64_t{group}) : Json());
    weights.set("dynamic", false);
    return weights;
}

inline Json ct_config(std::vector<Json> weights)
{
    Json groups;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        Json group;
        group.set("weights", std::move(weights[i]));
        groups.set("group_" + std::to_string(i), std::move(group));
    }
    Json quantization;
    quantization.set("quant_method", "compressed-tensors");
    quantization.set("format", "pack-quantized");
    quantization.set("config_groups", std::move(groups));
    Json config;
    config.set("quantization_config", std::move(quantization));
    return config;
}

/// Sets a member however deep: {"quantization_config", "bits"}.
inline void set(Json& json, std::vector<std::string> path, Json value)
{
    if (path.size() == 1) {
        json.set(path.front(), std::move(value));
        return;
    }
    Json inner = json[path.front()];
    set(inner, {path.begin() + 1, path.end()}, std::move(value));
    json.set(path.front(), std::move(inner));
}

/// Writes the tensors to `folder` and opens them with their layers in the place of their parts.
inline Result<std::unique_ptr<CheckpointReader>> open_packed(const std::filesystem::path& folder,
                                                             const Tensors& tensors, const Json& config)
{
    std::vector<TensorSource> sources;
    for (const auto& [name, tensor] : tensors)
        sources.push_back(tensor_source(name, tensor.dtype, tensor.shape, tensor.bytes));
    if (auto written = write_safetensors(folder / "model.safetensors", std::move(sources), {}, true);
        !written)
        return written.error();
    auto stored = CheckpointReader::open(folder);
    if (!stored)
        return stored.error();
    return with_dense_layers(std::move(*stored), folder, config);
}

} // namespace rankscope::test
