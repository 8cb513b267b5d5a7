// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/linalg/incoherence.h"
#include "core/linalg/weighted_low_rank.h"
#include "core/model/rotation.h"

#include <cmath>
#include <map>

namespace rankscope::golden {
namespace {

Status check_hadamard(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Json::Array* sizes = golden.parameters()["sizes"].array_if();
    if (!sizes)
        return bad_input("the case lists no sizes");
    for (const Json& size : *sizes) {
        const std::string n = std::to_string(size.integer());
        if (!golden.has("x" + n))
            return bad_input("the case holds no tensor x" + n);
        Buffer x = backend.upload(golden.single("x" + n));
        backend.hadamard(x, Transpose::No);
        verdict.tensor("y" + n, backend.download(x));
    }
    return {};
}

Status check_rht(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Incoherence transform(golden.tensor("signs_left").transpose(),
                                golden.tensor("signs_right").transpose());
    const Buffer weight = transform.weight(backend.upload(golden.single("W")), backend);
    const MatrixD hessian = transform.hessian(golden.tensor("H"), backend);
    verdict.tensor("W_rotated", backend.download(weight));
    verdict.tensor("H_rotated", hessian);
    verdict.scalar("objective", weighted_squared_norm(weight, backend.upload(hessian), backend));
    return {};
}

/// A pre-norm block with rotated weights, as the case gives its inputs: gains folded, both Hadamards online.
class RotatedBlock {
public:
    RotatedBlock(const GoldenCase& golden, Backend& backend)
        : golden_(golden), backend_(backend), heads_(integer_parameter(golden, "heads", 1)),
          kv_heads_(integer_parameter(golden, "kv_heads", 1)),
          head_dim_(integer_parameter(golden, "head_dim", 1)), rotation_(golden.tensor("signs").row(0))
    {
        const VectorD first = golden.tensor("n1").row(0);
        const VectorD second = golden.tensor("n2").row(0);
        for (const char* name : {"q", "k"})
            weights_[name] = rotation_.reader(golden.tensor(name), first);
        weights_["v"] = with_rotated_heads(rotation_.reader(golden.tensor("v"), first), 0, head_dim_);
        weights_["o"] = rotation_.writer(with_rotated_attention(golden.tensor("o"), heads_));
        for (const char* name : {"gate", "up"})
            weights_[name] = rotation_.reader(golden.tensor(name), second);
        weights_["down"] = rotation_.writer(with_rotated_input(golden.tensor("down")));
    }

    const ModelRotation& rotation() const { return rotation_; }
    const std::map<std::string, MatrixD>& weights() const { return weights_; }

    /// What becomes of h, through h·R1 and back.
    MatrixD run(const MatrixD& hidden) const
    {
        Buffer h = single(rotation_.residual(hidden));
        backend_.add_scaled(1.0, attention(normed(h)), 1.0, h);
        const Buffer x = normed(h);
        Buffer inner = project("gate", x);
        backend_.silu_multiply(inner, project("up", x));
        backend_.hadamard(inner, Transpose::No);
        backend_.add_scaled(1.0, project("down", inner), 1.0, h);
        const MatrixD residual = rotation_.residual(MatrixD::Identity(h.cols(), h.cols()));
        return backend_.download(h).cast<double>() * residual.transpose();
    }

private:
    Buffer single(const MatrixD& matrix) const { return backend_.upload(Matrix(matrix.cast<float>())); }
    Buffer project(const char* name, const Buffer& x) const
    {
        return backend_.multiply(x, Transpose::No, single(weights_.at(name)), Transpose::Yes);
    }
    Buffer normed(const Buffer& h) const
    {
        return backend_.rms_norm(h, single(MatrixD::Ones(1, h.cols())),
                                 golden_.parameters()["eps"].number(1e-6));
    }
    Buffer attention(const Buffer& x) const
    {
        const double theta = golden_.parameters()["rope_theta"].number(10000.0);
        std::vector<double> frequencies;
        for (Index i = 0; i < head_dim_ / 2; ++i)
            frequencies.push_back(
                std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim_)));
        Buffer q = project("q", x);
        Buffer k = project("k", x);
        backend_.rope(q, {heads_, head_dim_, x.rows(), frequencies, 1.0});
        backend_.rope(k, {kv_heads_, head_dim_, x.rows(), frequencies, 1.0});
        const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim_));
        const Buffer mixed = backend_.attention(q, k, project("v", x),
                                                {heads_, kv_heads_, head_dim_, x.rows(), scale, 0, 0.0});
        return project("o", backend_.multiply(mixed, Transpose::No, single(head_mix(heads_, head_dim_)),
                                              Transpose::Yes));
    }

    const GoldenCase& golden_;
    Backend& backend_;
    Index heads_, kv_heads_, head_dim_;
    ModelRotation rotation_;
    std::map<std::string, MatrixD> weights_;
};

Status check_rotation(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const RotatedBlock block(golden, backend);
    for (const auto& [name, weight] : block.weights())
        verdict.tensor("rotated_" + name, weight);
    const Index hidden = golden.tensor("signs").cols();
    verdict.tensor("R", block.rotation().residual(MatrixD::Identity(hidden, hidden)));
    verdict.tensor("out", block.run(golden.tensor("h")));
    return {};
}

} // namespace

std::vector<Handler> transform_handlers()
{
    return {
        {"hadamard", {}, check_hadamard},
        {"rht", {"W", "H", "signs_left", "signs_right"}, check_rht},
        {"rotation", {"n1", "n2", "q", "k", "v", "o", "gate", "up", "down", "h", "signs"}, check_rotation}};
}

} // namespace rankscope::golden
