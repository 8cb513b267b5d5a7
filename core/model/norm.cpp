// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/norm.h"

#include "core/model/model.h"

namespace rankscope {

Result<Norm> Norm::load(const Model& model, const std::string& gain, Backend& backend)
{
    Norm norm;
    if (gain.empty())
        return norm;
    auto factors = model.checkpoint().read(gain);
    if (!factors)
        return factors.error();
    const NormKind kind = model.architecture().norm_kind();
    if (kind == NormKind::RootMeanSquareFromOne)
        factors->array() += 1.0F;
    norm.gain_ = backend.upload(*factors);
    norm.epsilon_ = model.config().norm_epsilon;
    if (kind == NormKind::MeanVariance) {
        auto offsets = model.checkpoint().read(norm_bias(gain));
        if (!offsets)
            return offsets.error();
        norm.bias_ = backend.upload(*offsets);
    }
    return norm;
}

Buffer Norm::apply(const Buffer& x, Backend& backend) const
{
    if (!present())
        return x;
    return bias_.empty() ? backend.rms_norm(x, gain_, epsilon_)
                         : backend.layer_norm(x, gain_, bias_, epsilon_);
}

NormGradient Norm::backward(const Buffer& x, const Buffer& dy, Backend& backend) const
{
    if (!present())
        return {dy, {}, {}};
    return bias_.empty() ? backend.rms_norm_backward(x, gain_, epsilon_, dy)
                         : backend.layer_norm_backward(x, gain_, epsilon_, dy);
}

} // namespace rankscope
