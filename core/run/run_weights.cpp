// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/decomposed_weight.h"
#include "core/run/run.h"

#include <set>

namespace rankscope {
namespace {

class RunWeights : public WeightSource {
public:
    RunWeights(std::shared_ptr<const Model> model, std::shared_ptr<const Run> run)
        : model_(std::move(model)), run_(std::move(run)), checkpoint_(checkpoint_weights(model_))
    {
        for (const LayerResult& result : run_->results())
            replaced_.insert(result.layer);
    }

    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        if (!replaced_.contains(layer.name))
            return checkpoint_->linear(layer, backend);
        auto decomposition = run_->decomposition(layer.name);
        if (!decomposition)
            return decomposition.error();
        return decomposed_weight(*model_, layer, std::move(*decomposition), backend);
    }

    Result<LinearWeight> prepared_linear(const LinearLayer& layer, Backend& backend) const override
    {
        return replaced_.contains(layer.name) ? WeightSource::prepared_linear(layer, backend)
                                              : checkpoint_->prepared_linear(layer, backend);
    }

private:
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const Run> run_;
    std::unique_ptr<WeightSource> checkpoint_;
    std::set<std::string, std::less<>> replaced_;
};

} // namespace

Result<LinearWeight> decomposed_weight(const Model& model, const LinearLayer& layer, Decomposition decomposition,
                                       Backend& backend)
{
    LinearWeight result;
    Matrix quantized = decomposition.quantized.dequantize();
    LowRank factors = std::move(decomposition.low_rank);
    if (!decomposition.transform.empty()) {
        // In a rotated basis the parts would need rotated activations.
        const Incoherence& transform = decomposition.transform;
        const auto cpu = make_cpu_backend();
        if (quantized.size() > 0)
            quantized = transform.restored_weight(quantized, *cpu);
        factors.left = transform.restored_left(factors.left, *cpu);
        factors.right = transform.restored_right(factors.right, *cpu);
    }
    if (quantized.size() == 0)
        quantized = Matrix::Zero(layer.out, layer.in);
    if (quantized.rows() != layer.out || quantized.cols() != layer.in
        || (factors.rank() > 0 && (factors.left.rows() != layer.out || factors.right.cols() != layer.in)))
        return bad_input("the run's layer does not have the shape of the model's", layer.name,
                         "Compress this checkpoint again");
    result.weight = backend.upload(quantized);
    result.activations = decomposition.activations;
    if (factors.rank() > 0) {
        result.left = backend.upload(factors.left);
        result.right = backend.upload(factors.right);
    }
    if (model.architecture().has_bias(model.config(), layer.role)) {
        auto bias = model.checkpoint().read(layer.bias());
        if (!bias)
            return bias.error();
        result.bias = backend.upload(*bias);
    }
    return result;
}

std::unique_ptr<WeightSource> run_weights(std::shared_ptr<const Model> model, std::shared_ptr<const Run> run)
{
    return std::make_unique<RunWeights>(std::move(model), std::move(run));
}

} // namespace rankscope
