// SPDX-License-Identifier: GPL-3.0-or-later
// Gradients of norms, biases and attention.
#include "gpu/operations.h"

#include "core/compute/attention_check.h"

#include <algorithm>
#include <array>

namespace rankscope::gpu {

namespace {

constexpr Index k_chunk = 64;             // rows that one thread adds up
constexpr Index k_most_rounds = 32768;    // llvmpipe leaves all loops after 65,535 without a word
constexpr Index k_score_floats = 1 << 21; // scores of a head that are held at a time: 8 MiB
constexpr std::uint32_t k_score_lanes = 64;

struct RowSumsPush {
    std::uint32_t rows, cols, chunk, chunks, base_x, base_sums;
};

Index chunks_of(Index rows, Index chunk) { return (rows + chunk - 1) / chunk; }

/// The matrix with `width` columns and as many rows as that gives.
Buffer folded(const Buffer& x, Index width)
{
    return {x.size() / width, width, x.precision(), x.shared_storage()};
}

} // namespace

struct VulkanBackend::NormSlope {
    const Buffer& x;
    const Buffer& gain;
    const Buffer& dy;
    double epsilon;
    bool centered; ///< LayerNorm
};

/// Sums of the columns; nothing where the kernel cannot take the matrix.
std::optional<Buffer> VulkanBackend::add_rows(const Buffer& x)
{
    if (!fits({&x}))
        return std::nullopt;
    const double flops = k_element_flops * static_cast<double>(x.cols());
    const Index pair_row = 2 * x.cols();
    const Index room = rows_per_binding(pair_row); // chunks that the second pass can take at once
    const Index chunk = room == 0 ? 0 : std::max(k_chunk, 2 * chunks_of(x.rows(), room));
    Index chunks = 0;
    for_rows(x.rows(), x.cols(), flops,
             [&](Index, Index count) { chunks += chunk == 0 ? 0 : chunks_of(count, chunk); });
    if (chunks == 0 || chunks > std::min(room, k_most_rounds) || chunk > k_most_rounds)
        return std::nullopt;
    const Buffer pairs = new_buffer(chunks, pair_row);
    Index next = 0;
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const Index some = chunks_of(count, chunk);
        const View from = rows_view(x, first, count, Access::Read);
        const View to = rows_view(pairs, next, some, Access::Write);
        run(Kernel::AddRows, {lanes_, 0U}, {from.binding, to.binding},
            RowSumsPush{u32(count), u32(x.cols()), u32(chunk), u32(some), from.base, to.base},
            flat_groups(some * x.cols()), flops * static_cast<double>(count));
        next += some;
    });
    Buffer sums = new_buffer(1, x.cols());
    const View from = rows_view(pairs, 0, chunks, Access::Read);
    const View to = rows_view(sums, 0, 1, Access::Write);
    run(Kernel::AddRows, {lanes_, 1U}, {from.binding, to.binding},
        RowSumsPush{u32(chunks), u32(x.cols()), u32(chunks), 1, from.base, to.base}, flat_groups(x.cols()),
        flops * static_cast<double>(2 * chunks));
    return sums;
}

Buffer VulkanBackend::column_sums(const Buffer& x)
{
    auto sums = add_rows(x);
    return sums ? std::move(*sums) : HostFallbackBackend::column_sums(x);
}

NormGradient VulkanBackend::norm_backward(const NormSlope& norm)
{
    const Buffer& x = norm.x;
    const Index width = norm.gain.cols();
    const Index stretches = x.cols() / width; // each is normalized alone
    NormGradient gradient;
    gradient.dx = new_buffer(x.rows(), x.cols());
    const Buffer terms = copy(norm.dy);
    struct Push {
        std::uint32_t rows, cols, base_x, base_terms, base_dx;
        float epsilon;
    };
    const double flops = 2.0 * k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View in = rows_view(x, first, count, Access::Read);
        const View slope = rows_view(terms, first, count, Access::ReadWrite);
        const View out = rows_view(gradient.dx, first, count, Access::Write);
        const Index norms = count * stretches;
        run(Kernel::NormBackward, {lanes_, norm.centered ? 1U : 0U},
            {in.binding, whole(range_of(norm.gain), Access::Read).binding, slope.binding, out.binding},
            Push{u32(norms), u32(width), in.base, slope.base, out.base, static_cast<float>(norm.epsilon)},
            static_cast<std::uint64_t>(norms), flops * static_cast<double>(count));
    });
    gradient.dgain = column_sums(folded(terms, width));
    if (norm.centered)
        gradient.dbias = column_sums(norm.dy);
    return gradient;
}

NormGradient VulkanBackend::rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                              const Buffer& dy)
{
    const char* operation = "rms_norm_backward";
    require(gain.rows() == 1 && gain.cols() > 0 && x.cols() % gain.cols() == 0, operation,
            "the gain has another width");
    require(x.rows() == dy.rows() && x.cols() == dy.cols(), operation, "shapes differ");
    require(gain.precision() == x.precision() && dy.precision() == x.precision(), operation,
            "precisions differ");
    if (!fits({&x, &gain, &dy}))
        return HostFallbackBackend::rms_norm_backward(x, gain, epsilon, dy);
    return norm_backward({x, gain, dy, epsilon, false});
}

NormGradient VulkanBackend::layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                                const Buffer& dy)
{
    const char* operation = "layer_norm_backward";
    require(gain.rows() == 1 && gain.cols() == x.cols(), operation, "the gain has another width");
    require(x.rows() == dy.rows() && x.cols() == dy.cols(), operation, "shapes differ");
    require(gain.precision() == x.precision() && dy.precision() == x.precision(), operation,
            "precisions differ");
    if (!fits({&x, &gain, &dy}))
        return HostFallbackBackend::layer_norm_backward(x, gain, epsilon, dy);
    return norm_backward({x, gain, dy, epsilon, true});
}

