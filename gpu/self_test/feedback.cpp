// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"
#include "gpu/self_test/grid_cases.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

namespace {

/// Unit upper triangular with small entries off the diagonal, as a well-damped moment matrix gives.
Matrix feedback_matrix(Index n)
{
    Matrix u = normal_matrix(n, n, "feedback") * 0.05F;
    u = Matrix(u.triangularView<Eigen::StrictlyUpper>());
    u.diagonal().setOnes();
    return u;
}

} // namespace

void add_feedback(Cases& cases)
{
    for (const GridCase& item : grid_cases()) {
        for (const bool reordered : {false, true}) {
            cases.push_back(
                {fmt::format("round_with_feedback {}{}", grid_name(item), reordered ? " reordered" : ""),
                 0.02, [item, reordered](Backend& device, Backend& reference) {
                     const Matrix w = normal_matrix(item.rows, item.cols, "w");
                     const Matrix u = feedback_matrix(item.cols);
                     std::vector<Index> order;
                     if (reordered)
                         order = scattered(item.cols, item.cols);
                     const GridBuffers grid = reference.fit_grid(reference.upload(w), item.grid);
                     const auto run = [&](Backend& backend) {
                         const GridBuffers own{item.grid, backend.upload(reference.download(grid.scales)),
                                               backend.upload(reference.download(grid.zeros))};
                         return backend.round_with_feedback(backend.upload(w), backend.upload(u), own, order);
                     };
                     const RoundedBuffers expected = run(reference);
                     const RoundedBuffers rounded = run(device);
                     // One code that falls the other way on a tie changes the targets of all after it in its
                     // row.
                     const MatrixD codes = device.download_double(rounded.codes);
                     const MatrixD expected_codes = reference.download_double(expected.codes);
                     if (!codes.allFinite())
                         return k_infinity;
                     const double share = (codes.array() != expected_codes.array()).cast<double>().mean();
                     const double error = normalized_error(device.download_double(rounded.values),
                                                           reference.download_double(expected.values));
                     return share > 0.0 || error < 1e-6 ? share : error;
                 }});
        }
    }
}

} // namespace rankscope::gpu::self_test
