// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/tensor_view.h"

#include "core/tensor/half.h"

namespace rankscope {

std::string to_string(const Shape& shape)
{
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

std::int64_t element_count(const Shape& shape)
{
    std::int64_t count = 1;
    for (const std::int64_t side : shape)
        count *= side;
    return count;
}

Matrix TensorView::to_matrix() const
{
    const std::int64_t count = element_count(shape);
    const std::int64_t rows = shape.size() < 2 ? 1 : shape.front();
    Matrix matrix(rows, rows == 0 ? 0 : count / rows);
    if (block)
        decode_blocks(block->format, bytes.data(), static_cast<std::size_t>(count) / block->elements,
                      matrix.data());
    else
        decode_to_float(dtype, bytes.data(), static_cast<std::size_t>(count), matrix.data());
    return matrix;
}

void TensorView::decode_row(std::int64_t row, float* target) const
{
    const auto width = static_cast<std::size_t>(shape.back());
    if (block) {
        const std::size_t blocks = width / block->elements;
        decode_blocks(block->format, bytes.data() + static_cast<std::size_t>(row) * blocks * block->bytes,
                      blocks, target);
    } else {
        decode_to_float(dtype, bytes.data() + static_cast<std::size_t>(row) * width * size_bytes(dtype),
                        width, target);
    }
}

} // namespace rankscope
