// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/operations.h"

#include <limits>

namespace rankscope::gpu {

namespace {

constexpr Index k_tile = 128;  // largest side of a work group's tile; cuts fall on multiples
constexpr Index k_terms = 256; // terms a kernel sums before they join the total

Index round_up(Index value, Index multiple) { return (value + multiple - 1) / multiple * multiple; }

Index round_down(Index value, Index multiple) { return std::max(value / multiple * multiple, Index{1}); }

struct Shape {
    Index m, n, k;
};

/// Halves the largest side until a product costs at most `flops`.
Shape cut_to(Shape shape, double flops)
{
    const auto cost = [&] {
        return 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n)
               * static_cast<double>(shape.k);
    };
    while (cost() > flops) {
        if (shape.m > k_tile && shape.m >= shape.n)
            shape.m = round_up(shape.m / 2, k_tile);
        else if (shape.n > k_tile)
            shape.n = round_up(shape.n / 2, k_tile);
        else if (shape.k > k_terms)
            shape.k = round_up(shape.k / 2, k_terms);
        else
            break;
    }
    return shape;
}

struct GemmPush {
    std::uint32_t m, n, k_end;
    std::uint32_t lda, ldb, ldc;
    std::uint32_t base_a, base_b, base_c;
    std::uint32_t flags;
    float alpha, beta;
};

struct GramPush {
    GemmPush product;
    std::uint32_t row_origin, col_origin;
};

std::uint32_t transpose_flags(Transpose ta, Transpose tb)
{
    return (ta == Transpose::Yes ? 1U : 0U) | (tb == Transpose::Yes ? 2U : 0U);
}

std::uint32_t tiles(Index size, std::uint32_t tile) { return u32((size + tile - 1) / tile); }

/// Elements on and below the diagonal of a part of a matrix that begins at (i0, j0).
double lower_elements(Index i0, Index j0, Index rows, Index cols)
{
    double elements = 0.0;
    for (Index row = i0; row < i0 + rows; ++row)
        elements += static_cast<double>(std::clamp<Index>(row - j0 + 1, 0, cols));
    return elements;
}

/// The part of an operand that a tile reads: rows [row, row + rows), from column `column` on, `cols` wide.
std::pair<Index, Index> part_of(const Operand& operand, Index row, Index rows, Index column, Index cols)
{
    const Index first = operand.first + row * operand.stride + column;
    return {first, (rows - 1) * operand.stride + cols};
}

} // namespace

void VulkanBackend::product(const Product& p)
{
    Shape tile{p.m, p.n, p.k};
    const Index a_rows = rows_per_binding(p.a.stride);
    const Index b_rows = rows_per_binding(p.b.stride);
    (p.ta == Transpose::No ? tile.m : tile.k) = std::min(p.ta == Transpose::No ? tile.m : tile.k, a_rows);
    (p.tb == Transpose::Yes ? tile.n : tile.k) = std::min(p.tb == Transpose::Yes ? tile.n : tile.k, b_rows);
    tile.m = std::min(tile.m, rows_per_binding(p.c.stride));
    tile = cut_to(tile, recorder_->flops_per_submit());
    for (Index i = 0; i < p.m; i += tile.m) {
        for (Index j = 0; j < p.n; j += tile.n) {
            for (Index k = 0; k < p.k; k += tile.k)
                product_tile(p, i, j, k, std::min(tile.m, p.m - i), std::min(tile.n, p.n - j),
                             std::min(tile.k, p.k - k));
        }
    }
}

