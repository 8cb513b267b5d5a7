// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/operations.h"

#include "core/compute/attention_check.h"

#include <cmath>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_attention_lanes = 64;
constexpr Index k_largest_head = 1024; // query and sums of a head lie in shared memory

} // namespace

Buffer VulkanBackend::rms_norm(const Buffer& x, const Buffer& gain, double epsilon)
{
    require(gain.rows() == 1 && gain.cols() > 0 && x.cols() % gain.cols() == 0, "rms_norm",
            "the gain has another width");
    require(gain.precision() == x.precision(), "rms_norm", "precisions differ");
    if (!fits({&x, &gain}))
        return HostFallbackBackend::rms_norm(x, gain, epsilon);
    const Index stretches = x.cols() / gain.cols(); // each is normalized alone
    Buffer y = new_buffer(x.rows(), x.cols());
    struct Push {
        std::uint32_t rows, cols, base_x, base_y;
        float epsilon;
    };
    const double flops = k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View from = rows_view(x, first, count, Access::Read);
        const View to = rows_view(y, first, count, Access::Write);
        const Index norms = count * stretches;
        const Push push{u32(norms), u32(gain.cols()), from.base, to.base, static_cast<float>(epsilon)};
        run(Kernel::RmsNorm, {lanes_},
            {from.binding, whole(range_of(gain), Access::Read).binding, to.binding}, push,
            static_cast<std::uint64_t>(norms), flops * static_cast<double>(count));
    });
    return y;
}

Buffer VulkanBackend::layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias, double epsilon)
{
    require(gain.rows() == 1 && gain.cols() == x.cols(), "layer_norm", "the gain has another width");
    require(bias.rows() == 1 && bias.cols() == x.cols(), "layer_norm", "the bias has another width");
    require(gain.precision() == x.precision() && bias.precision() == x.precision(), "layer_norm",
            "precisions differ");
    if (!fits({&x, &gain, &bias}))
        return HostFallbackBackend::layer_norm(x, gain, bias, epsilon);
    Buffer y = new_buffer(x.rows(), x.cols());
    struct Push {
        std::uint32_t rows, cols, base_x, base_y;
        float epsilon;
    };
    const double flops = 2.0 * k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View from = rows_view(x, first, count, Access::Read);
        const View to = rows_view(y, first, count, Access::Write);
        run(Kernel::LayerNorm, {lanes_},
            {from.binding, whole(range_of(gain), Access::Read).binding,
             whole(range_of(bias), Access::Read).binding, to.binding},
            Push{u32(count), u32(x.cols()), from.base, to.base, static_cast<float>(epsilon)},
            static_cast<std::uint64_t>(count), flops * static_cast<double>(count));
    });
    return y;
}

void VulkanBackend::add_bias(Buffer& x, const Buffer& bias)
{
    require(bias.rows() == 1 && bias.cols() == x.cols(), "add_bias", "the bias has another width");
    require(bias.precision() == x.precision(), "add_bias", "precisions differ");
    if (!fits({&x, &bias})) {
        HostFallbackBackend::add_bias(x, bias);
        return;
    }
    struct Push {
        std::uint32_t count, cols, base;
    };
    const double flops = k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(x, first, count, Access::ReadWrite);
        const Index elements = count * x.cols();
        run(Kernel::AddBias, {}, {part.binding, whole(range_of(bias), Access::Read).binding},
            Push{u32(elements), u32(x.cols()), part.base}, flat_groups(elements),
            flops * static_cast<double>(count));
    });
}

/// Cosine and sine of every position and pair. The last two tables are kept: every layer of a model asks for the same
/// one, and its gradient for the one that turns back.
std::shared_ptr<DeviceRange> VulkanBackend::rope_table(const RopeShape& shape)
{
    const std::lock_guard lock(cache_mutex_);
    const auto& frequencies = shape.inverse_frequency;
    for (const RopeTable& table : rope_tables_) {
        if (table.range != nullptr && table.sequence_length == shape.sequence_length
            && table.attention_factor == shape.attention_factor
            && std::equal(frequencies.begin(), frequencies.end(), table.inverse_frequency.begin(),
                          table.inverse_frequency.end()))
            return table.range;
    }
    std::vector<float> turns;
    turns.reserve(2 * frequencies.size() * static_cast<std::size_t>(shape.sequence_length));
    for (Index position = 0; position < shape.sequence_length; ++position) {
        for (const double frequency : frequencies) {
            const double angle = static_cast<double>(position) * frequency;
            turns.push_back(static_cast<float>(shape.attention_factor * std::cos(angle)));
            turns.push_back(static_cast<float>(shape.attention_factor * std::sin(angle)));
        }
    }
    std::swap(rope_tables_.front(), rope_tables_.back()); // the older one goes
    rope_tables_.front() = {shape.sequence_length,
                            shape.attention_factor,
                            {frequencies.begin(), frequencies.end()},
                            uploaded(turns.data(), turns.size() * sizeof(float))};
    return rope_tables_.front().range;
}

