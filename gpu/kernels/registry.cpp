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
    {"gemm", k_gemm_words, 3, Rate::Arithmetic},
    {"gram", k_gram_words, 4, Rate::Arithmetic},
    {"mirror", k_mirror_words, 2, Rate::None},
    {"add_scaled", k_add_scaled_words, 2, Rate::Memory},
    {"scale", k_scale_words, 2, Rate::Memory},
    {"gather", k_gather_words, 3, Rate::Memory},
    {"dot", k_dot_words, 3, Rate::Memory},
    {"max_abs", k_max_abs_words, 2, Rate::Memory},
    {"hadamard_butterfly", k_hadamard_butterfly_words, 1, Rate::Memory},
    {"hadamard_base", k_hadamard_base_words, 2, Rate::Arithmetic},
    {"fit_grid", k_fit_grid_words, 3, Rate::Memory},
    {"pack_grid", k_pack_grid_words, 3, Rate::Memory},
    {"round_nearest", k_round_nearest_words, 4, Rate::Memory},
    {"round_feedback", k_round_feedback_words, 4, Rate::Arithmetic},
    {"grid_values", k_grid_values_words, 3, Rate::Memory},
    {"rms_norm", k_rms_norm_words, 3, Rate::Memory},
    {"add_bias", k_add_bias_words, 2, Rate::Memory},
    {"rope", k_rope_words, 2, Rate::Memory},
    {"activate", k_activate_words, 2, Rate::Memory},
    {"attention", k_attention_words, 4, Rate::Arithmetic},
    {"cross_entropy", k_cross_entropy_words, 3, Rate::Memory},
    {"column_sums", k_column_sums_words, 4, Rate::Memory},
    {"row_extremes", k_row_extremes_words, 2, Rate::Memory},
    {"peak", k_peak_words, 1, Rate::Arithmetic},
    {"activate_backward", k_activate_backward_words, 4, Rate::Memory},
    {"soft_cap", k_soft_cap_words, 1, Rate::Memory},
    {"layer_norm", k_layer_norm_words, 4, Rate::Memory},
    {"adam_step", k_adam_step_words, 4, Rate::Memory},
    {"row_argmax", k_row_argmax_words, 2, Rate::Memory},
    {"norm_backward", k_norm_backward_words, 4, Rate::Memory},
    {"add_rows", k_add_rows_words, 2, Rate::Memory},
    {"pack_learned", k_pack_learned_words, 4, Rate::Memory},
    {"learned_exponent", k_learned_exponent_words, 4, Rate::Memory},
    {"round_learned", k_round_learned_words, 4, Rate::Memory},
    {"learned_gradient", k_learned_gradient_words, 4, Rate::Memory},
    {"learned_sums", k_learned_sums_words, 3, Rate::Memory},
    {"attention_weights", k_attention_weights_words, 2, Rate::Memory},
    {"attention_slopes", k_attention_slopes_words, 3, Rate::Memory},
    {"kl_divergence", k_kl_divergence_words, 3, Rate::Memory},
    {"descend_codes", k_descend_codes_words, 4, Rate::Arithmetic},
    {"lattice_feedback", k_lattice_feedback_words, 4, Rate::Arithmetic},
    {"lattice_descent", k_lattice_descent_words, 4, Rate::Arithmetic},
    {"gemm_half", k_gemm_half_words, 3, Rate::Arithmetic},
    {"pack_half", k_pack_half_words, 2, Rate::Memory},
    {"solve_panel", k_solve_panel_words, 2, Rate::Arithmetic},
    {"transpose", k_transpose_words, 2, Rate::Memory},
}};

} // namespace

const KernelInfo& kernel_info(Kernel kernel)
{
    assert(kernel < Kernel::Count);
    return k_kernels[static_cast<std::size_t>(kernel)];
}

} // namespace rankscope::gpu
