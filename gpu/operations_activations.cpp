// SPDX-License-Identifier: GPL-3.0-or-later
// What stands between an MLP's products, caps, and the step of a learned parameter.
#include "gpu/operations.h"

#include <cmath>

namespace rankscope::gpu {

namespace {

constexpr double k_activation_flops = 3.0 * k_element_flops;

void require_same(const Buffer& a, const Buffer& b, const char* operation)
{
    require(a.rows() == b.rows() && a.cols() == b.cols(), operation, "shapes differ");
    require(a.precision() == b.precision(), operation, "precisions differ");
}

bool on_host(const Buffer& buffer) { return buffer.precision() == Precision::Float64; }

struct ActivationPush {
    std::uint32_t count, activation;
};

} // namespace

/// x = f(x), or f(x) ⊙ up where there is one.
void VulkanBackend::apply_activation(Buffer& x, const Buffer* up, Activation activation)
{
    for_elements(x.size(), [&](Index first, Index count) {
        const View target = view(range_of(x), first, count, Access::ReadWrite);
        const View factors = up != nullptr ? view(range_of(*up), first, count, Access::Read) : target;
        run(Kernel::Activate, {lanes_, up != nullptr ? 1U : 0U}, {target.binding, factors.binding},
            ActivationPush{u32(count), static_cast<std::uint32_t>(activation)}, flat_groups(count),
            k_activation_flops * static_cast<double>(count));
    });
}

void VulkanBackend::silu_multiply(Buffer& gate, const Buffer& up)
{
    activate_multiply(gate, up, Activation::Silu);
}

void VulkanBackend::activate_multiply(Buffer& gate, const Buffer& up, Activation activation)
{
    require_same(gate, up, "activate_multiply");
    if (on_host(gate) && activation == Activation::Silu)
        HostFallbackBackend::silu_multiply(gate, up);
    else if (on_host(gate))
        HostFallbackBackend::activate_multiply(gate, up, activation);
    else if (!gate.empty())
        apply_activation(gate, &up, activation);
}

void VulkanBackend::activate(Buffer& x, Activation activation)
{
    if (on_host(x))
        HostFallbackBackend::activate(x, activation);
    else if (!x.empty())
        apply_activation(x, nullptr, activation);
}

void VulkanBackend::soft_cap(Buffer& x, double cap)
{
    require(cap > 0.0, "soft_cap", "the cap is not positive");
    if (on_host(x)) {
        HostFallbackBackend::soft_cap(x, cap);
        return;
    }
    struct Push {
        std::uint32_t count;
        float cap;
    };
    for_elements(x.size(), [&](Index first, Index count) {
        run(Kernel::SoftCap, {}, {view(range_of(x), first, count, Access::ReadWrite).binding},
            Push{u32(count), static_cast<float>(cap)}, flat_groups(count),
            k_activation_flops * static_cast<double>(count));
    });
}

/// slope = f'(x) ⊙ slope; with `up` also times up, and dup = f(x) ⊙ the old slope.
void VulkanBackend::apply_slope(const Buffer& x, Activation activation, Buffer& slope, const Buffer* up,
                                const Buffer* dup)
{
    for_elements(x.size(), [&](Index first, Index count) {
        const View in = view(range_of(x), first, count, Access::Read);
        const View target = view(range_of(slope), first, count, Access::ReadWrite);
        const View factors = up != nullptr ? view(range_of(*up), first, count, Access::Read) : in;
        const View out = dup != nullptr ? view(range_of(*dup), first, count, Access::Write) : in;
        run(Kernel::ActivateBackward, {lanes_, up != nullptr ? 1U : 0U},
            {in.binding, target.binding, factors.binding, out.binding},
            ActivationPush{u32(count), static_cast<std::uint32_t>(activation)}, flat_groups(count),
            k_activation_flops * static_cast<double>(count));
    });
}

void VulkanBackend::activate_backward(const Buffer& x, Activation activation, Buffer& dy)
{
    require_same(x, dy, "activate_backward");
    if (on_host(x))
        HostFallbackBackend::activate_backward(x, activation, dy);
    else if (!x.empty())
        apply_slope(x, activation, dy, nullptr, nullptr);
}

GateGradient VulkanBackend::activate_multiply_backward(const Buffer& gate, const Buffer& up,
                                                       Activation activation, const Buffer& dy)
{
    require_same(gate, up, "activate_multiply_backward");
    require_same(gate, dy, "activate_multiply_backward");
    if (on_host(gate))
        return HostFallbackBackend::activate_multiply_backward(gate, up, activation, dy);
    GateGradient gradient{copy(dy), new_buffer(dy.rows(), dy.cols())};
    if (!gate.empty())
        apply_slope(gate, activation, gradient.dgate, &up, &gradient.dup);
    return gradient;
}

void VulkanBackend::adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                              const AdamStep& step)
{
    for (const Buffer* other :
         {&gradient, const_cast<const Buffer*>(&first), const_cast<const Buffer*>(&second)})
        require_same(*other, parameter, "adam_step");
    if (on_host(parameter)) {
        HostFallbackBackend::adam_step(parameter, gradient, first, second, step);
        return;
    }
    struct Push {
        std::uint32_t count;
        float keep1, take1, keep2, take2, rate, root, epsilon;
    };
    const auto steps = static_cast<double>(step.step);
    const double rate = step.learning_rate / (1.0 - std::pow(step.beta1, steps));
    const double root = 1.0 / (1.0 - std::pow(step.beta2, steps));
    for_elements(parameter.size(), [&](Index from, Index count) {
        const Push push{u32(count),
                        static_cast<float>(step.beta1),
                        static_cast<float>(1.0 - step.beta1),
                        static_cast<float>(step.beta2),
                        static_cast<float>(1.0 - step.beta2),
                        static_cast<float>(rate),
                        static_cast<float>(root),
                        static_cast<float>(step.epsilon)};
        run(Kernel::AdamStep, {},
            {view(range_of(parameter), from, count, Access::ReadWrite).binding,
             view(range_of(gradient), from, count, Access::Read).binding,
             view(range_of(first), from, count, Access::ReadWrite).binding,
             view(range_of(second), from, count, Access::ReadWrite).binding},
            push, flat_groups(count), k_activation_flops * static_cast<double>(count));
    });
}

} // namespace rankscope::gpu
