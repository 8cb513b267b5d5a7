// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/tensor/tensor_view.h"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace rankscope {

/// One tensor to be written; `fill` produces exactly shape × dtype bytes when its turn comes, so that a file larger
/// than memory can be streamed.
struct TensorSource {
    std::string name;
    DType dtype = DType::F32;
    Shape shape;
    std::function<Result<std::vector<std::byte>>()> fill;
};

/// Convenience sources that own a copy of the data.
TensorSource tensor_source(std::string name, const Eigen::Ref<const Matrix>& matrix, DType dtype = DType::F32);
TensorSource tensor_source(std::string name, const Eigen::Ref<const MatrixD>& matrix); ///< F64
TensorSource tensor_source(std::string name, const CodeMatrix& codes);                 ///< I16, or I8 where it fits
/// Any element type, as raw bytes.
TensorSource tensor_source(std::string name, DType dtype, Shape shape, std::vector<std::byte> bytes);

/// Writes a safetensors file atomically: header (8-byte aligned, sorted by name), then the tensors in that order.
/// `metadata` becomes `__metadata__`. Errors: Io, NoSpace (checked before the first byte), BadInput (exists, no force).
Status write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                         const std::map<std::string, std::string>& metadata, bool replace);

} // namespace rankscope
