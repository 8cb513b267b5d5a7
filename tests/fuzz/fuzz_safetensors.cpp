// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a whole safetensors file. Whatever the header promises must lie inside it.
#include "core/checkpoint/detail/safetensors_header.h"
#include "core/tensor/tensor_view.h"

using namespace rankscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
    const auto header = detail::parse_safetensors_header(file);
    if (!header) {
        if (header.error().kind != ErrorKind::BadInput || header.error().message.empty())
            __builtin_trap();
        return 0;
    }
    std::uint64_t covered = header->bytes.size();
    for (const TensorInfo& tensor : header->tensors) {
        if (tensor.offset > size || tensor.bytes > size - tensor.offset)
            __builtin_trap();
        covered += tensor.bytes;
        const TensorView view{
            tensor.dtype, tensor.shape,
            file.subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes))};
        const Matrix matrix = view.to_matrix();
        if (static_cast<std::uint64_t>(matrix.size()) * size_bytes(tensor.dtype) != tensor.bytes)
            __builtin_trap();
    }
    if (covered != size)
        __builtin_trap();
    return 0;
}
