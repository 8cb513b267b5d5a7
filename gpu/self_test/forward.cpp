// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope::gpu::self_test {

namespace {

void add_attention(Cases& cases)
{
    const AttentionShape shapes[] = {
        {.heads = 1, .kv_heads = 1, .head_dim = 1, .sequence_length = 1},
        {.heads = 6, .kv_heads = 2, .head_dim = 8, .sequence_length = 37, .scale = 0.35},
        {.heads = 4, .kv_heads = 4, .head_dim = 24, .sequence_length = 131, .scale = 0.2, .window = 17},
        {.heads = 2, .kv_heads = 1, .head_dim = 96, .sequence_length = 65, .scale = 0.1, .window = 64},
        {.heads = 2, .kv_heads = 2, .head_dim = 16, .sequence_length = 33, .scale = 1.0, .score_cap = 5.0}};
    for (const AttentionShape& shape : shapes) {
        add(cases,
            fmt::format("attention {}/{} heads of {}, {} tokens{}", shape.heads, shape.kv_heads,
                        shape.head_dim, shape.sequence_length,
                        shape.window > 0        ? " windowed"
                        : shape.score_cap > 0.0 ? " capped"
                                                : ""),
            4e-6, [shape](Backend& backend) {
                const Index rows = 2 * shape.sequence_length;
                const Buffer q = backend.upload(normal_matrix(rows, shape.heads * shape.head_dim, "q"));
                const Buffer k = backend.upload(normal_matrix(rows, shape.kv_heads * shape.head_dim, "k"));
                const Buffer v = backend.upload(normal_matrix(rows, shape.kv_heads * shape.head_dim, "v"));
                return backend.download_double(backend.attention(q, k, v, shape));
            });
    }
}

void add_rope(Cases& cases)
{
    for (const Index half : {4, 3}) { // the whole head, and a part of it
        add(cases, fmt::format("rope 3 heads of 8, {} pairs", half), k_float_tolerance,
            [half](Backend& backend) {
                std::vector<double> frequencies;
                for (Index i = 0; i < half; ++i)
                    frequencies.push_back(
                        std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
                const RopeShape shape{.heads = 3,
                                      .head_dim = 8,
                                      .sequence_length = 41,
                                      .inverse_frequency = frequencies,
                                      .attention_factor = 1.25};
                Buffer x = backend.upload(normal_matrix(82, 24, "x"));
                backend.rope(x, shape);
                return backend.download_double(x);
            });
    }
}

} // namespace

void add_forward(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {7, 172}, {131, 65}};
    for (const auto& size : k_sizes) {
        const Index rows = size[0];
        const Index cols = size[1];
        const std::string shape = fmt::format(" {}x{}", rows, cols);
        const auto x = [=](Backend& backend) { return backend.upload(normal_matrix(rows, cols, "x")); };
        const auto row = [=](Backend& backend) { return backend.upload(normal_matrix(1, cols, "row")); };
        add(cases, "rms_norm" + shape, k_float_tolerance, [=](Backend& backend) {
            return backend.download_double(backend.rms_norm(x(backend), row(backend), 1e-5));
        });
        add(cases, fmt::format("rms_norm {}x{} by heads", rows, 3 * cols), k_float_tolerance,
            [=](Backend& backend) {
                const Buffer heads = backend.upload(normal_matrix(rows, 3 * cols, "heads"));
                return backend.download_double(backend.rms_norm(heads, row(backend), 1e-5));
            });
        add(cases, "add_bias" + shape, k_float_tolerance, [=](Backend& backend) {
            Buffer target = x(backend);
            backend.add_bias(target, row(backend));
            return backend.download_double(target);
        });
        add(cases, "layer_norm" + shape, 2e-6, [=](Backend& backend) {
            Buffer shifted = backend.upload(Matrix(normal_matrix(rows, cols, "x").array() + 3.0F));
            const Buffer bias = backend.upload(normal_matrix(1, cols, "bias"));
            return backend.download_double(backend.layer_norm(shifted, row(backend), bias, 1e-5));
        });
        add(cases, "soft_cap" + shape, 2e-6, [=](Backend& backend) {
            Buffer capped = backend.upload(Matrix(normal_matrix(rows, cols, "x") * 30.0F));
            backend.soft_cap(capped, 20.0);
            return backend.download_double(capped);
        });
        cases.push_back({"row_argmax" + shape, 0.0, [=](Backend& device, Backend& reference) {
                             Matrix logits = normal_matrix(rows, cols, "x");
                             logits.row(rows - 1).setConstant(-1.0F); // the first of equals
                             return device.row_argmax(device.upload(logits))
                                            == reference.row_argmax(reference.upload(logits))
                                        ? 0.0
                                        : k_infinity;
                         }});
        add(cases, "cross_entropy" + shape, 2e-6, [=](Backend& backend) {
            const Buffer logits = backend.upload(Matrix(normal_matrix(rows, cols, "logits") * 5.0F));
            return MatrixD(backend.cross_entropy(logits, scattered(rows, cols)));
        });
    }
    add_rope(cases);
    add_attention(cases);
}

} // namespace rankscope::gpu::self_test
