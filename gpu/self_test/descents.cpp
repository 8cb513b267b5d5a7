// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"
#include "gpu/self_test/grid_cases.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

/// A code that falls the other way on a tie changes the slopes of its row's other columns; what counts is
/// that the objective falls as far, and that codes and values say the same.
void add_descents(Cases& cases)
{
    for (const GridCase& item : grid_cases()) {
        cases.push_back(
            {"tune_codes " + grid_name(item), 0.02, [item](Backend& device, Backend& reference) {
                 const Matrix w = normal_matrix(item.rows, item.cols, "w");
                 const MatrixD hessian = moments_of(item.cols);
                 const GridBuffers grid = reference.fit_grid(reference.upload(w), item.grid);
                 const Matrix start =
                     reference.download(reference.round_nearest(reference.upload(w), grid).codes);
                 const auto run = [&](Backend& backend) {
                     const GridBuffers own{item.grid, backend.upload(reference.download(grid.scales)),
                                           backend.upload(reference.download(grid.zeros))};
                     const Buffer weight = backend.upload(w);
                     const Buffer codes = backend.upload(start);
                     const RoundedBuffers tuned =
                         backend.tune_codes(weight, {weight, codes}, own, backend.upload(hessian), 2);
                     return std::pair{backend.download(tuned.codes), backend.download(tuned.values)};
                 };
                 const auto [codes, values] = run(device);
                 const auto [expected_codes, expected] = run(reference);
                 const double before = objective(
                     w - reference.download(reference.round_nearest(reference.upload(w), grid).values),
                     hessian);
                 const double after = objective(w - values, hessian);
                 if (!(after <= before * (1.0 + 1e-6)) || codes.rows() != w.rows()
                     || codes.cols() != w.cols())
                     return k_infinity;
                 const double share = (codes.array() != expected_codes.array()).cast<double>().mean();
                 const double error = normalized_error(values.cast<double>(), expected.cast<double>());
                 return share > 0.0 || error < 1e-6 ? share : error;
             }});
    }
}

} // namespace rankscope::gpu::self_test
