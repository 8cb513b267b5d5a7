// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/self_test/families.h"

#include <fmt/format.h>

namespace rankscope::gpu::self_test {

namespace {

/// The worst of several matrices that one operation makes.
template <class Operation>
void add_all(Cases& cases, std::string name, double tolerance, Operation operation)
{
    cases.push_back({std::move(name), tolerance, [operation](Backend& device, Backend& reference) {
                         const std::vector<MatrixD> found = operation(device);
                         const std::vector<MatrixD> expected = operation(reference);
                         double worst = found.size() == expected.size() ? 0.0 : k_infinity;
                         for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i)
                             worst = std::max(worst, normalized_error(found[i], expected[i]));
                         return worst;
                     }});
}

void add_norms(Cases& cases, Index rows, Index cols)
{
    const std::string shape = fmt::format(" {}x{}", rows, cols);
    const auto gradient = [](Backend& backend, const NormGradient& found) {
        std::vector<MatrixD> parts{backend.download_double(found.dx), backend.download_double(found.dgain)};
        if (!found.dbias.empty())
            parts.push_back(backend.download_double(found.dbias));
        return parts;
    };
    for (const Index heads : {1, 3}) {
        const std::string name =
            fmt::format("rms_norm_backward {}x{}{}", rows, heads * cols, heads > 1 ? " by heads" : "");
        add_all(cases, name, 2e-6, [=](Backend& backend) {
            const Buffer x = backend.upload(normal_matrix(rows, heads * cols, "x"));
            const Buffer dy = backend.upload(normal_matrix(rows, heads * cols, "dy"));
            const Buffer gain = backend.upload(normal_matrix(1, cols, "gain"));
            return gradient(backend, backend.rms_norm_backward(x, gain, 0.1, dy));
        });
    }
    add_all(cases, "layer_norm_backward" + shape, 4e-6, [=](Backend& backend) {
        // One column has no gradient but through ε: of two nearly equal numbers float32 keeps few digits.
        const Buffer x =
            backend.upload(Matrix(normal_matrix(rows, cols, "x").array() + (cols > 1 ? 3.0F : 0.0F)));
        const Buffer dy = backend.upload(normal_matrix(rows, cols, "dy"));
        const Buffer gain = backend.upload(normal_matrix(1, cols, "gain"));
        return gradient(backend, backend.layer_norm_backward(x, gain, 0.1, dy));
    });
    add(cases, "column_sums" + shape, k_float_tolerance, [=](Backend& backend) {
        return backend.download_double(backend.column_sums(backend.upload(normal_matrix(rows, cols, "x"))));
    });
    for (const float apart : {0.01F, 3.0F}) {
        add(cases, fmt::format("kl_divergence{}, {} apart", shape, apart), 1e-5, [=](Backend& backend) {
            const Matrix reference = normal_matrix(rows, cols, "p") * 4.0F;
            const Matrix logits = (reference + apart * normal_matrix(rows, cols, "q")).array() + 2.0F;
            return MatrixD(backend.kl_divergence(backend.upload(reference), backend.upload(logits)));
        });
    }
}

void add_attention_gradients(Cases& cases)
{
    const AttentionShape shapes[] = {
        {.heads = 1, .kv_heads = 1, .head_dim = 1, .sequence_length = 1},
        {.heads = 6, .kv_heads = 2, .head_dim = 8, .sequence_length = 37, .scale = 0.35},
        {.heads = 4, .kv_heads = 4, .head_dim = 24, .sequence_length = 157, .scale = 0.2, .window = 17},
        {.heads = 2, .kv_heads = 2, .head_dim = 16, .sequence_length = 33, .scale = 1.0, .score_cap = 5.0}};
    for (const AttentionShape& shape : shapes) {
        const std::string name = fmt::format("attention_backward {}/{} heads of {}, {} tokens{}", shape.heads,
                                             shape.kv_heads, shape.head_dim, shape.sequence_length,
                                             shape.window > 0        ? " windowed"
                                             : shape.score_cap > 0.0 ? " capped"
                                                                     : "");
        add_all(cases, name, 4e-6, [shape](Backend& backend) {
            const Index rows = 2 * shape.sequence_length;
            const auto some = [&](Index heads, const char* what) {
                return backend.upload(normal_matrix(rows, heads * shape.head_dim, what));
            };
            const AttentionGradient found =
                backend.attention_backward(some(shape.heads, "q"), some(shape.kv_heads, "k"),
                                           some(shape.kv_heads, "v"), some(shape.heads, "dy"), shape);
            std::vector<MatrixD> parts{backend.download_double(found.dv)};
            if (shape.sequence_length > 1) { // a token that sees itself only has no gradient of its scores
                parts.push_back(backend.download_double(found.dq));
                parts.push_back(backend.download_double(found.dk));
            }
            return parts;
        });
    }
}

struct LearnedCase {
    Index rows, cols;
    UniformGrid grid;
    bool columns; ///< LRQ has them, FlexRound not
};

/// Far enough from where it starts that codes at the ends are cut off.
LearnedGrid learned_grid(Backend& backend, const LearnedCase& item, const Buffer& w)
{
    const GridBuffers fitted = backend.fit_grid(w, item.grid);
    const auto some = [&](Index rows, Index cols, const char* what) {
        return backend.upload(Matrix(0.2F * normal_matrix(rows, cols, what)));
    };
    return {item.grid,
            fitted.scales,
            fitted.zeros,
            some(item.rows, fitted.scales.cols(), "shift"),
            some(item.rows, item.cols, "exponent"),
            some(item.rows, 1, "rows"),
            item.columns ? some(1, item.cols, "columns") : Buffer()};
}

void add_learned_rounding(Cases& cases)
{
    const LearnedCase shapes[] = {{1, 1, {.bits = 4, .group = 0}, true},
                                  {67, 172, {.bits = 3, .group = 64}, true},
                                  {129, 97, {.bits = 4, .group = 0, .symmetric = true}, false},
                                  {31, 300, {.bits = 2, .group = 7}, true}};
    for (const LearnedCase& item : shapes) {
        const std::string shape = fmt::format(" {}x{} {} bits{}{}", item.rows, item.cols, item.grid.bits,
                                              item.grid.group > 0 ? fmt::format(" g{}", item.grid.group) : "",
                                              item.columns ? "" : " without columns");
        cases.push_back({"round_learned" + shape, 1e-3, [=](Backend& device, Backend& reference) {
                             const auto rounded = [&](Backend& backend) {
                                 const Buffer w = backend.upload(normal_matrix(item.rows, item.cols, "w"));
                                 const auto found = backend.round_learned(w, learned_grid(backend, item, w));
                                 return std::pair(backend.download_double(found.values),
                                                  backend.download_double(found.ratio));
                             };
                             const auto [values, ratio] = rounded(device);
                             const auto [expected, expected_ratio] = rounded(reference);
                             if (normalized_error(ratio, expected_ratio) > 2e-6)
                                 return k_infinity;
                             // A ratio on a tie may fall the other way: the share of values that are not
                             // near.
                             const MatrixD apart =
                                 (values - expected).cwiseAbs() - 1e-5 * expected.cwiseAbs();
                             return values.allFinite() ? static_cast<double>((apart.array() > 0.0).count())
                                                             / static_cast<double>(apart.size())
                                                       : k_infinity;
                         }});
        add_all(cases, "round_learned_backward" + shape, 4e-6, [=](Backend& backend) {
            const Buffer w = backend.upload(normal_matrix(item.rows, item.cols, "w"));
            const LearnedGrid grid = learned_grid(backend, item, w);
            // Ratios in tenths of a step: no code of them lies on a tie.
            Matrix ratio = 4.0F * normal_matrix(item.rows, item.cols, "ratio");
            ratio = ratio.array().round() + 0.3F;
            const LearnedGradient found = backend.round_learned_backward(
                backend.upload(normal_matrix(item.rows, item.cols, "dvalues")), backend.upload(ratio), grid);
            std::vector<MatrixD> parts{backend.download_double(found.dexponent),
                                       backend.download_double(found.dshift),
                                       backend.download_double(found.drows)};
            if (item.columns)
                parts.push_back(backend.download_double(found.dcolumns));
            return parts;
        });
    }
}

} // namespace

void add_backward(Cases& cases)
{
    for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {7, 172}, {131, 65}})
        add_norms(cases, rows, cols);
    add_attention_gradients(cases);
    add_learned_rounding(cases);
}

} // namespace rankscope::gpu::self_test
