// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope::gpu::self_test {

void add_elementwise(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {13, 101}, {257, 129}};
    for (const auto& size : k_sizes) {
        const Index rows = size[0];
        const Index cols = size[1];
        const std::string shape = fmt::format(" {}x{}", rows, cols);
        const auto x = [=](Backend& backend) { return backend.upload(normal_matrix(rows, cols, "x")); };
        const auto y = [=](Backend& backend) { return backend.upload(normal_matrix(rows, cols, "y")); };
        add(cases, "add_scaled" + shape, k_float_tolerance, [=](Backend& backend) {
            Buffer target = y(backend);
            backend.add_scaled(-1.5, x(backend), 0.25, target);
            return backend.download_double(target);
        });
        add(cases, "difference" + shape, k_float_tolerance, [=](Backend& backend) {
            return backend.download_double(backend.difference(x(backend), y(backend)));
        });
        add(cases, "scale_rows" + shape, k_float_tolerance, [=](Backend& backend) {
            Buffer target = x(backend);
            backend.scale_rows(target, normal_vector(rows, "rows"));
            return backend.download_double(target);
        });
        add(cases, "scale_columns" + shape, k_float_tolerance, [=](Backend& backend) {
            Buffer target = x(backend);
            backend.scale_columns(target, normal_vector(cols, "columns"));
            return backend.download_double(target);
        });
        add(cases, "gather_columns" + shape, 0.0, [=](Backend& backend) {
            return backend.download_double(backend.gather_columns(x(backend), scattered(cols / 2 + 3, cols)));
        });
        add(cases, "gather_rows" + shape, 0.0, [=](Backend& backend) {
            return backend.download_double(backend.gather_rows(x(backend), scattered(rows / 2 + 3, rows)));
        });
        add(cases, "transposed" + shape, 0.0,
            [=](Backend& backend) { return backend.download_double(backend.transposed(x(backend))); });
        add(cases, "rows_of" + shape, 0.0, [=](Backend& backend) {
            return backend.download_double(backend.rows_of(x(backend), rows / 3, rows - rows / 3));
        });
        add(cases, "dot" + shape, 1e-9, [=](Backend& backend) {
            return MatrixD(MatrixD::Constant(1, 1, backend.dot(x(backend), y(backend))));
        });
        add(cases, "max_abs" + shape, 0.0,
            [=](Backend& backend) { return MatrixD(MatrixD::Constant(1, 1, backend.max_abs(x(backend)))); });
        cases.push_back({"max_abs not finite" + shape, 0.0, [=](Backend& device, Backend&) {
                             for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                                                     -std::numeric_limits<float>::infinity()}) {
                                 Matrix matrix = normal_matrix(rows, cols, "x");
                                 matrix(rows - 1, cols / 2) = bad;
                                 if (!std::isnan(device.max_abs(device.upload(matrix))))
                                     return k_infinity;
                             }
                             return 0.0;
                         }});
    }
}

} // namespace rankscope::gpu::self_test
