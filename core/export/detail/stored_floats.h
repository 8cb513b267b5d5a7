// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"
#include "core/tensor/tensor_view.h"

#include <cstddef>
#include <vector>

namespace rankscope {

/// One tensor of an export, with its bytes.
struct PackedTensor {
    DType dtype = DType::F32;
    Shape shape;
    std::vector<std::byte> bytes;
};

/// F16 where it changes no scale by more than 2⁻¹⁰ of itself (a scale multiplies a whole group), else F32.
DType scale_type(const Matrix& scales);
/// F16 where it changes the factor by no more than 2⁻¹⁰ of its norm (tiny entries may lose bits), else F32.
DType factor_type(const Matrix& factor);

/// The values after storing them as `dtype`.
Matrix through(DType dtype, const Matrix& values);
std::vector<std::byte> float_bytes(DType dtype, const Matrix& values);
PackedTensor float_tensor(DType dtype, const Matrix& values);

} // namespace rankscope
