// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/backend.h"

#include <vector>

#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/micro_kernel.h"

namespace rankscope {

Buffer Backend::multiply(const Buffer& a, Transpose ta, const Buffer& b, Transpose tb)
{
    const Index rows = ta == Transpose::No ? a.rows() : a.cols();
    const Index cols = tb == Transpose::No ? b.cols() : b.rows();
    Buffer product = allocate(rows, cols, a.precision());
    gemm(1.0, a, ta, b, tb, 0.0, product);
    return product;
}

Buffer Backend::difference(const Buffer& a, const Buffer& b)
{
    Buffer result = copy(a);
    add_scaled(-1.0, b, 1.0, result);
    return result;
}

Buffer Backend::prepare_weight(Index rows, Index cols, const RowDecoder& decode)
{
    Matrix weight(rows, cols);
    for (Index row = 0; row < rows; ++row)
        decode(row, weight.row(row).data());
    return prepare_weight(upload(weight));
}

std::unique_ptr<Backend> make_cpu_backend()
{
    return std::make_unique<detail::CpuBackend>(detail::Factors::Float32);
}

Result<std::unique_ptr<Backend>> make_bfloat_cpu_backend()
{
    if (detail::micro_kernel().bfloats == nullptr)
        return usage_error("this CPU has no products of bfloat16 numbers (AVX512-BF16)", "--backend",
                           "Use --backend cpu");
    return std::unique_ptr<Backend>(std::make_unique<detail::CpuBackend>(detail::Factors::Bfloat16));
}

void Backend::rope_backward(Buffer& dy, const RopeShape& shape)
{
    // A rotation is undone by the opposite angle; the attention factor stays a factor.
    std::vector<double> opposite(shape.inverse_frequency.begin(), shape.inverse_frequency.end());
    for (double& frequency : opposite)
        frequency = -frequency;
    RopeShape back = shape;
    back.inverse_frequency = opposite;
    rope(dy, back);
}

} // namespace rankscope
