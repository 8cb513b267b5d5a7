// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>

namespace rankscope::gpu {

/// Kernels in the order of the registry's table.
enum class Kernel : std::uint8_t {
    Gemm,
    Gram,
    Mirror,
    AddScaled,
    Scale,
    Gather,
    Dot,
    MaxAbs,
    HadamardButterfly,
    HadamardBase,
    FitGrid,
    PackGrid,
    RoundNearest,
    RoundFeedback,
    GridValues,
    RmsNorm,
    AddBias,
    Rope,
    SiluMultiply,
    Attention,
    CrossEntropy,
    ColumnSums,
    RowExtremes,
    Count,
};

struct KernelInfo {
    const char* name;
    std::span<const std::uint32_t> words; ///< SPIR-V
    std::uint32_t buffers;                ///< storage buffers 0 … buffers − 1
};

const KernelInfo& kernel_info(Kernel kernel);

} // namespace rankscope::gpu
