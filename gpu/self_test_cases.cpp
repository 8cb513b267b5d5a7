// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test_cases.h"

#include "gpu/self_test/families.h"

namespace rankscope::gpu {

namespace self_test {

Matrix normal_matrix(Index rows, Index cols, std::string_view purpose)
{
    const RandomStream random(7, purpose);
    Matrix matrix(rows, cols);
    for (Index i = 0; i < matrix.size(); ++i)
        matrix.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    return matrix;
}

VectorD normal_vector(Index size, std::string_view purpose)
{
    return normal_matrix(size, 1, purpose).cast<double>().col(0);
}

std::vector<Index> scattered(Index count, Index bound)
{
    const RandomStream random(7, "indices");
    std::vector<Index> indices;
    for (Index i = 0; i < count; ++i)
        indices.push_back(static_cast<Index>(
            random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound))));
    return indices;
}

MatrixD moments_of(Index n)
{
    const MatrixD x = normal_matrix(n, 2 * n + 3, "inputs").cast<double>();
    return x * x.transpose() / static_cast<double>(2 * n + 3) + 0.05 * MatrixD::Identity(n, n);
}

double objective(const Matrix& error, const MatrixD& hessian)
{
    const MatrixD e = error.cast<double>();
    return (e * hessian).cwiseProduct(e).sum();
}

} // namespace self_test

double normalized_error(const MatrixD& a, const MatrixD& b)
{
    if (a.rows() != b.rows() || a.cols() != b.cols() || !a.allFinite() || !b.allFinite())
        return self_test::k_infinity;
    const double difference = (a - b).norm();
    if (difference == 0.0)
        return 0.0;
    const double size = b.norm();
    return size > 0.0 ? difference / size : self_test::k_infinity;
}

std::vector<SelfTestCase> self_test_cases()
{
    constexpr void (*k_families[])(self_test::Cases&) = {
        self_test::add_products,    self_test::add_factorizations,    self_test::add_grids,
        self_test::add_feedback,    self_test::add_descents,          self_test::add_lattice,
        self_test::add_elementwise, self_test::add_column_statistics, self_test::add_forward,
        self_test::add_activations, self_test::add_backward,
    };
    self_test::Cases cases;
    for (const auto add_family : k_families)
        add_family(cases);
    return cases;
}

std::vector<SelfTestCase> large_self_test_cases()
{
    self_test::Cases cases;
    self_test::add_large(cases);
    return cases;
}

std::vector<SelfTestCase> sized_self_test_cases(Index side)
{
    self_test::Cases cases;
    self_test::add_sized(cases, side);
    return cases;
}

} // namespace rankscope::gpu
