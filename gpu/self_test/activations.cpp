// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

namespace {

void add_activations_of(Cases& cases, Index rows, Index cols)
{
    const auto wide = [=](Backend& backend) {
        return backend.upload(Matrix(normal_matrix(rows, cols, "gate") * 8.0F));
    };
    const auto up = [=](Backend& backend) { return backend.upload(normal_matrix(rows, cols, "up")); };
    constexpr std::pair<Activation, const char*> k_activations[] = {{Activation::Silu, "silu"},
                                                                    {Activation::Gelu, "gelu"},
                                                                    {Activation::GeluTanh, "gelu tanh"},
                                                                    {Activation::Relu, "relu"}};
    for (const auto& [activation, name] : k_activations) {
        const std::string shape = fmt::format(" {} {}x{}", name, rows, cols);
        add(cases, "activate" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer x = wide(backend);
            backend.activate(x, f);
            return backend.download_double(x);
        });
        add(cases, "activate_multiply" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer gate = backend.upload(Matrix(normal_matrix(rows, cols, "gate") * 40.0F));
            backend.activate_multiply(gate, up(backend), f);
            return backend.download_double(gate);
        });
        add(cases, "activate_backward" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer slope = up(backend);
            backend.activate_backward(wide(backend), f, slope);
            return backend.download_double(slope);
        });
        add(cases, "activate_multiply_backward" + shape, 2e-6, [=, f = activation](Backend& backend) {
            const Buffer dy = backend.upload(normal_matrix(rows, cols, "dy"));
            const GateGradient gradient =
                backend.activate_multiply_backward(wide(backend), up(backend), f, dy);
            MatrixD both(rows, 2 * cols);
            both << backend.download_double(gradient.dgate), backend.download_double(gradient.dup);
            return both;
        });
    }
    add(cases, fmt::format("adam_step {}x{}", rows, cols), 2e-6, [=](Backend& backend) {
        Buffer parameter = up(backend);
        Buffer first = backend.allocate(rows, cols);
        Buffer second = backend.allocate(rows, cols);
        for (std::int64_t step = 1; step <= 3; ++step)
            backend.adam_step(parameter, wide(backend), first, second, {.learning_rate = 0.1, .step = step});
        MatrixD all(rows, 3 * cols);
        all << backend.download_double(parameter), backend.download_double(first),
            backend.download_double(second);
        return all;
    });
}

} // namespace

void add_activations(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {7, 172}, {131, 65}};
    for (const auto& size : k_sizes)
        add_activations_of(cases, size[0], size[1]);
}

} // namespace rankscope::gpu::self_test
