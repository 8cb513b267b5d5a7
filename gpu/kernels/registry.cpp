// SPDX-License-Identifier: GPL-3.0-or-later
// A kernel is one .comp file, one enumerator and one line here.
#include "gpu/kernels/registry.h"

#include "gpu/spirv/kernel_words.h"

#include <array>
#include <cassert>

namespace rankscope::gpu {

namespace {

constexpr std::size_t k_count = static_cast<std::size_t>(Kernel::Count);

constexpr std::array<KernelInfo, k_count> k_kernels{{
    {"gemm", k_gemm_words, 3},
    {"gram", k_gram_words, 4},
    {"mirror", k_mirror_words, 2},
    {"add_scaled", k_add_scaled_words, 2},
    {"scale", k_scale_words, 2},
    {"gather", k_gather_words, 3},
    {"dot", k_dot_words, 3},
    {"max_abs", k_max_abs_words, 2},
    {"hadamard_butterfly", k_hadamard_butterfly_words, 1},
    {"hadamard_base", k_hadamard_base_words, 2},
    {"fit_grid", k_fit_grid_words, 3},
    {"pack_grid", k_pack_grid_words, 3},
    {"round_nearest", k_round_nearest_words, 4},
    {"round_feedback", k_round_feedback_words, 4},
    {"grid_values", k_grid_values_words, 3},
    {"rms_norm", k_rms_norm_words, 3},
    {"add_bias", k_add_bias_words, 2},
    {"rope", k_rope_words, 2},
    {"silu_multiply", k_silu_multiply_words, 2},
    {"attention", k_attention_words, 4},
    {"cross_entropy", k_cross_entropy_words, 3},
    {"column_sums", k_column_sums_words, 4},
    {"row_extremes", k_row_extremes_words, 2},
}};

} // namespace

const KernelInfo& kernel_info(Kernel kernel)
{
    assert(kernel < Kernel::Count);
    return k_kernels[static_cast<std::size_t>(kernel)];
}

} // namespace rankscope::gpu
