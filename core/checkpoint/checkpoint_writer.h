// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/tensor/tensor_view.h"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace rankscope {

/// One tensor to be written; `fill` produces exactly shape × dtype bytes when its turn comes, so that a file
/// larger than memory can be streamed.
struct TensorSource {
    std::string name;
    DType dtype = DType::F32;
    Shape shape;
    std::function<Result<std::vector<std::byte>>()> fill;
};

namespace detail {
TensorSource matrix_source(std::string name, const Matrix& matrix, DType dtype);
TensorSource matrix_source(std::string name, const MatrixD& matrix);
TensorSource matrix_source(std::string name, const CodeMatrix& codes);
} // namespace detail

/// Convenience sources that own a copy of the data: float32 expressions, stored as `dtype` (F32, F16, BF16,
/// F64) …
template <class Derived>
requires std::is_same_v<typename Derived::Scalar, float> TensorSource
tensor_source(std::string name, const Eigen::MatrixBase<Derived>& matrix, DType dtype = DType::F32)
{
    return detail::matrix_source(std::move(name), Matrix(matrix), dtype);
}
/// … float64 as F64, int16 codes as I8 where all fit and I16 otherwise.
template <class Derived>
requires(std::is_same_v<typename Derived::Scalar,
                        double> || std::is_same_v<typename Derived::Scalar, std::int16_t>) TensorSource
    tensor_source(std::string name, const Eigen::MatrixBase<Derived>& matrix)
{
    using Dense = std::conditional_t<std::is_same_v<typename Derived::Scalar, double>, MatrixD, CodeMatrix>;
    return detail::matrix_source(std::move(name), Dense(matrix));
}
/// Any element type, as raw bytes.
TensorSource tensor_source(std::string name, DType dtype, Shape shape, std::vector<std::byte> bytes);

/// Writes a safetensors file atomically: header (8-byte aligned), then the tensors, those with the larger
/// elements first and by name among equals, so that each begins at a multiple of its element size (PyTorch
/// asks for that). `metadata` becomes `__metadata__`. Errors: Io, NoSpace (checked before the first byte),
/// BadInput (exists, no force), what a source's `fill` returned.
Status write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                         const std::map<std::string, std::string>& metadata, bool replace);

} // namespace rankscope
