// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"
#include "core/model/model.h"

namespace rankscope {

/// Q + L·R of a layer as the forward pass applies it, with the checkpoint's bias. Errors: BadInput when the
/// shapes are not the layer's.
Result<LinearWeight> decomposed_weight(const Model& model, const LinearLayer& layer,
                                       Decomposition decomposition, Backend& backend);

} // namespace rankscope
