// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/linalg/incoherence.h"

#include "core/base/random.h"

#include <string>

namespace rankscope {
namespace {

VectorD random_signs(Index count, std::uint64_t seed, const std::string& purpose)
{
    const RandomStream stream(seed, purpose);
    VectorD signs(count);
    for (Index i = 0; i < count; ++i)
        signs(i) = static_cast<double>(stream.sign(static_cast<std::uint64_t>(i)));
    return signs;
}

/// T·diag(signs) on every row, in place.
void rotate(Buffer& rows, const VectorD& signs, Backend& backend)
{
    backend.scale_columns(rows, signs);
    backend.hadamard(rows, Transpose::No);
}

void rotate_back(Buffer& rows, const VectorD& signs, Backend& backend)
{
    backend.hadamard(rows, Transpose::Yes);
    backend.scale_columns(rows, signs);
}

} // namespace

Incoherence::Incoherence(VectorD left_signs, VectorD right_signs)
    : left_(std::move(left_signs)), right_(std::move(right_signs))
{}

Incoherence Incoherence::random(Index rows, Index cols, std::uint64_t seed, std::string_view layer)
{
    const std::string name(layer);
    return {random_signs(rows, seed, name + "/signs_left"), random_signs(cols, seed, name + "/signs_right")};
}

Buffer Incoherence::weight(const Buffer& w, Backend& backend) const
{
    return empty() ? w : left_factor(right_factor(w, backend), backend);
}

MatrixD Incoherence::hessian(const MatrixD& h, Backend& backend) const
{
    if (empty())
        return h;
    Buffer rows = backend.upload(h);
    rotate(rows, right_, backend);
    rows = backend.transposed(rows);
    rotate(rows, right_, backend);
    const MatrixD rotated = backend.download_double(rows);
    return 0.5 * (rotated + rotated.transpose());
}

Buffer Incoherence::left_factor(const Buffer& left, Backend& backend) const
{
    if (empty() || left.empty())
        return left;
    Buffer rows = backend.transposed(left); // rotations act on rows
    rotate(rows, left_, backend);
    return backend.transposed(rows);
}

Buffer Incoherence::right_factor(const Buffer& right, Backend& backend) const
{
    if (empty() || right.empty())
        return right;
    Buffer rows = backend.copy(right);
    rotate(rows, right_, backend);
    return rows;
}

Matrix Incoherence::restored_weight(const Matrix& w, Backend& backend) const
{
    return empty() ? w : restored_left(restored_right(w, backend), backend);
}

Matrix Incoherence::restored_left(const Matrix& left, Backend& backend) const
{
    if (empty() || left.size() == 0)
        return left;
    Buffer rows = backend.upload(Matrix(left.transpose()));
    rotate_back(rows, left_, backend);
    return backend.download(rows).transpose();
}

Matrix Incoherence::restored_right(const Matrix& right, Backend& backend) const
{
    if (empty() || right.size() == 0)
        return right;
    Buffer rows = backend.upload(right);
    rotate_back(rows, right_, backend);
    return backend.download(rows);
}

} // namespace rankscope
