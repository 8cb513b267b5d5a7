// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test_cases.h"

#include "core/base/random.h"
#include "core/compute/grid_levels.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace rankscope::gpu {

namespace {

using Cases = std::vector<SelfTestCase>;

constexpr double k_infinity = std::numeric_limits<double>::infinity();
constexpr double k_float_tolerance = 1e-6;

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

/// The error of an operation that makes a matrix from the backend given to it.
template <class Operation>
double compare(Backend& device, Backend& reference, const Operation& operation)
{
    return normalized_error(operation(device), operation(reference));
}

/// A case whose operation gives a matrix.
template <class Operation>
void add(Cases& cases, std::string name, double tolerance, Operation operation)
{
    cases.push_back({std::move(name), tolerance, [operation](Backend& device, Backend& reference) {
                         return compare(device, reference, operation);
                     }});
}

Transpose transpose_of(bool flip) { return flip ? Transpose::Yes : Transpose::No; }

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

struct GridCase {
    Index rows, cols;
    UniformGrid grid;
};

std::vector<GridCase> grid_cases()
{
    const auto symmetric = [](int bits, Index group, SymmetricRule rule) {
        return UniformGrid{.bits = bits, .group = group, .symmetric = true, .rule = rule};
    };
    return {{1, 1, {.bits = 2, .group = 64}},
            {7, 172, {.bits = 2, .group = 64}},
            {33, 129, {.bits = 3, .group = 32}},
            {31, 97, {.bits = 4, .group = 0}},
            {5, 61, {.bits = 8, .group = -1}},
            {13, 172, symmetric(4, 64, SymmetricRule::Full)},
            {29, 131, symmetric(3, 32, SymmetricRule::Restricted)}};
}

std::string grid_name(const GridCase& item)
{
    return fmt::format("{}x{} {} bit g{}{}", item.rows, item.cols, item.grid.bits, item.grid.group,
                       item.grid.symmetric ? " symmetric" : "");
}

/// The share of codes that differ, those apart whose weight lies on a tie: there the last bit of a division
/// decides.
double code_share(const Matrix& codes, const Matrix& expected, const Matrix& w, const Matrix& values)
{
    if (codes.rows() != expected.rows() || codes.cols() != expected.cols() || !codes.allFinite())
        return k_infinity;
    Index wrong = 0;
    for (Index i = 0; i < codes.size(); ++i) {
        const float code = expected.data()[i];
        if (codes.data()[i] == code)
            continue;
        const float step = code != 0.0F ? values.data()[i] / code : 0.0F;
        const float steps = step != 0.0F ? w.data()[i] / step : 0.0F;
        const float distance = std::abs(std::abs(steps - std::floor(steps)) - 0.5F);
        wrong += code == 0.0F || distance > 1e-4F ? 1 : 0;
    }
    return static_cast<double>(wrong) / static_cast<double>(codes.size());
}

void add_grids(Cases& cases)
{
    for (const GridCase& item : grid_cases()) {
        add(cases, "fit_grid " + grid_name(item), k_float_tolerance, [item](Backend& backend) {
            const GridBuffers fitted =
                backend.fit_grid(backend.upload(normal_matrix(item.rows, item.cols, "w")), item.grid);
            MatrixD both(item.rows, 2 * fitted.scales.cols());
            both << backend.download_double(fitted.scales), backend.download_double(fitted.zeros);
            return both;
        });
        cases.push_back(
            {"round_nearest " + grid_name(item), 1e-3, [item](Backend& device, Backend& reference) {
                 const Matrix w = normal_matrix(item.rows, item.cols, "w");
                 const Buffer expected_w = reference.upload(w);
                 const GridBuffers grid = reference.fit_grid(expected_w, item.grid);
                 const RoundedBuffers expected = reference.round_nearest(expected_w, grid);
                 const GridBuffers same{item.grid, device.upload(reference.download(grid.scales)),
                                        device.upload(reference.download(grid.zeros))};
                 const RoundedBuffers rounded = device.round_nearest(device.upload(w), same);
                 const Matrix values = reference.download(expected.values);
                 const double share = code_share(device.download(rounded.codes),
                                                 reference.download(expected.codes), w, values);
                 const double error =
                     normalized_error(device.download_double(rounded.values), values.cast<double>());
                 return share > 0.0 || error < 1e-6 ? share : error; // same codes: the same values
             }});
    }
}

/// Σ |q(w) − w|^norm of every group for a fitted grid.
MatrixD search_errors(const Matrix& w, const GridBuffers& grid, Backend& backend)
{
    const Matrix scales = backend.download(grid.scales);
    const Matrix zeros = backend.download(grid.zeros);
    const Index width = grid.grid.group_width(w.cols());
    MatrixD errors = MatrixD::Zero(scales.rows(), scales.cols());
    for (Index i = 0; i < w.rows(); ++i) {
        for (Index j = 0; j < w.cols(); ++j) {
            const auto scale = static_cast<double>(scales(i, j / width));
            const double weight = static_cast<double>(w(i, j));
            const double value = scale * nearest_code(grid.grid, zeros(i, j / width), weight / scale);
            errors(i, j / width) += std::pow(std::abs(value - weight), grid.grid.clip_norm);
        }
    }
    return errors;
}

/// Several candidates may be equally good to float32's precision: what counts is how good the chosen one is.
void add_clip_searches(Cases& cases)
{
    std::vector<GridCase> searches;
    for (const GridCase& item : grid_cases()) {
        if (item.grid.group < 0)
            continue;
        for (const ClipSearch clip : {ClipSearch::Shrink, ClipSearch::Grid}) {
            searches.push_back(item);
            searches.back().grid.clip = clip;
        }
    }
    searches.push_back({3, 1201, {.bits = 2, .group = 0, .clip = ClipSearch::Shrink}}); // longer than a chunk
    for (const GridCase& item : searches) {
        cases.push_back(
            {fmt::format("fit_grid {} clip {}", grid_name(item),
                         item.grid.clip == ClipSearch::Shrink ? "shrink" : "grid"),
             1e-5, [item](Backend& device, Backend& reference) {
                 Matrix w = normal_matrix(item.rows, item.cols, "w");
                 w.row(item.rows / 2).setZero(); // a range without width
                 const MatrixD got = search_errors(w, device.fit_grid(device.upload(w), item.grid), device);
                 const MatrixD best =
                     search_errors(w, reference.fit_grid(reference.upload(w), item.grid), reference);
                 if (!got.allFinite() || got.rows() != best.rows() || got.cols() != best.cols())
                     return k_infinity;
                 // A group of few weights may be met so well that only rounding errors are left of it.
                 return ((got - best).array().abs() / best.array().max(1e-4)).maxCoeff();
             }});
    }
}

/// Unit upper triangular with small entries off the diagonal, as a well-damped moment matrix gives.
Matrix feedback_matrix(Index n)
{
    Matrix u = normal_matrix(n, n, "feedback") * 0.05F;
    u = Matrix(u.triangularView<Eigen::StrictlyUpper>());
    u.diagonal().setOnes();
    return u;
}

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

/// Bases of the same space differ by a rotation: compared are the projections onto it, and how far the basis is
/// from orthonormal.
void add_orthonormalize(Cases& cases)
{
    struct Shape {
        Index rows, cols;
        double decay; ///< the singular values fall from 1 to this
    };
    for (const Shape shape :
         {Shape{1, 1, 1.0}, Shape{97, 1, 1.0}, Shape{64, 64, 1e-1}, Shape{131, 17, 1e-1}, Shape{300, 47, 1e-3}}) {
        cases.push_back({fmt::format("orthonormalize {}x{} down to {}", shape.rows, shape.cols, shape.decay), 2e-5,
                         [shape](Backend& device, Backend& reference) {
                             Matrix y = normal_matrix(shape.rows, shape.cols, "y");
                             for (Index j = 0; j < shape.cols; ++j)
                                 y.col(j) *= static_cast<float>(
                                     std::pow(shape.decay, static_cast<double>(j) / static_cast<double>(shape.cols)));
                             y = (y * normal_matrix(shape.cols, shape.cols, "mix")).eval();
                             const auto basis_on = [&](Backend& backend) {
                                 Buffer basis = backend.upload(y);
                                 backend.orthonormalize(basis);
                                 return backend.download_double(basis);
                             };
                             const MatrixD basis = basis_on(device);
                             const MatrixD expected = basis_on(reference);
                             if (basis.rows() != expected.rows() || basis.cols() != expected.cols()
                                 || !basis.allFinite())
                                 return k_infinity;
                             const MatrixD unit = MatrixD::Identity(shape.cols, shape.cols);
                             const double skew = (basis.transpose() * basis - unit).cwiseAbs().maxCoeff();
                             if (skew > 4e-6)
                                 return skew * 1e3;
                             // float32 itself spoils the weakest direction by its share of the strongest.
                             return shape.decay
                                    * normalized_error(basis * basis.transpose(), expected * expected.transpose());
                         }});
    }
}

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

/// Sums over two batches of rows, some of them apart, far from zero in some columns.
ColumnTotals column_totals(Index rows, Index cols, float bad, Backend& backend)
{
    Matrix x = normal_matrix(rows, cols, "x");
    x.col(cols / 2) *= 100.0F;
    x.col(cols - 1).array() += 40.0F;
    x(0, 0) = 0.0F;
    std::vector<Index> apart;
    for (Index row = 0; row < rows; row += 5)
        apart.push_back(row);
    const auto accumulator = backend.column_accumulator({cols, {6.0, 0.5}, true});
    accumulator->add(backend.upload(x), apart);
    (void)accumulator->totals(); // looking does not end it
    x.array() *= 1.25F;
    x(rows - 1, cols / 3) = bad;
    accumulator->add(backend.upload(x), {});
    accumulator->add(backend.upload(Matrix(x.topRows(1))), std::vector<Index>{0});
    if (accumulator->first_not_finite() != accumulator->totals().first_not_finite)
        throw BackendFailure(internal_error("two answers about what is not finite"));
    return accumulator->totals();
}

void add_column_statistics(Cases& cases)
{
    constexpr Index k_sizes[][2] = {{1, 1}, {17, 3}, {300, 45}, {131, 259}, {18'000, 2}};
    const std::pair<const char*, VectorD ColumnStatistics::*> sums[] = {
        {"mean", &ColumnStatistics::mean},       {"m2", &ColumnStatistics::m2},
        {"m3", &ColumnStatistics::m3},           {"m4", &ColumnStatistics::m4},
        {"minimum", &ColumnStatistics::minimum}, {"maximum", &ColumnStatistics::maximum},
        {"sum_abs", &ColumnStatistics::sum_abs}};
    for (const auto& [rows, cols] : k_sizes) {
        const std::string shape = fmt::format(" {}x{}", rows, cols);
        const auto totals = [=](Backend& backend) { return column_totals(rows, cols, 0.25F, backend); };
        for (const auto& [name, sum] : sums) {
            add(cases, std::string("column_accumulator ") + name + shape, 2e-6, [=](Backend& backend) {
                const ColumnTotals both = totals(backend);
                MatrixD result(2, cols);
                result << (both.apart.*sum).transpose(), (both.others.*sum).transpose();
                return result;
            });
        }
        add(cases, "column_accumulator counts" + shape, 0.0, [=](Backend& backend) {
            const ColumnTotals both = totals(backend);
            MatrixD result = MatrixD::Zero(6, std::max<Index>(cols, ColumnStatistics::k_histogram_bins + 3));
            Index row = 0;
            for (const ColumnStatistics* side : {&both.apart, &both.others}) {
                result.block(row, 0, 2, cols) = side->above;
                for (std::size_t bin = 0; bin < side->histogram.size(); ++bin)
                    result(row + 2, static_cast<Index>(bin)) = static_cast<double>(side->histogram[bin]);
                result(row + 2, result.cols() - 1) = static_cast<double>(side->zeros);
                result(row + 2, result.cols() - 2) = static_cast<double>(side->rows);
                row += 3;
            }
            return result;
        });
        add(cases, "column_accumulator rows" + shape, k_float_tolerance, [=](Backend& backend) {
            const ColumnTotals both = totals(backend);
            VectorD result(static_cast<Index>(both.row_maxima.size()) + 4);
            for (std::size_t row = 0; row < both.row_maxima.size(); ++row)
                result[static_cast<Index>(row)] = static_cast<double>(both.row_maxima[row]);
            result.tail(4) << both.apart.crest_sum, both.apart.crest_max, both.others.crest_sum,
                both.others.crest_max;
            return MatrixD(result);
        });
        cases.push_back({"column_accumulator not finite" + shape, 0.0, [=](Backend& device, Backend& host) {
                             for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                                                     -std::numeric_limits<float>::infinity()}) {
                                 const auto found = column_totals(rows, cols, bad, device).first_not_finite;
                                 if (found != column_totals(rows, cols, bad, host).first_not_finite)
                                     return k_infinity;
                             }
                             return 0.0;
                         }});
    }
}

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
                        shape.window > 0 ? " windowed" : shape.score_cap > 0.0 ? " capped" : ""),
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

