// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/compute/backend.h"
#include "core/model/architecture.h"

#include <string>

namespace rankscope {

class Model;

/// A norm with its weights on a backend, of the kind that the model's family has.
class Norm {
public:
    Norm() = default; ///< absent: apply hands x back
    /// An RMSNorm, or with a bias a LayerNorm; both 1 × width.
    Norm(Buffer gain, Buffer bias, double epsilon)
        : gain_(std::move(gain)), bias_(std::move(bias)), epsilon_(epsilon)
    {}
    /// `gain` as the checkpoint names it; empty loads an absent norm.
    static Result<Norm> load(const Model& model, const std::string& gain, Backend& backend);

    bool present() const { return !gain_.empty(); }
    Buffer apply(const Buffer& x, Backend& backend) const;
    /// From the gradient of apply(x); an absent norm hands dy back and has no gains.
    NormGradient backward(const Buffer& x, const Buffer& dy, Backend& backend) const;

private:
    Buffer gain_;
    Buffer bias_; ///< of NormKind::MeanVariance
    double epsilon_ = 0.0;
};

} // namespace rankscope
