// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/e8p.h"
#include "gpu/self_test/families.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::gpu::self_test {

namespace {

constexpr float k_scale = 0.9F;

struct LatticeCase {
    Index rows, cols;
    int bits;
    Index short_block; ///< which block of the sweep is the short one, where the columns are no multiple of 8
};

std::vector<LatticeCase> lattice_cases()
{
    return {{1, 1, 2, 0}, {7, 16, 2, 0}, {33, 45, 2, 2}, {31, 211, 2, 9}, {65, 128, 4, 0}, {5, 77, 4, 9}};
}

std::string name_of(const LatticeCase& item)
{
    return fmt::format("{}x{} {} bit", item.rows, item.cols, item.bits);
}

std::vector<Index> starts_of(const LatticeCase& item)
{
    const Index rest = item.cols % k_lattice_width;
    std::vector<Index> starts{0};
    for (Index block = 0; starts.back() < item.cols; ++block)
        starts.push_back(starts.back() + (rest > 0 && block == item.short_block ? rest : k_lattice_width));
    return starts;
}

/// A few points far outside the codebook, one on it, one at zero: weights that tie nowhere else.
Matrix weights_of(const LatticeCase& item)
{
    Matrix w = normal_matrix(item.rows, item.cols, "w");
    w.row(item.rows / 2) *= 6.0F;
    if (item.rows > 2)
        w.row(0).setConstant(0.25F + 1e-4F);
    return w;
}

/// Unit diagonal blocks, small entries above them.
Matrix block_feedback(const LatticeCase& item, const std::vector<Index>& starts)
{
    Matrix u = normal_matrix(item.cols, item.cols, "feedback") * 0.05F;
    for (std::size_t block = 0; block + 1 < starts.size(); ++block) {
        const Index first = starts[block];
        const Index width = starts[block + 1] - first;
        u.block(first, 0, width, first + width).setZero();
        u.block(first, first, width, width).setIdentity();
    }
    return u;
}

double share_of_codes(const Matrix& codes, const Matrix& expected, const Matrix& values,
                      const Matrix& expected_values)
{
    if (codes.rows() != expected.rows() || codes.cols() != expected.cols() || !codes.allFinite())
        return k_infinity;
    const double share = (codes.array() != expected.array()).cast<double>().mean();
    const double error = normalized_error(values.cast<double>(), expected_values.cast<double>());
    return share > 0.0 || error < 1e-6 ? share : error;
}

double sweep_error(const LatticeCase& item, Backend& device, Backend& reference)
{
    const Matrix w = weights_of(item);
    const std::vector<Index> starts = starts_of(item);
    const Matrix u = block_feedback(item, starts);
    std::vector<MatrixD> diagonal;
    for (std::size_t block = 0; block + 1 < starts.size(); ++block)
        diagonal.push_back(
            MatrixD::Identity(starts[block + 1] - starts[block], starts[block + 1] - starts[block]));
    const auto run = [&](Backend& backend) {
        const Buffer feedback = backend.upload(u);
        return backend.round_lattice(backend.upload(w), {feedback, starts, diagonal, item.bits, k_scale});
    };
    const LatticeBuffers rounded = run(device);
    const LatticeBuffers expected = run(reference);
    return share_of_codes(device.download(rounded.codes), reference.download(expected.codes),
                          device.download(rounded.values), reference.download(expected.values));
}

double descent_error(const LatticeCase& item, Backend& device, Backend& reference)
{
    const Matrix w = weights_of(item);
    const MatrixD hessian = moments_of(item.cols);
    const E8Matrix start = e8p_round(w, item.bits, 1.0, false);
    const auto scale = static_cast<float>(start.scales(0));
    Matrix codes(w.rows(), static_cast<Index>(start.codes.size()) / w.rows());
    for (Index i = 0; i < codes.size(); ++i)
        codes.data()[i] = static_cast<float>(start.codes[static_cast<std::size_t>(i)]);
    const auto run = [&](Backend& backend) {
        const Buffer metric = backend.upload(hessian);
        return backend.tune_lattice(backend.upload(w), {backend.upload(start.values), backend.upload(codes)},
                                    {metric, item.bits, scale, 2});
    };
    const LatticeBuffers tuned = run(device);
    const LatticeBuffers expected = run(reference);
    const Matrix values = device.download(tuned.values);
    if (!(objective(w - values, hessian) <= objective(w - start.values, hessian) * (1.0 + 1e-6)))
        return k_infinity;
    return share_of_codes(device.download(tuned.codes), reference.download(expected.codes), values,
                          reference.download(expected.values));
}

/// Every codeword is its own nearest point: all 65,536 of them, so that no code is mistaken.
double codebook_error(Backend& device, Backend&)
{
    constexpr Index k_rows = 8192;
    Matrix w(k_rows, 64);
    Matrix expected(k_rows, 8);
    for (Index i = 0; i < expected.size(); ++i) {
        const E8Point point = e8p_decode(static_cast<std::uint16_t>(i));
        std::copy(point.begin(), point.end(), w.data() + 8 * i);
        expected.data()[i] = static_cast<float>(i);
    }
    std::vector<Index> starts;
    for (Index start = 0; start <= 64; start += 8)
        starts.push_back(start);
    const std::vector<MatrixD> diagonal(8, MatrixD::Identity(8, 8));
    const Buffer feedback = device.upload(Matrix(Matrix::Identity(64, 64)));
    const LatticeBuffers rounded =
        device.round_lattice(device.upload(w), {feedback, starts, diagonal, 2, 1.0F});
    return device.download(rounded.codes) == expected && device.download(rounded.values) == w ? 0.0
                                                                                              : k_infinity;
}

} // namespace

void add_lattice(Cases& cases)
{
    for (const LatticeCase& item : lattice_cases()) {
        cases.push_back({"round_lattice " + name_of(item), 0.02, [item](Backend& device, Backend& reference) {
                             return sweep_error(item, device, reference);
                         }});
        cases.push_back({"tune_lattice " + name_of(item), 0.02, [item](Backend& device, Backend& reference) {
                             return descent_error(item, device, reference);
                         }});
    }
    cases.push_back({"round_lattice of every codeword", 0.0, codebook_error});
}

} // namespace rankscope::gpu::self_test