void add_activations(Cases& cases, Index rows, Index cols)
{
    const auto wide = [=](Backend& backend) {
        return backend.upload(Matrix(normal_matrix(rows, cols, "gate") * 8.0F));
    };
    const auto up = [=](Backend& backend) { return backend.upload(normal_matrix(rows, cols, "up")); };
    constexpr std::pair<Activation, const char*> k_activations[] = {{Activation::Silu, "silu"},
                                                                    {Activation::Gelu, "gelu"},
                                                                    {Activation::GeluTanh, "gelu tanh"},
                                                                    {Activation::Relu, "relu"}};
    for (const auto& [activation, name] : k_activations) {
        const std::string shape = fmt::format(" {} {}x{}", name, rows, cols);
        add(cases, "activate" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer x = wide(backend);
            backend.activate(x, f);
            return backend.download_double(x);
        });
        add(cases, "activate_multiply" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer gate = backend.upload(Matrix(normal_matrix(rows, cols, "gate") * 40.0F));
            backend.activate_multiply(gate, up(backend), f);
            return backend.download_double(gate);
        });
        add(cases, "activate_backward" + shape, 2e-6, [=, f = activation](Backend& backend) {
            Buffer slope = up(backend);
            backend.activate_backward(wide(backend), f, slope);
            return backend.download_double(slope);
        });
        add(cases, "activate_multiply_backward" + shape, 2e-6, [=, f = activation](Backend& backend) {
            const Buffer dy = backend.upload(normal_matrix(rows, cols, "dy"));
            const GateGradient gradient = backend.activate_multiply_backward(wide(backend), up(backend), f, dy);
            MatrixD both(rows, 2 * cols);
            both << backend.download_double(gradient.dgate), backend.download_double(gradient.dup);
            return both;
        });
    }
    add(cases, fmt::format("adam_step {}x{}", rows, cols), 2e-6, [=](Backend& backend) {
        Buffer parameter = up(backend);
        Buffer first = backend.allocate(rows, cols);
        Buffer second = backend.allocate(rows, cols);
        for (std::int64_t step = 1; step <= 3; ++step)
            backend.adam_step(parameter, wide(backend), first, second, {.learning_rate = 0.1, .step = step});
        MatrixD all(rows, 3 * cols);
        all << backend.download_double(parameter), backend.download_double(first), backend.download_double(second);
        return all;
    });
}

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
        add(cases, fmt::format("rms_norm {}x{} by heads", rows, 3 * cols), k_float_tolerance, [=](Backend& backend) {
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
        add_activations(cases, rows, cols);
        add(cases, "cross_entropy" + shape, 2e-6, [=](Backend& backend) {
            const Buffer logits = backend.upload(Matrix(normal_matrix(rows, cols, "logits") * 5.0F));
            return MatrixD(backend.cross_entropy(logits, scattered(rows, cols)));
        });
    }
    add_rope(cases);
    add_attention(cases);
}

} // namespace