void VulkanBackend::product_tile(const Product& p, Index i0, Index j0, Index k0, Index rows, Index cols,
                                 Index terms)
{
    const auto [a_first, a_count] =
        p.ta == Transpose::No ? part_of(p.a, i0, rows, k0, terms) : part_of(p.a, k0, terms, i0, rows);
    const auto [b_first, b_count] =
        p.tb == Transpose::No ? part_of(p.b, k0, terms, j0, cols) : part_of(p.b, j0, cols, k0, terms);
    const auto [c_first, c_count] = part_of(p.c, i0, rows, j0, cols);
    const float beta = k0 == 0 ? p.beta : 1.0F;
    const View a = view(p.a.range, a_first, a_count, Access::Read);
    View b = p.b.half ? view(p.b.range, b_first / 2, b_count / 2 + 1, Access::Read)
                      : view(p.b.range, b_first, b_count, Access::Read);
    if (p.b.half) // rows begin with a word and tiles with an even term
        b.base *= 2;
    const View c = view(p.c.range, c_first, c_count, Access::ReadWrite);
    const GemmPush push{u32(rows),       u32(cols), u32(terms), u32(p.a.stride), u32(p.b.stride),
                        u32(p.c.stride), a.base,    b.base,     c.base,          transpose_flags(p.ta, p.tb),
                        p.alpha,         beta};
    const Tiling& t = tiling_;
    const std::array<std::uint32_t, 7> constants{t.x, t.y, t.x, t.y, t.micro, t.depth, 0};
    const std::array<Binding, 3> bindings{a.binding, b.binding, c.binding};
    recorder_->dispatch(
        {p.b.half ? Kernel::GemmHalf : Kernel::Gemm,
         constants,
         bindings,
         std::as_bytes(std::span(&push, 1)),
         {tiles(cols, t.x * t.micro), tiles(rows, t.y * t.micro), 1},
         2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(terms)});
}

/// Both sides within a binding, so that every product with it can be made here.
Buffer VulkanBackend::prepare_weight(const Buffer& weight)
{
    const Index longest = std::max(weight.rows(), weight.cols());
    if (!half_weights_ || !fits({&weight})
        || static_cast<VkDeviceSize>(longest) * sizeof(float) > binding_limit_ - k_range_alignment)
        return weight;
    struct Push {
        std::uint32_t count, cols, row_words, base_x, base_words;
    };
    const Index words = (weight.cols() + 1) / 2;
    auto storage = std::make_shared<HalfStorage>(
        new_range(static_cast<VkDeviceSize>(weight.rows() * words + 1) * sizeof(std::uint32_t)), 2 * words);
    const double flops = k_element_flops * static_cast<double>(weight.cols());
    for_rows(weight.rows(), weight.cols(), flops, [&](Index first, Index count) {
        const View from = rows_view(weight, first, count, Access::Read);
        const View to = view(storage->range, first * words, count * words, Access::Write);
        const Index total = count * words;
        run(Kernel::PackHalf, {}, {from.binding, to.binding},
            Push{u32(total), u32(weight.cols()), u32(words), from.base, to.base}, flat_groups(total),
            flops * static_cast<double>(count));
    });
    return {weight.rows(), weight.cols(), Precision::Float32, std::move(storage)};
}

void VulkanBackend::gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb,
                         double beta, Buffer& c)
{
    const Index m = ta == Transpose::No ? a.rows() : a.cols();
    const Index k = ta == Transpose::No ? a.cols() : a.rows();
    const Index n = tb == Transpose::No ? b.cols() : b.rows();
    require(k == (tb == Transpose::No ? b.rows() : b.cols()), "gemm", "inner dimensions differ");
    require(c.rows() == m && c.cols() == n, "gemm", "the result has another shape than the product");
    require(a.precision() == b.precision()
                && (a.precision() == c.precision() || a.precision() == Precision::Float32),
            "gemm", "precisions differ");
    if (const auto* prepared = dynamic_cast<const HalfStorage*>(b.storage())) {
        require(tb == Transpose::Yes && fits({&a, &c}), "gemm", "a prepared weight serves x·Wᵀ");
        product({{range_of(a), 0, a.cols()},
                 {prepared->range, 0, prepared->stride, true},
                 {range_of(c), 0, c.cols()},
                 ta,
                 tb,
                 m,
                 n,
                 k,
                 static_cast<float>(alpha),
                 static_cast<float>(beta)});
        return;
    }
    if (a.precision() != c.precision() || !fits({&a, &b, &c})) {
        HostFallbackBackend::gemm(alpha, a, ta, b, tb, beta, c);
        return;
    }
    product({{range_of(a), 0, a.cols()},
             {range_of(b), 0, b.cols()},
             {range_of(c), 0, c.cols()},
             ta,
             tb,
             m,
             n,
             k,
             static_cast<float>(alpha),
             static_cast<float>(beta)});
}

/// The lower triangle of x·xᵀ or xᵀ·x. With `low` the sum is a pair of floats, alpha and beta are not
/// applied.
struct VulkanBackend::GramTask {
    Operand x, c, low;
    Transpose tx = Transpose::No;
    Index n = 0, k = 0;
    float alpha = 1.0F, beta = 0.0F;
    bool continued = false; ///< c and low hold an earlier part of the sum
};