void VulkanBackend::rope(Buffer& x, const RopeShape& shape)
{
    const auto half = static_cast<Index>(shape.inverse_frequency.size());
    require(shape.heads > 0 && shape.sequence_length > 0 && x.cols() == shape.heads * shape.head_dim, "rope",
            "the matrix has another width than the heads");
    require(2 * half <= shape.head_dim, "rope", "more frequencies than half a head");
    require(x.rows() % shape.sequence_length == 0, "rope", "tokens are not whole sequences");
    if (half == 0)
        return;
    const auto table_bytes = static_cast<VkDeviceSize>(2 * half * shape.sequence_length) * sizeof(float);
    if (!fits({&x}) || table_bytes > binding_limit_) {
        HostFallbackBackend::rope(x, shape);
        return;
    }
    const auto table = rope_table(shape);
    struct Push {
        std::uint32_t count, heads, head_dim, half_rotary, sequence_length, first_row, base;
    };
    const double flops = k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(x, first, count, Access::ReadWrite);
        const Index pairs = count * shape.heads * half;
        const Push push{u32(pairs), u32(shape.heads),           u32(shape.head_dim),
                        u32(half),  u32(shape.sequence_length), u32(first % shape.sequence_length),
                        part.base};
        run(Kernel::Rope, {}, {part.binding, whole(table, Access::Read).binding}, push, flat_groups(pairs),
            flops * static_cast<double>(count));
    });
}

Buffer VulkanBackend::attention(const Buffer& q, const Buffer& k, const Buffer& v,
                                const AttentionShape& shape)
{
    const char* misfit = attention_misfit(q, k, v, shape);
    require(misfit == nullptr, "attention", misfit);
    const Index length = shape.sequence_length;
    if (!fits({&q, &k, &v}) || rows_per_binding(std::max(q.cols(), k.cols())) < length
        || shape.head_dim > k_largest_head)
        return HostFallbackBackend::attention(q, k, v, shape);

    Buffer result = new_buffer(q.rows(), q.cols());
    struct Push {
        std::uint32_t rows, heads, kv_heads, window, first_token;
        std::uint32_t base_q, base_k, base_v, base_o;
        float scale, score_cap;
    };
    const double most = static_cast<double>(shape.window > 0 ? std::min(shape.window, length) : length);
    const double seen = most - most * (most - 1.0) / (2.0 * static_cast<double>(length)); // keys, in the mean
    const double flops = 4.0 * seen * static_cast<double>(q.cols());
    for (Index start = 0; start < q.rows(); start += length) { // queries see keys of their own sequence only
        const View keys = rows_view(k, start, length, Access::Read);
        const View values = rows_view(v, start, length, Access::Read);
        for_rows(length, q.cols(), flops, [&](Index first, Index count) {
            const View queries = rows_view(q, start + first, count, Access::Read);
            const View out = rows_view(result, start + first, count, Access::Write);
            const Push push{u32(count),
                            u32(shape.heads),
                            u32(shape.kv_heads),
                            u32(shape.window),
                            u32(first),
                            queries.base,
                            keys.base,
                            values.base,
                            out.base,
                            static_cast<float>(shape.scale),
                            static_cast<float>(shape.score_cap)};
            run(Kernel::Attention, {k_attention_lanes, u32(shape.head_dim)},
                {queries.binding, keys.binding, values.binding, out.binding}, push,
                static_cast<std::uint64_t>(count * shape.heads), flops * static_cast<double>(count));
        });
    }
    return result;
}

