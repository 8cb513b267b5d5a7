// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/hadamard_matrix.h"

#include <cassert>
#include <cmath>
#include <map>
#include <mutex>
#include <numbers>
#include <vector>

namespace rankscope {
namespace {

constexpr Index k_largest_paley = 1024;

bool is_prime(Index value)
{
    if (value < 2)
        return false;
    for (Index divisor = 2; divisor * divisor <= value; ++divisor) {
        if (value % divisor == 0)
            return false;
    }
    return true;
}

bool has_paley_one(Index order) { return (order - 1) % 4 == 3 && is_prime(order - 1); }
bool has_paley_two(Index order)
{
    return order % 2 == 0 && (order / 2 - 1) % 4 == 1 && is_prime(order / 2 - 1);
}

/// χ(i − j) mod prime with a border: row 0 is +1, column 0 is `corner`, the corner itself 0.
MatrixD bordered_residues(Index prime, double border_column)
{
    std::vector<double> character(static_cast<std::size_t>(prime), -1.0);
    character[0] = 0.0;
    for (Index i = 1; i < prime; ++i)
        character[static_cast<std::size_t>(i * i % prime)] = 1.0;
    MatrixD s = MatrixD::Zero(prime + 1, prime + 1);
    s.row(0).tail(prime).setOnes();
    s.col(0).tail(prime).setConstant(border_column);
    for (Index i = 0; i < prime; ++i) {
        for (Index j = 0; j < prime; ++j)
            s(i + 1, j + 1) = character[static_cast<std::size_t>((i - j + prime) % prime)];
    }
    return s;
}

MatrixD paley_one(Index order)
{
    return bordered_residues(order - 1, -1.0) + MatrixD::Identity(order, order);
}

MatrixD paley_two(Index order)
{
    const MatrixD s = bordered_residues(order / 2 - 1, 1.0);
    Eigen::Matrix2d off_diagonal;
    off_diagonal << 1.0, 1.0, 1.0, -1.0;
    Eigen::Matrix2d on_diagonal;
    on_diagonal << 1.0, -1.0, -1.0, -1.0;
    MatrixD h(order, order);
    for (Index i = 0; i < s.rows(); ++i) {
        for (Index j = 0; j < s.cols(); ++j)
            h.block<2, 2>(2 * i, 2 * j) = i == j ? on_diagonal : Eigen::Matrix2d(s(i, j) * off_diagonal);
    }
    return h;
}

MatrixD hartley(Index order)
{
    MatrixD h(order, order);
    const double scale = 1.0 / std::sqrt(static_cast<double>(order));
    for (Index i = 0; i < order; ++i) {
        for (Index j = 0; j < order; ++j) {
            // The angle repeats after a whole turn: reduced first, it keeps its digits.
            const double angle =
                2.0 * std::numbers::pi * static_cast<double>(i * j % order) / static_cast<double>(order);
            h(i, j) = scale * (std::cos(angle) + std::sin(angle));
        }
    }
    return h;
}

/// p for dimension n.
Index factor_order(Index n)
{
    Index odd = n;
    while (odd % 2 == 0)
        odd /= 2;
    if (odd == 1)
        return 1;
    for (Index p = 4 * odd; p <= k_largest_paley && n % p == 0; p *= 2) {
        if (has_paley_one(p) || has_paley_two(p))
            return p;
    }
    return odd;
}

MatrixD factor_matrix(Index order)
{
    if (order % 2 != 0)
        return hartley(order); // order 1 gives [1]
    const double scale = 1.0 / std::sqrt(static_cast<double>(order));
    return scale * (has_paley_one(order) ? paley_one(order) : paley_two(order));
}

} // namespace

std::shared_ptr<const HadamardFactor> hadamard_factor(Index n)
{
    assert(n >= 1);
    static std::mutex mutex;
    static std::map<Index, std::shared_ptr<const HadamardFactor>> known;
    const Index order = factor_order(n);
    const std::lock_guard lock(mutex);
    auto& entry = known[order];
    if (!entry) {
        auto made = std::make_shared<HadamardFactor>();
        made->order = order;
        made->matrix = factor_matrix(order);
        made->single = made->matrix.cast<float>();
        entry = std::move(made);
    }
    return entry;
}

} // namespace rankscope