void VulkanBackend::gram_lower(const GramTask& task)
{
    Shape tile{task.n, task.n, task.k};
    const Index x_rows = rows_per_binding(task.x.stride);
    if (task.tx == Transpose::No)
        tile.m = tile.n = std::min(task.n, x_rows);
    else
        tile.k = std::min(task.k, x_rows);
    tile.m = std::min(tile.m, rows_per_binding(task.c.stride));
    tile = cut_to(tile, recorder_->flops_per_submit());
    for (Index i = 0; i < task.n; i += tile.m) {
        const Index rows = std::min(tile.m, task.n - i);
        for (Index j = 0; j < i + rows; j += tile.n) {
            for (Index k = 0; k < task.k; k += tile.k)
                gram_tile(task, i, j, k, rows, std::min(tile.n, task.n - j), std::min(tile.k, task.k - k));
        }
    }
}

void VulkanBackend::gram_tile(const GramTask& task, Index i0, Index j0, Index k0, Index rows, Index cols,
                              Index terms)
{
    const bool flip = task.tx == Transpose::Yes;
    const auto [a_first, a_count] =
        flip ? part_of(task.x, k0, terms, i0, rows) : part_of(task.x, i0, rows, k0, terms);
    const auto [b_first, b_count] =
        flip ? part_of(task.x, k0, terms, j0, cols) : part_of(task.x, j0, cols, k0, terms);
    const auto [c_first, c_count] = part_of(task.c, i0, rows, j0, cols);
    const bool pair = task.low.range != nullptr;
    const View a = view(task.x.range, a_first, a_count, Access::Read);
    const View b = view(task.x.range, b_first, b_count, Access::Read);
    const View c = view(task.c.range, c_first, c_count, Access::ReadWrite);
    const View low = pair ? view(task.low.range, c_first, c_count, Access::ReadWrite) : c;
    const std::uint32_t flags = (flip ? 1U : 2U) | (k0 > 0 || task.continued ? 4U : 0U);
    const float beta = k0 == 0 ? task.beta : 1.0F;
    const GramPush push{{u32(rows), u32(cols), u32(terms), u32(task.x.stride), u32(task.x.stride),
                         u32(task.c.stride), a.base, b.base, c.base, flags, task.alpha, beta},
                        u32(i0),
                        u32(j0)};
    const Tiling& t = tiling_;
    const std::array<std::uint32_t, 7> constants{t.x, t.y, t.x, t.y, t.micro, t.depth, pair ? 1U : 0U};
    const std::array<Binding, 4> bindings{a.binding, b.binding, c.binding, low.binding};
    recorder_->dispatch(
        {Kernel::Gram,
         constants,
         bindings,
         std::as_bytes(std::span(&push, 1)),
         {tiles(cols, t.x * t.micro), tiles(rows, t.y * t.micro), 1},
         2.0 * lower_elements(i0, j0, rows, cols) * static_cast<double>(terms)});
}

void VulkanBackend::mirror(const Buffer& c)
{
    struct Push {
        std::uint32_t rows, cols, order, base_upper, base_lower, row_origin, col_origin;
    };
    const Index n = c.rows();
    Index side = std::min({n, rows_per_binding(n), Index{65535} * 16});
    const double most = recorder_->flops_per_submit() / k_element_flops;
    while (side > k_tile && static_cast<double>(side) * static_cast<double>(side) > most)
        side = round_up(side / 2, k_tile);
    const std::array<std::uint32_t, 0> no_constants{};
    for (Index i = 0; i < n; i += side) {
        for (Index j = i / side * side; j < n; j += side) {
            const Index rows = std::min(side, n - i);
            const Index cols = std::min(side, n - j);
            const View upper = rows_view(c, i, rows, Access::ReadWrite);
            const View lower = rows_view(c, j, cols, Access::ReadWrite);
            const Push push{u32(rows), u32(cols), u32(n), upper.base, lower.base, u32(i), u32(j)};
            const std::array<Binding, 2> bindings{upper.binding, lower.binding};
            recorder_->dispatch({Kernel::Mirror,
                                 no_constants,
                                 bindings,
                                 std::as_bytes(std::span(&push, 1)),
                                 {u32((cols + 15) / 16), u32((rows + 15) / 16), 1},
                                 k_element_flops * static_cast<double>(rows) * static_cast<double>(cols)});
        }
    }
}

