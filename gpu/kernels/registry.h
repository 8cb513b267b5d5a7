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
    Activate,
    Attention,
    CrossEntropy,
    ColumnSums,
    RowExtremes,
    Peak,
    ActivateBackward,
    SoftCap,
    LayerNorm,
    AdamStep,
    RowArgmax,
    NormBackward,
    AddRows,
    PackLearned,
    LearnedExponent,
    RoundLearned,
    LearnedGradient,
    LearnedSums,
    AttentionWeights,
    AttentionSlopes,
    KlDivergence,
    DescendCodes,
    LatticeFeedback,
    LatticeDescent,
    GemmHalf,
    PackHalf,
    SolvePanel,
    Transpose,
    Count,
};

/// What says how well a kernel uses a device.
enum class Rate : std::uint8_t {
    Arithmetic, ///< a dispatch's FLOPs are what it computes
    Memory,     ///< it reads or writes what it is bound to once
    None,       ///< neither can be told from a dispatch
};

struct KernelInfo {
    const char* name;
    std::span<const std::uint32_t> words; ///< SPIR-V
    std::uint32_t buffers;                ///< storage buffers 0 … buffers − 1
    Rate rate;
};

const KernelInfo& kernel_info(Kernel kernel);

} // namespace rankscope::gpu
