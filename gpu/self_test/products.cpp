// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

namespace {

struct GemmCase {
    Index m, n, k;
    bool ta, tb;
    double alpha, beta;
};

void add_gemm(Cases& cases)
{
    std::vector<GemmCase> shapes;
    constexpr Index k_sizes[][3] = {{1, 1, 1},     {17, 33, 5}, {129, 65, 257},
                                    {100, 1, 300}, {1, 97, 31}, {64, 64, 64}};
    for (const auto& size : k_sizes) {
        for (int flips = 0; flips < 4; ++flips)
            shapes.push_back({size[0], size[1], size[2], (flips & 1) != 0, (flips & 2) != 0, 1.0, 0.0});
    }
    shapes.push_back({67, 131, 521, false, true, -0.5, 2.0});
    shapes.push_back({127, 3, 1031, true, false, 0.25, -1.0});
    for (const GemmCase& shape : shapes) {
        add(cases,
            fmt::format("gemm {}x{}x{} {}{}{}", shape.m, shape.n, shape.k, shape.ta ? 't' : 'n',
                        shape.tb ? 't' : 'n', shape.beta != 0.0 ? " beta" : ""),
            k_float_tolerance, [shape](Backend& backend) {
                const Matrix a =
                    shape.ta ? normal_matrix(shape.k, shape.m, "a") : normal_matrix(shape.m, shape.k, "a");
                const Matrix b =
                    shape.tb ? normal_matrix(shape.n, shape.k, "b") : normal_matrix(shape.k, shape.n, "b");
                Matrix start = normal_matrix(shape.m, shape.n, "c");
                if (shape.beta == 0.0) // the old content must not matter
                    start.setConstant(std::numeric_limits<float>::quiet_NaN());
                Buffer c = backend.upload(start);
                backend.gemm(shape.alpha, backend.upload(a), transpose_of(shape.ta), backend.upload(b),
                             transpose_of(shape.tb), shape.beta, c);
                return backend.download_double(c);
            });
    }
}

void add_gram(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {5, 33}, {65, 300}, {130, 17}};
    for (const auto& size : k_sizes) {
        for (const Precision precision : {Precision::Float32, Precision::Float64}) {
            for (const bool flip : {false, true}) {
                const Index n = size[0];
                const Index k = size[1];
                const auto gram = [=](Backend& backend) {
                    const Buffer x =
                        backend.upload(flip ? normal_matrix(k, n, "x") : normal_matrix(n, k, "x"));
                    MatrixD start = MatrixD::Identity(n, n) * 3.0;
                    Buffer c = backend.convert(backend.upload(start), precision);
                    backend.gram(0.5, x, transpose_of(flip), 2.0, c);
                    return backend.download_double(c);
                };
                cases.push_back({fmt::format("gram {}x{} {}{}", n, k, flip ? 't' : 'n',
                                             precision == Precision::Float64 ? " into float64" : ""),
                                 k_float_tolerance, [gram](Backend& device, Backend& reference) {
                                     const MatrixD c = gram(device);
                                     if (c != c.transpose()) // symmetric to the last bit
                                         return k_infinity;
                                     return normalized_error(c, gram(reference));
                                 }});
            }
        }
    }
}

void add_hadamard(Cases& cases)
{
    for (const Index n : {1, 2, 12, 43, 64, 129, 172, 576, 8192, 12288}) {
        for (const bool flip : {false, true}) {
            add(cases, fmt::format("hadamard 3x{}{}", n, flip ? " t" : ""), k_float_tolerance,
                [=](Backend& backend) {
                    Buffer x = backend.upload(normal_matrix(3, n, "x"));
                    backend.hadamard(x, transpose_of(flip));
                    return backend.download_double(x);
                });
        }
    }
}

} // namespace

void add_products(Cases& cases)
{
    add_gemm(cases);
    add_gram(cases);
    add_hadamard(cases);
}

} // namespace rankscope::gpu::self_test