double normalized_error(const MatrixD& a, const MatrixD& b)
{
    if (a.rows() != b.rows() || a.cols() != b.cols() || !a.allFinite() || !b.allFinite())
        return k_infinity;
    const double difference = (a - b).norm();
    if (difference == 0.0)
        return 0.0;
    const double size = b.norm();
    return size > 0.0 ? difference / size : k_infinity;
}

std::vector<SelfTestCase> large_self_test_cases()
{
    constexpr Index k_rows = 12'007;
    constexpr Index k_cols = 3'001; // 137 MiB; 128 is what a device must bind at once
    const auto w = [](Backend& backend) { return backend.upload(normal_matrix(k_rows, k_cols, "w")); };
    const std::string shape = fmt::format(" {}x{}", k_rows, k_cols);
    Cases cases;
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
    add(cases, "fit_grid" + shape, k_float_tolerance, [=](Backend& backend) {
        return backend.download_double(backend.fit_grid(w(backend), {.bits = 4, .group = 64}).scales);
    });
    return cases;
}

std::vector<SelfTestCase> self_test_cases()
{
    Cases cases;
    add_gemm(cases);
    add_gram(cases);
    add_hadamard(cases);
    add_grids(cases);
    add_clip_searches(cases);
    add_feedback(cases);
    add_orthonormalize(cases);
    add_elementwise(cases);
    add_column_statistics(cases);
    add_forward(cases);
    return cases;
}

} // namespace rankscope::gpu