void VulkanBackend::gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c)
{
    const Index n = tx == Transpose::No ? x.rows() : x.cols();
    const Index k = tx == Transpose::No ? x.cols() : x.rows();
    require(c.rows() == n && c.cols() == n, "gram", "the result has another shape than the product");
    require(x.precision() == c.precision() || x.precision() == Precision::Float32, "gram",
            "a float64 matrix needs a float64 result");
    const bool row_fits = static_cast<VkDeviceSize>(n) * sizeof(float) <= binding_limit_ - k_range_alignment;
    if (c.precision() == Precision::Float64 && fits({&x}) && n > 0 && row_fits) {
        gram_double(alpha, x, tx, beta, c);
        return;
    }
    if (!fits({&x, &c})) {
        HostFallbackBackend::gram(alpha, x, tx, beta, c);
        return;
    }
    gram_lower({{range_of(x), 0, x.cols()},
                {range_of(c), 0, n},
                {},
                tx,
                n,
                k,
                static_cast<float>(alpha),
                static_cast<float>(beta)});
    mirror(c);
}

/// c lives on the host in float64. A sum that goes on (beta = 1) stays on the device as pairs of floats until
/// somebody looks at c, so that the moments of many batches come back once.
void VulkanBackend::gram_double(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c)
{
    const auto new_sum = [&] {
        return PairSum{c.shared_storage(), alpha, new_buffer(c.rows(), c.rows()),
                       new_buffer(c.rows(), c.rows())};
    };
    if (beta != 1.0) {
        settle(c);
        const PairSum sum = new_sum();
        gram_pair(x, tx, sum, false);
        add_pair_sum(sum, beta, c);
        return;
    }
    const std::lock_guard lock(pair_mutex_);
    std::erase_if(pair_sums_, [](const auto& entry) { return entry.second.target.expired(); });
    const auto found = pair_sums_.find(c.storage());
    if (found != pair_sums_.end() && found->second.alpha == alpha) {
        gram_pair(x, tx, found->second, true);
        return;
    }
    if (found != pair_sums_.end())
        add_pair_sum(found->second, 1.0, c);
    PairSum& sum = pair_sums_[c.storage()] = new_sum();
    gram_pair(x, tx, sum, false);
}

void VulkanBackend::gram_pair(const Buffer& x, Transpose tx, const PairSum& sum, bool continued)
{
    const Index n = sum.high.rows();
    gram_lower({{range_of(x), 0, x.cols()},
                {range_of(sum.high), 0, n},
                {range_of(sum.low), 0, n},
                tx,
                n,
                tx == Transpose::No ? x.cols() : x.rows(),
                1.0F,
                0.0F,
                continued});
}

/// c = alpha · sum + beta · c on the host.
void VulkanBackend::add_pair_sum(const PairSum& sum, double beta, Buffer& c)
{
    const Index n = c.rows();
    const Matrix high = download(sum.high);
    const Matrix low = download(sum.low);
    MatrixD whole(n, n); // only the lower triangle was computed
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j <= i; ++j)
            whole(i, j) = whole(j, i) = static_cast<double>(high(i, j)) + static_cast<double>(low(i, j));
    }
    host().add_scaled(sum.alpha, host().upload(whole), beta, c);
}

void VulkanBackend::settle(const Buffer& buffer)
{
    const std::lock_guard lock(pair_mutex_);
    const auto found = pair_sums_.find(buffer.storage());
    if (found == pair_sums_.end())
        return;
    const PairSum sum = std::move(found->second);
    pair_sums_.erase(found);
    if (sum.target.expired())
        return;
    Buffer target = buffer;
    add_pair_sum(sum, 1.0, target);
}

Index VulkanBackend::rows_per_binding(Index stride) const
{
    const auto most = static_cast<Index>((binding_limit_ - k_range_alignment) / sizeof(float));
    const Index rows = std::max<Index>(1, most / std::max<Index>(1, stride));
    return rows > k_tile ? round_down(rows, k_tile) : rows;
}

} // namespace rankscope::gpu