/// Some queries of one head and sequence, and the keys that any of them sees.
struct VulkanBackend::HeadGradient {
    const Buffer& q;
    const Buffer& k;
    const Buffer& v;
    const Buffer& dy;
    const AttentionGradient& gradient;
    const AttentionShape& shape;
    Index start = 0; ///< row of the sequence's first token
    Index head = 0;
    Index first = 0, count = 0;   ///< queries
    std::array<Buffer, 3> scores; ///< room for queries × keys: scores, weights, their gradient

    Index oldest() const { return shape.window > 0 ? std::max<Index>(0, first - shape.window + 1) : 0; }
    Index keys() const { return first + count - oldest(); }
};

/// Softmax's weights P anew, then dV += Pᵀ·dY, dS = P ⊙ (dY·Vᵀ − Σ …), dQ = dS·K, dK += dSᵀ·Q (the CPU's way,
/// core/compute/detail/cpu_backward.cpp): products with `gemm`, on the columns of a head where they lie.
void VulkanBackend::head_backward(const HeadGradient& at)
{
    const AttentionShape& shape = at.shape;
    const Index width = shape.head_dim;
    const Index keys = at.keys();
    const auto queries = [&](const Buffer& x) {
        return Operand{range_of(x), (at.start + at.first) * x.cols() + at.head * width, x.cols()};
    };
    const auto seen = [&](const Buffer& x) { // the query heads of a group share keys and values
        const Index head = at.head / (shape.heads / shape.kv_heads);
        return Operand{range_of(x), (at.start + at.oldest()) * x.cols() + head * width, x.cols()};
    };
    const auto part = [&](std::size_t index) { return Operand{range_of(at.scores[index]), 0, keys}; };
    const auto scores_view = [&](std::size_t index, Access access) {
        return view(range_of(at.scores[index]), 0, at.count * keys, access).binding;
    };
    const auto scale = static_cast<float>(shape.scale);
    const auto cap = static_cast<float>(shape.score_cap);
    const double cost = 2.0 * k_element_flops * static_cast<double>(at.count * keys);
    constexpr auto k_no = Transpose::No;
    constexpr auto k_yes = Transpose::Yes;

    product({queries(at.q), seen(at.k), part(0), k_no, k_yes, at.count, keys, width, scale, 0.0F});
    struct WeightsPush {
        std::uint32_t rows, keys, first_token, oldest, window;
        float score_cap;
    };
    run(Kernel::AttentionWeights, {k_score_lanes},
        {scores_view(0, Access::Read), scores_view(1, Access::Write)},
        WeightsPush{u32(at.count), u32(keys), u32(at.first), u32(at.oldest()), u32(shape.window), cap},
        static_cast<std::uint64_t>(at.count), cost);
    product({part(1), queries(at.dy), seen(at.gradient.dv), k_yes, k_no, keys, width, at.count, 1.0F, 1.0F});
    product({queries(at.dy), seen(at.v), part(2), k_no, k_yes, at.count, keys, width, 1.0F, 0.0F});
    struct SlopesPush {
        std::uint32_t rows, keys;
        float scale, score_cap;
    };
    run(Kernel::AttentionSlopes, {k_score_lanes},
        {scores_view(1, Access::Read), scores_view(0, Access::Read), scores_view(2, Access::ReadWrite)},
        SlopesPush{u32(at.count), u32(keys), scale, cap}, static_cast<std::uint64_t>(at.count), cost);
    product({part(2), seen(at.k), queries(at.gradient.dq), k_no, k_no, at.count, width, keys, 1.0F, 0.0F});
    product({part(2), queries(at.q), seen(at.gradient.dk), k_yes, k_no, keys, width, at.count, 1.0F, 1.0F});
}

AttentionGradient VulkanBackend::attention_backward(const Buffer& q, const Buffer& k, const Buffer& v,
                                                    const Buffer& dy, const AttentionShape& shape)
{
    const char* operation = "attention_backward";
    const char* misfit = attention_misfit(q, k, v, shape);
    require(misfit == nullptr, operation, misfit);
    require(q.rows() == dy.rows() && q.cols() == dy.cols(), operation, "shapes differ");
    require(q.precision() == dy.precision(), operation, "precisions differ");
    const Index length = shape.sequence_length;
    const Index binding = static_cast<Index>(binding_limit_ / sizeof(float));
    const Index tile = std::min(length, std::min(k_score_floats, binding) / length);
    if (!fits({&q, &k, &v, &dy}) || tile == 0)
        return HostFallbackBackend::attention_backward(q, k, v, dy, shape);
    const AttentionGradient gradient{new_buffer(q.rows(), q.cols()),
                                     allocate(k.rows(), k.cols(), Precision::Float32),
                                     allocate(v.rows(), v.cols(), Precision::Float32)};
    // Two heads may be under way at once: each second one has scores of its own.
    std::array<std::array<Buffer, 3>, 2> scores;
    for (auto& set : scores)
        for (Buffer& buffer : set)
            buffer = new_buffer(tile, length);
    std::size_t turn = 0;
    for (Index start = 0; start < q.rows(); start += length)
        for (Index head = 0; head < shape.heads; ++head)
            for (Index first = 0; first < length; first += tile)
                head_backward({q, k, v, dy, gradient, shape, start, head, first,
                               std::min(tile, length - first), scores[turn++ % 2]});
    return gradient;
}

} // namespace rankscope::gpu
