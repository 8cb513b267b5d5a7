// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/reconstruction.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace rankscope {
namespace {

constexpr Index k_most_halvings = 8;
/// A batch's loss this far above the start's whole loss does not come back within the schedule.
constexpr double k_diverged = 20.0;

/// The least whole loss so far, with the parameters that had it.
class Best {
public:
    void offer(const LossPoint& point, std::span<LearnedLinear* const> linears, Backend& backend)
    {
        if (!(point.training < loss_))
            return;
        loss_ = point.training;
        step_ = point.step;
        parameters_.clear();
        for (const LearnedLinear* linear : linears)
            parameters_.push_back(linear->snapshot(backend));
    }
    void restore(std::span<LearnedLinear* const> linears, bool forget, Backend& backend) const
    {
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            linears[i]->restore(parameters_[i], forget, backend);
    }
    Index step() const { return step_; }

private:
    double loss_ = std::numeric_limits<double>::infinity();
    Index step_ = 0;
    std::vector<LearnedParameters> parameters_;
};

/// One try with one learning rate. False: it diverged.
class Attempt {
public:
    Attempt(std::span<LearnedLinear* const> linears, const TrainingLoss& loss,
            const ReconstructionOptions& options, double rate, Backend& backend, Monitor& monitor)
        : linears_(linears), loss_(loss), options_(options), rate_(rate), backend_(backend), monitor_(monitor)
    {}

    bool run(ReconstructionReport& report, Best& best)
    {
        const double limit = k_diverged * report.curve.front().training;
        const Index interval = std::max<Index>(1, options_.steps / std::max<Index>(1, options_.checks));
        for (Index step = 0; step < options_.steps; ++step) {
            monitor_.throw_if_cancelled();
            monitor_.report(static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(options_.steps),
                            "learn");
            const double batch_loss = loss_.descend(step);
            report.step_losses.push_back(batch_loss);
            // The first batch is that of the start, however far it lies from the mean.
            if (!std::isfinite(batch_loss) || (step > 0 && batch_loss > limit))
                return false;
            AdamStep by;
            by.learning_rate = cosine_rate(rate_, step, options_.steps);
            by.step = step + 1;
            for (LearnedLinear* linear : linears_)
                linear->step(by, backend_);
            if ((step + 1) % interval == 0 || step + 1 == options_.steps) {
                LossPoint point = loss_.measure();
                point.step = step + 1;
                report.curve.push_back(point);
                if (!(point.training <= limit))
                    return false;
                best.offer(point, linears_, backend_);
            }
        }
        return true;
    }

private:
    std::span<LearnedLinear* const> linears_;
    const TrainingLoss& loss_;
    const ReconstructionOptions& options_;
    double rate_;
    Backend& backend_;
    Monitor& monitor_;
};

} // namespace

double cosine_rate(double rate, Index step, Index steps)
{
    return 0.5 * rate
           * (1.0 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
}

ReconstructionReport train(std::span<LearnedLinear* const> linears, const TrainingLoss& loss,
                           const ReconstructionOptions& options, Backend& backend, Monitor& monitor)
{
    ReconstructionReport report;
    Best best;
    report.learning_rate = options.learning_rate;
    const LossPoint start = loss.measure();
    report.curve = {start};
    best.offer(start, linears, backend);
    if (!(start.training > 0.0)) // nothing to gain, or nothing that can be measured
        return report;
    for (;;) {
        report.curve.resize(1);
        report.step_losses.clear();
        Attempt attempt(linears, loss, options, report.learning_rate, backend, monitor);
        const bool held = attempt.run(report, best);
        best.restore(linears, !held, backend);
        if (held || report.halvings == k_most_halvings)
            break;
        ++report.halvings;
        report.learning_rate *= 0.5;
        monitor.warn(fmt::format(
            "The learning rate {:g} diverged after {} of {} steps; it goes on with {:g}.",
            2.0 * report.learning_rate, report.step_losses.size(), options.steps, report.learning_rate));
    }
    report.best_step = best.step();
    return report;
}

namespace {

/// The loss, and ∂loss/∂Ŵ in `slope`.
double layer_loss(LearnedLinear& linear, const LayerLoss& loss, Buffer& slope, Backend& backend)
{
    // With E = W − Ŵ the loss is [tr(E·H̃·Eᵀ) + 2·Σ drift ⊙ E + floor] / out: small terms only, so that
    // float32 holds it; its gradient is −2·(E·H̃ + drift) / out.
    const Buffer& weight = linear.weight();
    const double factor = -2.0 / static_cast<double>(weight.rows());
    slope = backend.allocate(weight.rows(), weight.cols(), weight.precision());
    const Buffer error = backend.difference(weight, linear.forward(backend));
    backend.gemm(factor, error, Transpose::No, loss.hessian, Transpose::No, 0.0, slope);
    double sum = loss.floor + backend.dot(slope, error) / factor;
    if (!loss.drift.empty()) {
        sum += 2.0 * backend.dot(loss.drift, error);
        backend.add_scaled(factor, loss.drift, 1.0, slope);
    }
    return sum / static_cast<double>(weight.rows());
}

} // namespace

double descend_layer(LearnedLinear& linear, const LayerLoss& loss, Backend& backend)
{
    Buffer slope;
    const double value = layer_loss(linear, loss, slope, backend);
    linear.backward(slope, backend);
    return value;
}

ReconstructionReport reconstruct_layer(LearnedLinear& linear, const LayerLoss& loss,
                                       const ReconstructionOptions& options, Backend& backend,
                                       Monitor& monitor)
{
    TrainingLoss training;
    training.descend = [&](Index) { return descend_layer(linear, loss, backend); };
    training.measure = [&] {
        Buffer slope;
        return LossPoint{0, layer_loss(linear, loss, slope, backend), -1.0};
    };
    LearnedLinear* const linears[] = {&linear};
    return train(linears, training, options, backend, monitor);
}

} // namespace rankscope
