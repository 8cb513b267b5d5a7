// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/rotation.h"

#include "core/base/random.h"
#include "core/compute/backend.h"
#include "core/compute/hadamard_matrix.h"

namespace rankscope {
namespace {

/// T on every row, in float64. On the reference backend, so that a rotated model is the same everywhere.
MatrixD hadamard_rows(MatrixD rows)
{
    static const std::unique_ptr<Backend> backend = make_cpu_backend();
    Buffer buffer = backend->upload(rows);
    backend->hadamard(buffer, Transpose::No);
    return backend->download_double(buffer);
}

/// The same numbers, row by row, as rows of another width.
MatrixD reshaped(const MatrixD& matrix, Index width)
{
    return Eigen::Map<const MatrixD>(matrix.data(), matrix.size() / width, width);
}

Status refuse(const Architecture& architecture, const char* reason)
{
    return bad_input("a " + std::string(architecture.title())
                         + " model cannot be rotated: " + std::string(reason),
                     {}, "Rotate single layers instead, with rht=true in methods that have it");
}

} // namespace

ModelRotation::ModelRotation(VectorD signs) : signs_(std::move(signs)) {}

ModelRotation ModelRotation::random(Index hidden, std::uint64_t seed)
{
    const RandomStream stream(seed, "rotation/residual");
    VectorD signs(hidden);
    for (Index i = 0; i < hidden; ++i)
        signs(i) = static_cast<double>(stream.sign(static_cast<std::uint64_t>(i)));
    return ModelRotation(std::move(signs));
}

MatrixD ModelRotation::residual(MatrixD rows) const
{
    rows.array().rowwise() *= signs_.transpose().array();
    return hadamard_rows(std::move(rows));
}

MatrixD ModelRotation::reader(MatrixD weight, const VectorD& gain) const
{
    if (gain.size() > 0)
        weight.array().rowwise() *= gain.transpose().array();
    return residual(std::move(weight));
}

MatrixD ModelRotation::writer(const MatrixD& weight) const
{
    return residual(weight.transpose()).transpose();
}

MatrixD with_rotated_heads(MatrixD rows, Index first_row, Index head_dim)
{
    const Index heads = (rows.rows() - first_row) / head_dim;
    for (Index head = 0; head < heads; ++head) {
        auto part = rows.middleRows(first_row + head * head_dim, head_dim);
        part = hadamard_rows(part.transpose()).transpose().eval();
    }
    return rows;
}

MatrixD with_rotated_attention(const MatrixD& weight, Index heads)
{
    const Index head_dim = weight.cols() / heads;
    MatrixD result = reshaped(hadamard_rows(reshaped(weight, head_dim)), weight.cols());
    // The heads' axis comes first in a row: each row is turned over for its transform.
    for (Index row = 0; row < result.rows(); ++row) {
        const MatrixD turned = reshaped(result.row(row), head_dim).transpose();
        const MatrixD mixed = hadamard_rows(turned).transpose();
        result.row(row) = Eigen::Map<const MatrixD>(mixed.data(), 1, mixed.size());
    }
    return result;
}

MatrixD with_rotated_input(MatrixD weight) { return hadamard_rows(std::move(weight)); }

MatrixD head_mix(Index heads, Index head_dim)
{
    const MatrixD transform = hadamard_rows(MatrixD::Identity(heads, heads)).transpose(); // column i: T·e_i
    MatrixD result = MatrixD::Zero(heads * head_dim, heads * head_dim);
    for (Index i = 0; i < heads; ++i)
        for (Index j = 0; j < heads; ++j)
            result.block(i * head_dim, j * head_dim, head_dim, head_dim)
                .diagonal()
                .setConstant(transform(i, j));
    return result;
}

Status check_rotatable(const Architecture& architecture, const ModelConfig& config)
{
    if (architecture.norm_kind() == NormKind::MeanVariance)
        return refuse(architecture, "its LayerNorm subtracts the mean of the channels, which a rotation does "
                                    "not leave where it is");
    if (config.experts > 0)
        return refuse(architecture, "its MLP is one of many experts, each with an input of its own");
    const BlockNames names = architecture.block_names(config, 0);
    if (!names.attention_result_norm.empty() || !names.mlp_result_norm.empty())
        return refuse(architecture,
                      "it has a norm with a gain on what attention and MLP add, which cannot be "
                      "folded into what reads the sum");
    if (architecture.block_traits(config, 0).rows_by_head)
        return refuse(architecture, "its queries, keys and values are interleaved by head");
    return {};
}

} // namespace rankscope
