// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

void add_large(Cases& cases)
{
    constexpr Index k_rows = 12'007;
    constexpr Index k_cols = 3'001; // 137 MiB; 128 is what a device must bind at once
    const auto w = [](Backend& backend) { return backend.upload(normal_matrix(k_rows, k_cols, "w")); };
    const std::string shape = fmt::format(" {}x{}", k_rows, k_cols);
    add(cases, "add_scaled" + shape, k_float_tolerance, [=](Backend& backend) {
        Buffer y = w(backend);
        backend.add_scaled(-1.5, w(backend), 0.25, y);
        return backend.download_double(y);
    });
    add(cases, "dot" + shape, 1e-9, [=](Backend& backend) {
        const Buffer x = w(backend);
        return MatrixD(MatrixD::Constant(1, 1, backend.dot(x, x)));
    });
    for (const bool flip : {false, true}) {
        const Index inner = flip ? k_rows : k_cols;
        const Index outer = flip ? k_cols : k_rows;
        add(cases, fmt::format("gemm {}x2x{} {}n", outer, inner, flip ? 't' : 'n'), k_float_tolerance,
            [=](Backend& backend) {
                const Buffer thin = backend.upload(normal_matrix(inner, 2, "thin"));
                return backend.download_double(
                    backend.multiply(w(backend), transpose_of(flip), thin, Transpose::No));
            });
    }
    add(cases, "rms_norm" + shape, k_float_tolerance, [=](Backend& backend) {
        const Buffer gain = backend.upload(normal_matrix(1, k_cols, "gain"));
        return backend.download_double(backend.rms_norm(w(backend), gain, 1e-5));
    });
    add(cases, "activate gelu" + shape, 2e-6, [=](Backend& backend) {
        Buffer x = w(backend);
        backend.activate(x, Activation::Gelu);
        return backend.download_double(x);
    });
    add(cases, "gather_columns" + shape, 0.0, [=](Backend& backend) {
        return backend.download_double(backend.gather_columns(w(backend), scattered(7, k_cols)));
    });
    add(cases, "transposed" + shape, 0.0,
        [=](Backend& backend) { return backend.download_double(backend.transposed(w(backend))); });
    add(cases, "fit_grid" + shape, k_float_tolerance, [=](Backend& backend) {
        return backend.download_double(backend.fit_grid(w(backend), {.bits = 4, .group = 64}).scales);
    });
}

} // namespace rankscope::gpu::self_test