VectorD VulkanBackend::cross_entropy(const Buffer& logits, std::span<const Index> targets)
{
    const char* operation = "cross_entropy";
    require(static_cast<Index>(targets.size()) == logits.rows(), operation, "one target per row is needed");
    std::vector<std::uint32_t> words;
    words.reserve(targets.size());
    for (const Index target : targets) {
        require(target >= 0 && target < logits.cols(), operation, "a target lies outside the vocabulary");
        words.push_back(u32(target));
    }
    const auto part_bytes = static_cast<VkDeviceSize>(3 * logits.rows()) * sizeof(float);
    if (!fits({&logits}) || part_bytes > binding_limit_)
        return HostFallbackBackend::cross_entropy(logits, targets);
    const auto target_range = uploaded(words.data(), words.size() * sizeof(std::uint32_t));
    const auto parts = new_range(part_bytes);
    struct Push {
        std::uint32_t rows, cols, base, first_row;
    };
    const double flops = 2.0 * k_element_flops * static_cast<double>(logits.cols());
    for_rows(logits.rows(), logits.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(logits, first, count, Access::Read);
        run(Kernel::CrossEntropy, {lanes_},
            {part.binding, whole(target_range, Access::Read).binding, whole(parts, Access::Write).binding},
            Push{u32(count), u32(logits.cols()), part.base, u32(first)}, static_cast<std::uint64_t>(count),
            flops * static_cast<double>(count));
    });
    Matrix found(logits.rows(), 3); // largest logit, Σ exp(logit − largest), the target's logit
    read(parts, found.data(), part_bytes);
    const MatrixD exact = found.cast<double>();
    return exact.col(1).array().log() - (exact.col(2) - exact.col(0)).array();
}

VectorD VulkanBackend::kl_divergence(const Buffer& reference, const Buffer& logits)
{
    const char* operation = "kl_divergence";
    require(reference.rows() == logits.rows() && reference.cols() == logits.cols(), operation,
            "shapes differ");
    require(reference.precision() == logits.precision(), operation, "precisions differ");
    const auto bytes = static_cast<VkDeviceSize>(2 * logits.rows()) * sizeof(float);
    if (!fits({&reference, &logits}) || bytes > binding_limit_)
        return HostFallbackBackend::kl_divergence(reference, logits);
    const auto pairs = new_range(bytes);
    struct Push {
        std::uint32_t rows, cols, base_p, base_q, first_row;
    };
    const double flops = 6.0 * k_element_flops * static_cast<double>(logits.cols());
    for_rows(logits.rows(), logits.cols(), flops, [&](Index first, Index count) {
        const View p = rows_view(reference, first, count, Access::Read);
        const View q = rows_view(logits, first, count, Access::Read);
        run(Kernel::KlDivergence, {lanes_}, {p.binding, q.binding, whole(pairs, Access::Write).binding},
            Push{u32(count), u32(logits.cols()), p.base, q.base, u32(first)},
            static_cast<std::uint64_t>(count), flops * static_cast<double>(count));
    });
    Matrix found(logits.rows(), 2);
    read(pairs, found.data(), bytes);
    const VectorD sums = found.cast<double>().rowwise().sum();
    return sums.unaryExpr([](double sum) { return sum < 0.0 ? 0.0 : sum; }); // rounding only; NaN stays
}

std::vector<Index> VulkanBackend::row_argmax(const Buffer& x)
{
    require(x.rows() == 0 || x.cols() > 0, "row_argmax", "an empty row has no largest element");
    const auto bytes = static_cast<VkDeviceSize>(x.rows()) * sizeof(std::uint32_t);
    if (!fits({&x}) || bytes > binding_limit_)
        return HostFallbackBackend::row_argmax(x);
    const auto columns = new_range(bytes);
    struct Push {
        std::uint32_t rows, cols, base, first_row;
    };
    const double flops = k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(x, first, count, Access::Read);
        run(Kernel::RowArgmax, {lanes_}, {part.binding, whole(columns, Access::Write).binding},
            Push{u32(count), u32(x.cols()), part.base, u32(first)}, static_cast<std::uint64_t>(count),
            flops * static_cast<double>(count));
    });
    std::vector<std::uint32_t> found(static_cast<std::size_t>(x.rows()));
    read(columns, found.data(), bytes);
    return {found.begin(), found.end()};
}

} // namespace rankscope::gpu
