// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/activation_quantization.h"

namespace rankscope {

Buffer quantized_activations(const Buffer& x, const ActivationQuantization& options, Backend& backend)
{
    if (!options.active() || x.empty())
        return x;
    // A token is a row with one scale: the weights' grid, made narrower by the clip.
    UniformGrid grid;
    grid.bits = options.bits;
    grid.group = 0;
    grid.symmetric = true;
    grid.rule = SymmetricRule::Restricted;
    GridBuffers fitted = backend.fit_grid(x, grid);
    if (options.clip != 1.0)
        backend.scale_rows(fitted.scales, VectorD::Constant(x.rows(), options.clip));
    return backend.round_nearest(x, fitted).values;
}

} // namespace rankscope
