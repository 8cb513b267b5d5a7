// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/layer_file.h"

#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/compute/grid_levels.h"
#include "core/methods/common_parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace rankscope {
namespace {

constexpr std::string_view k_format = "rankscope.layer";
constexpr std::string_view k_version = "3";
constexpr std::string_view k_rounded_version = "4"; ///< of a layer that rounds its input
/// 1: uniform grids only, no transform; 2: uniform grids and the lattice.
constexpr std::array<std::string_view, 4> k_known_versions{"1", "2", k_version, k_rounded_version};
/// Signs and then T_n of hadamard_matrix.h, on both sides: the number changes with that rule.
constexpr std::string_view k_transform = "hadamard-1";

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

std::vector<std::byte> bytes_of(const VectorD& signs)
{
    std::vector<std::byte> bytes(static_cast<std::size_t>(signs.size()));
    for (Index i = 0; i < signs.size(); ++i)
        bytes[static_cast<std::size_t>(i)] = static_cast<std::byte>(signs(i) < 0.0 ? 0xFF : 0x01);
    return bytes;
}

std::map<std::string, std::string> describe(const LayerPlan& row, const Decomposition& decomposition)
{
    const UniformGrid& grid = decomposition.quantized.grid;
    return {{"format", std::string(k_format)},
            {"version", std::string(decomposition.activations.active() ? k_rounded_version : k_version)},
            {"layer", row.layer},
            {"method", row.method},
            {"bits", std::to_string(grid.bits)},
            {"group", std::to_string(grid.group)},
            {"symmetric", grid.symmetric ? "true" : "false"},
            {"symmetric_rule", grid.rule == SymmetricRule::Full ? "full" : "restricted"},
            {"codebook", codebook_name(decomposition.quantized.codebook, grid.levels)},
            {"columns", std::to_string(decomposition.quantized.cols())},
            {"transform", decomposition.transform.empty() ? "none" : std::string(k_transform)},
            {"factor_bits", std::to_string(decomposition.factors.bits)},
            {"factor_scale", decomposition.factors.per_component ? "component" : "matrix"},
            {"activation_bits", std::to_string(decomposition.activations.bits)},
            {"activation_clip", Json(decomposition.activations.clip).dump()},
            {"quantization_scale", Json(decomposition.quantization_scale).dump()}};
}

Result<std::int64_t> integer_of(const Json& metadata, std::string_view key)
{
    auto json = Json::parse(metadata[key].string());
    if (!json || !json->is_integer())
        return damaged(fmt::format("its metadata lacks a whole number \"{}\"", key));
    return json->integer();
}

Status read_codebook(const Json& metadata, QuantizedMatrix& q)
{
    const std::string& codebook = metadata["codebook"].string();
    if (codebook == "nf" || codebook == "mxint" || codebook == "kquant") {
        q.grid.levels = codebook == "nf"      ? GridLevels::NormalFloat
                        : codebook == "mxint" ? GridLevels::MxInt
                                              : GridLevels::Kquant;
        if (!has_bits(q.grid.levels, q.grid.bits))
            return damaged(fmt::format("its codebook {} does not have {} bits", codebook, q.grid.bits));
        if (q.grid.levels == GridLevels::Kquant
            && (q.grid.group != kquant_group(q.grid.bits)
                || q.grid.symmetric == kquant_has_minimum(q.grid.bits)))
            return damaged(fmt::format("a K type of {} bits has no such groups", q.grid.bits));
    } else if (codebook == "e8p") {
        q.codebook = Codebook::E8P;
        const auto columns = integer_of(metadata, "columns");
        if (!columns)
            return columns.error();
        q.columns = *columns;
    } else if (!codebook.empty() && codebook != "uniform") {
        return damaged(fmt::format("its codebook \"{}\" is not known to this version", codebook));
    }
    return {};
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
    } else {
        for (std::size_t i = 0; i < count; ++i)
            codes.data()[i] = static_cast<std::int8_t>(view->bytes[i]);
    }
    if (auto whole = reader.confirm("codes"); !whole)
        return whole.error();
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
    return reader.confirm("outlier_channels");
}

Result<VectorD> read_signs(const CheckpointReader& reader, std::string_view tensor)
{
    auto view = reader.view(tensor);
    if (!view)
        return view.error();
    if (view->dtype != DType::I8 || view->shape.size() != 1)
        return damaged(fmt::format("tensor {} is {} {}, expected I8 of rank 1", tensor, name(view->dtype),
                                   to_string(view->shape)));
    VectorD signs(view->shape[0]);
    for (Index i = 0; i < signs.size(); ++i) {
        signs(i) = static_cast<std::int8_t>(view->bytes[static_cast<std::size_t>(i)]);
        if (signs(i) != 1.0 && signs(i) != -1.0)
            return damaged(fmt::format("tensor {} holds something else than signs", tensor));
    }
    if (auto whole = reader.confirm(tensor); !whole)
        return whole.error();
    return signs;
}

