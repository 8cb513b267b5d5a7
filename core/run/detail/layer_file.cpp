// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/layer_file.h"

#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <fmt/format.h>

#include <cstring>

namespace rankscope {
namespace {

constexpr std::string_view k_format = "rankscope.layer";
constexpr std::string_view k_version = "1";

Error damaged(std::string message)
{
    return bad_input(std::move(message), {},
                     "Compute the layer again with compress --resume after deleting its file");
}

std::vector<std::byte> bytes_of(const std::vector<Index>& indices)
{
    std::vector<std::byte> bytes(indices.size() * sizeof(std::int64_t));
    for (std::size_t i = 0; i < indices.size(); ++i) {
        const std::int64_t value = indices[i];
        std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
    }
    return bytes;
}

std::map<std::string, std::string> describe(const LayerPlan& row, const Decomposition& decomposition)
{
    const UniformGrid& grid = decomposition.quantized.grid;
    return {{"format", std::string(k_format)},
            {"version", std::string(k_version)},
            {"layer", row.layer},
            {"method", row.method},
            {"bits", std::to_string(grid.bits)},
            {"group", std::to_string(grid.group)},
            {"symmetric", grid.symmetric ? "true" : "false"},
            {"symmetric_rule", grid.rule == SymmetricRule::Full ? "full" : "restricted"},
            {"factor_bits", std::to_string(decomposition.factor_bits)},
            {"quantization_scale", Json(decomposition.quantization_scale).dump()}};
}

Result<std::int64_t> integer_of(const Json& metadata, std::string_view key)
{
    auto json = Json::parse(metadata[key].string());
    if (!json || !json->is_integer())
        return damaged(fmt::format("its metadata lacks a whole number \"{}\"", key));
    return json->integer();
}

Result<CodeMatrix> read_codes(const CheckpointReader& reader)
{
    auto view = reader.view("codes");
    if (!view)
        return view.error();
    if (view->shape.size() != 2 || (view->dtype != DType::I8 && view->dtype != DType::I16))
        return damaged(fmt::format("tensor codes is {} {}, expected I8 or I16 of rank 2", name(view->dtype),
                                   to_string(view->shape)));
    CodeMatrix codes(view->shape[0], view->shape[1]);
    const auto count = static_cast<std::size_t>(codes.size());
    if (view->dtype == DType::I16) {
        std::memcpy(codes.data(), view->bytes.data(), count * sizeof(std::int16_t));
        return codes;
    }
    for (std::size_t i = 0; i < count; ++i)
        codes.data()[i] = static_cast<std::int8_t>(view->bytes[i]);
    return codes;
}

Status read_outliers(const CheckpointReader& reader, Decomposition& decomposition)
{
    if (!reader.find("outlier_channels"))
        return {};
    auto view = reader.view("outlier_channels");
    if (!view)
        return view.error();
    if (view->dtype != DType::I64)
        return damaged("tensor outlier_channels must be I64");
    decomposition.outlier_channels.resize(view->bytes.size() / sizeof(std::int64_t));
    for (std::size_t i = 0; i < decomposition.outlier_channels.size(); ++i) {
        std::int64_t value = 0;
        std::memcpy(&value, view->bytes.data() + i * sizeof value, sizeof value);
        decomposition.outlier_channels[i] = value;
    }
    return {};
}

Status read_matrix(const CheckpointReader& reader, std::string_view tensor, Matrix& target)
{
    if (!reader.find(tensor))
        return {};
    auto matrix = reader.read(tensor);
    if (!matrix)
        return matrix.error();
    target = std::move(*matrix);
    return {};
}

/// Shapes that do not belong together would make later products read beyond their ends.
Status check_shapes(const Decomposition& decomposition)
{
    const QuantizedMatrix& q = decomposition.quantized;
    const LowRank& factors = decomposition.low_rank;
    const bool has_codes = q.codes.size() > 0;
    if (has_codes && (q.scales.rows() != q.codes.rows() || q.scales.cols() != q.grid.groups(q.codes.cols())))
        return damaged(
            fmt::format("tensor scales is {} × {}, which does not fit codes of {} × {} in groups of {}",
                        q.scales.rows(), q.scales.cols(), q.codes.rows(), q.codes.cols(), q.grid.group));
    if (q.zeros.size() > 0 && (q.zeros.rows() != q.scales.rows() || q.zeros.cols() != q.scales.cols()))
        return damaged("tensor zeros does not have the shape of scales");
    if (factors.left.cols() != factors.right.rows())
        return damaged(fmt::format("tensors left and right have ranks {} and {}", factors.left.cols(),
                                   factors.right.rows()));
    if (has_codes && factors.rank() > 0
        && (factors.left.rows() != q.codes.rows() || factors.right.cols() != q.codes.cols()))
        return damaged("tensors left and right do not have the shape of codes");
    return {};
}

} // namespace

std::filesystem::path layer_file_path(const std::filesystem::path& run_folder, std::string_view layer)
{
    return run_folder / "layers" / (std::string(layer) + ".safetensors");
}

Status write_layer_file(const std::filesystem::path& file, const LayerPlan& row,
                        const Decomposition& decomposition)
{
    const QuantizedMatrix& q = decomposition.quantized;
    std::vector<TensorSource> tensors;
    if (q.codes.size() > 0)
        tensors.push_back(tensor_source("codes", q.codes));
    if (q.scales.size() > 0)
        tensors.push_back(tensor_source("scales", q.scales));
    if (q.zeros.size() > 0)
        tensors.push_back(tensor_source("zeros", q.zeros));
    if (decomposition.low_rank.rank() > 0) {
        tensors.push_back(tensor_source("left", decomposition.low_rank.left));
        tensors.push_back(tensor_source("right", decomposition.low_rank.right));
    }
    if (!decomposition.outlier_channels.empty())
        tensors.push_back(tensor_source("outlier_channels", DType::I64,
                                        {static_cast<std::int64_t>(decomposition.outlier_channels.size())},
                                        bytes_of(decomposition.outlier_channels)));
    return write_safetensors(file, std::move(tensors), describe(row, decomposition), true);
}

Result<Decomposition> read_layer_file(const std::filesystem::path& file)
{
    auto reader = CheckpointReader::open(file);
    if (!reader)
        return reader.error();
    const Json& metadata = (*reader)->metadata();
    if (metadata["format"].string() != k_format || metadata["version"].string() != k_version)
        return damaged("this is no layer file of a run").in(file.string());
    Decomposition decomposition;
    const auto bits = integer_of(metadata, "bits");
    const auto group = integer_of(metadata, "group");
    const auto factor_bits = integer_of(metadata, "factor_bits");
    for (const auto* number : {&bits, &group, &factor_bits}) {
        if (!*number)
            return number->error().in(file.string());
    }
    UniformGrid& grid = decomposition.quantized.grid;
    grid.bits = static_cast<int>(*bits);
    grid.group = *group;
    grid.symmetric = metadata["symmetric"].string() == "true";
    grid.rule =
        metadata["symmetric_rule"].string() == "restricted" ? SymmetricRule::Restricted : SymmetricRule::Full;
    decomposition.factor_bits = static_cast<int>(*factor_bits);
    if (auto scale = Json::parse(metadata["quantization_scale"].string()))
        decomposition.quantization_scale = scale->number();
    if ((*reader)->find("codes")) {
        auto codes = read_codes(**reader);
        if (!codes)
            return codes.error().in(file.string());
        decomposition.quantized.codes = std::move(*codes);
    }
    for (const auto& [tensor, target] :
         {std::pair<std::string_view, Matrix*>{"scales", &decomposition.quantized.scales},
          {"zeros", &decomposition.quantized.zeros},
          {"left", &decomposition.low_rank.left},
          {"right", &decomposition.low_rank.right}}) {
        if (auto read = read_matrix(**reader, tensor, *target); !read)
            return read.error().in(file.string());
    }
    if (auto read = read_outliers(**reader, decomposition); !read)
        return read.error().in(file.string());
    if (decomposition.low_rank.rank() == 0) {
        decomposition.low_rank.left.resize(decomposition.quantized.codes.rows(), 0);
        decomposition.low_rank.right.resize(0, decomposition.quantized.codes.cols());
    }
    if (auto fits = check_shapes(decomposition); !fits)
        return fits.error().in(file.string());
    return decomposition;
}

std::uint64_t layer_file_bytes(const LayerPlan& row, const LinearLayer& layer)
{
    const auto& values = row.parameters.values();
    const auto integer = [&](std::string_view name, std::int64_t fallback) {
        const auto found = values.find(name);
        const auto* number = found == values.end() ? nullptr : std::get_if<std::int64_t>(&found->second);
        return number ? *number : fallback;
    };
    UniformGrid grid;
    grid.group = integer("group", grid.group);
    constexpr std::int64_t k_header_bytes = 4096;
    const std::int64_t code_bytes = integer("bits", grid.bits) >= 8 ? 2 : 1;
    const std::int64_t scales = layer.out * grid.groups(layer.in);
    const std::int64_t factors = integer("rank", 0) * (layer.out + layer.in);
    return static_cast<std::uint64_t>(layer.out * layer.in * code_bytes + 8 * scales + 4 * factors
                                      + k_header_bytes);
}

} // namespace rankscope
