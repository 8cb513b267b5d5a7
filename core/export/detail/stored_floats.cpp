// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/stored_floats.h"

#include "core/tensor/half.h"

namespace rankscope {
namespace {

constexpr float k_half_rounding = 0x1p-10F; ///< twice the relative rounding of a normal binary16

} // namespace

Matrix through(DType dtype, const Matrix& values)
{
    const std::vector<std::byte> bytes = float_bytes(dtype, values);
    Matrix result(values.rows(), values.cols());
    decode_to_float(dtype, bytes.data(), static_cast<std::size_t>(values.size()), result.data());
    return result;
}

DType scale_type(const Matrix& scales)
{
    const Matrix stored = through(DType::F16, scales);
    const bool fits = stored.allFinite()
                      && ((stored - scales).array().abs() <= k_half_rounding * scales.array().abs()).all();
    return fits ? DType::F16 : DType::F32;
}

DType factor_type(const Matrix& factor)
{
    const Matrix stored = through(DType::F16, factor);
    return stored.allFinite() && (stored - factor).norm() <= k_half_rounding * factor.norm() ? DType::F16
                                                                                             : DType::F32;
}

std::vector<std::byte> float_bytes(DType dtype, const Matrix& values)
{
    std::vector<std::byte> bytes(static_cast<std::size_t>(values.size()) * size_bytes(dtype));
    encode_from_float(dtype, values.data(), static_cast<std::size_t>(values.size()), bytes.data());
    return bytes;
}

PackedTensor float_tensor(DType dtype, const Matrix& values)
{
    return {dtype, {values.rows(), values.cols()}, float_bytes(dtype, values)};
}

} // namespace rankscope