Status read_transform(const CheckpointReader& reader, Decomposition& decomposition)
{
    const std::string kind = reader.metadata()["transform"].string();
    if (kind.empty() || kind == "none")
        return {};
    if (kind != k_transform)
        return damaged(fmt::format("its transform \"{}\" is not known to this version", kind));
    auto left = read_signs(reader, "signs_left");
    if (!left)
        return left.error();
    auto right = read_signs(reader, "signs_right");
    if (!right)
        return right.error();
    decomposition.transform = Incoherence(std::move(*left), std::move(*right));
    return {};
}

/// How the layer rounds its input; files of other versions do not.
Status read_activations(const Json& metadata, Decomposition& decomposition)
{
    if (metadata["version"].string() != k_rounded_version)
        return {};
    const auto bits = integer_of(metadata, "activation_bits");
    if (!bits)
        return bits.error();
    const auto clip = Json::parse(metadata["activation_clip"].string());
    const bool legal = *bits >= 2 && (*bits <= 8 || *bits == k_unquantized_bits) && clip && clip->is_number()
                       && clip->number() > 0.0 && clip->number() <= 1.0;
    if (!legal)
        return damaged("its metadata names no rounding of activations that exists");
    decomposition.activations = {static_cast<int>(*bits), clip->number()};
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
    const bool lattice = q.codebook == Codebook::E8P;
    if (lattice
        && ((q.grid.bits != 2 && q.grid.bits != 4) || q.columns < 1 || q.scales.size() != 1
            || q.codes.cols() != e8p_codes_per_row(q.columns, q.grid.bits)))
        return damaged(fmt::format("lattice codes of {} × {} do not fit {} inputs of {} bits with one scale",
                                   q.codes.rows(), q.codes.cols(), q.columns, q.grid.bits));
    if (has_codes && !lattice
        && (q.scales.rows() != q.codes.rows() || q.scales.cols() != q.grid.groups(q.codes.cols())))
        return damaged(
            fmt::format("tensor scales is {} × {}, which does not fit codes of {} × {} in groups of {}",
                        q.scales.rows(), q.scales.cols(), q.codes.rows(), q.codes.cols(), q.grid.group));
    if (has_codes && has_minimum(q.grid) && q.zeros.size() == 0)
        return damaged("tensor zeros is missing, which holds the minima of a K type");
    if (q.zeros.size() > 0 && (q.zeros.rows() != q.scales.rows() || q.zeros.cols() != q.scales.cols()))
        return damaged("tensor zeros does not have the shape of scales");
    if (factors.left.cols() != factors.right.rows())
        return damaged(fmt::format("tensors left and right have ranks {} and {}", factors.left.cols(),
                                   factors.right.rows()));
    if (has_codes && factors.rank() > 0
        && (factors.left.rows() != q.rows() || factors.right.cols() != q.cols()))
        return damaged("tensors left and right do not have the shape of codes");
    if (!decomposition.transform.empty()
        && (decomposition.transform.left_signs().size() != factors.left.rows()
            || decomposition.transform.right_signs().size() != factors.right.cols()))
        return damaged("the signs of the transform do not fit the shape of the layer");
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
    const Incoherence& transform = decomposition.transform;
    if (!transform.empty()) {
        tensors.push_back(tensor_source("signs_left", DType::I8,
                                        {static_cast<std::int64_t>(transform.left_signs().size())},
                                        bytes_of(transform.left_signs())));
        tensors.push_back(tensor_source("signs_right", DType::I8,
                                        {static_cast<std::int64_t>(transform.right_signs().size())},
                                        bytes_of(transform.right_signs())));
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
    const std::string& version = metadata["version"].string();
    if (metadata["format"].string() != k_format
        || std::find(k_known_versions.begin(), k_known_versions.end(), version) == k_known_versions.end())
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
    decomposition.factors.bits = static_cast<int>(*factor_bits);
    decomposition.factors.per_component = metadata["factor_scale"].string() != "matrix";
    if (auto read = read_codebook(metadata, decomposition.quantized); !read)
        return read.error().in(file.string());
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
        decomposition.low_rank.left.resize(decomposition.quantized.rows(), 0);
        decomposition.low_rank.right.resize(0, decomposition.quantized.cols());
    }
    if (auto read = read_activations(metadata, decomposition); !read)
        return read.error().in(file.string());
    if (auto read = read_transform(**reader, decomposition); !read)
        return read.error().in(file.string());
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
    if (values.contains("codebook"))
        grid = grid_of(row.parameters);
    constexpr std::int64_t k_header_bytes = 4096;
    const std::int64_t code_bytes = integer("bits", grid.bits) >= 8 ? 2 : 1;
    const std::int64_t scales = layer.out * grid.groups(layer.in);
    const std::int64_t factors = integer("rank", 0) * (layer.out + layer.in);
    const std::int64_t signs = layer.out + layer.in;
    return static_cast<std::uint64_t>(layer.out * (layer.in + 8) * code_bytes + 8 * scales + 4 * factors
                                      + signs + k_header_bytes);
}

} // namespace rankscope
