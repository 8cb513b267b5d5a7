// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/random.h"
#include "gpu/self_test_cases.h"

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The table of cases is made of families: one file each, declared here and named once in
/// self_test_cases.cpp.
namespace rankscope::gpu::self_test {

using Cases = std::vector<SelfTestCase>;

void add_products(Cases& cases);
void add_factorizations(Cases& cases);
void add_grids(Cases& cases);
void add_feedback(Cases& cases);
void add_descents(Cases& cases);
void add_lattice(Cases& cases);
void add_elementwise(Cases& cases);
void add_column_statistics(Cases& cases);
void add_forward(Cases& cases);
void add_activations(Cases& cases);
void add_backward(Cases& cases);
/// What a case compares, on matrices beyond one binding.
void add_large(Cases& cases);
/// On square matrices of this side; with the step that is timed.
void add_sized(Cases& cases, Index side);

constexpr double k_infinity = std::numeric_limits<double>::infinity();
constexpr double k_float_tolerance = 1e-6;

Matrix normal_matrix(Index rows, Index cols, std::string_view purpose);
VectorD normal_vector(Index size, std::string_view purpose);
/// `count` indices below `bound`, some of them more than once.
std::vector<Index> scattered(Index count, Index bound);

/// Moments of n correlated inputs, well conditioned.
MatrixD moments_of(Index n);
/// tr(E·H·Eᵀ)
double objective(const Matrix& error, const MatrixD& hessian);

inline Transpose transpose_of(bool flip) { return flip ? Transpose::Yes : Transpose::No; }

/// A case whose operation makes a matrix from the backend given to it.
template <class Operation>
void add(Cases& cases, std::string name, double tolerance, Operation operation)
{
    cases.push_back({std::move(name), tolerance, [operation](Backend& device, Backend& reference) {
                         return normalized_error(operation(device), operation(reference));
                     }});
}

} // namespace rankscope::gpu::self_test
