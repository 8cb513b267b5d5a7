// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/hadamard_matrix.h"
#include "gpu/operations.h"

#include <bit>
#include <cmath>
#include <limits>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_reduction_groups = 256; // partial results of one dispatch
constexpr Index k_shared_floats = 4096;           // 16 KiB: what every device has

} // namespace

void VulkanBackend::add_scaled(double alpha, const Buffer& x, double beta, Buffer& y)
{
    require(x.rows() == y.rows() && x.cols() == y.cols(), "add_scaled", "shapes differ");
    require(x.precision() == y.precision(), "add_scaled", "precisions differ");
    if (y.empty())
        return;
    if (y.precision() == Precision::Float64) {
        HostFallbackBackend::add_scaled(alpha, x, beta, y);
        return;
    }
    struct Push {
        std::uint32_t count;
        float alpha, beta;
    };
    for_elements(y.size(), [&](Index first, Index count) {
        const View from = view(range_of(x), first, count, Access::Read);
        const View to = view(range_of(y), first, count, Access::ReadWrite);
        const Push push{u32(count), static_cast<float>(alpha), static_cast<float>(beta)};
        run(Kernel::AddScaled, {}, {from.binding, to.binding}, push, flat_groups(count),
            k_element_flops * static_cast<double>(count));
    });
}

void VulkanBackend::scale(Buffer& x, const VectorD& factors, bool by_column)
{
    const auto factor_range = uploaded_floats(factors);
    struct Push {
        std::uint32_t count, cols, base, first_row, by_column;
    };
    const double flops = k_element_flops * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(x, first, count, Access::ReadWrite);
        const Index elements = count * x.cols();
        const Push push{u32(elements), u32(x.cols()), part.base, u32(first), by_column ? 1U : 0U};
        run(Kernel::Scale, {}, {part.binding, whole(factor_range, Access::Read).binding}, push,
            flat_groups(elements), flops * static_cast<double>(count));
    });
}

void VulkanBackend::scale_columns(Buffer& x, const VectorD& factors)
{
    require(factors.size() == x.cols(), "scale_columns", "one factor per column is needed");
    if (fits({&x}))
        scale(x, factors, true);
    else
        HostFallbackBackend::scale_columns(x, factors);
}

void VulkanBackend::scale_rows(Buffer& x, const VectorD& factors)
{
    require(factors.size() == x.rows(), "scale_rows", "one factor per row is needed");
    if (fits({&x}) && static_cast<VkDeviceSize>(factors.size()) * sizeof(float) <= binding_limit_)
        scale(x, factors, false);
    else
        HostFallbackBackend::scale_rows(x, factors);
}

double VulkanBackend::dot(const Buffer& a, const Buffer& b)
{
    require(a.rows() == b.rows() && a.cols() == b.cols(), "dot", "shapes differ");
    require(a.precision() == b.precision(), "dot", "precisions differ");
    if (a.empty())
        return 0.0;
    if (a.precision() == Precision::Float64)
        return HostFallbackBackend::dot(a, b);
    std::uint32_t parts = 0;
    for_elements(a.size(),
                 [&](Index, Index count) { parts += std::min(flat_groups(count), k_reduction_groups); });
    const auto partial = new_range(parts * 2 * sizeof(float));
    struct Push {
        std::uint32_t count, first_group;
    };
    std::uint32_t first_group = 0;
    for_elements(a.size(), [&](Index first, Index count) {
        const View left = view(range_of(a), first, count, Access::Read);
        const View right = view(range_of(b), first, count, Access::Read);
        const std::uint32_t groups = std::min(flat_groups(count), k_reduction_groups);
        run(Kernel::Dot, {lanes_}, {left.binding, right.binding, whole(partial, Access::Write).binding},
            Push{u32(count), first_group}, groups, k_element_flops * static_cast<double>(count));
        first_group += groups;
    });
    std::vector<float> sums(std::size_t{2} * parts);
    read(partial, sums.data(), sums.size() * sizeof(float));
    double total = 0.0;
    for (const float sum : sums)
        total += static_cast<double>(sum);
    return total;
}

double VulkanBackend::max_abs(const Buffer& x)
{
    if (x.empty())
        return 0.0;
    if (x.precision() == Precision::Float64)
        return HostFallbackBackend::max_abs(x);
    std::uint32_t parts = 0;
    for_elements(x.size(),
                 [&](Index, Index count) { parts += std::min(flat_groups(count), k_reduction_groups); });
    const auto partial = new_range(parts * sizeof(std::uint32_t));
    struct Push {
        std::uint32_t count, first_group;
    };
    std::uint32_t first_group = 0;
    for_elements(x.size(), [&](Index first, Index count) {
        const View part = view(range_of(x), first, count, Access::Read);
        const std::uint32_t groups = std::min(flat_groups(count), k_reduction_groups);
        run(Kernel::MaxAbs, {lanes_}, {part.binding, whole(partial, Access::Write).binding},
            Push{u32(count), first_group}, groups, k_element_flops * static_cast<double>(count));
        first_group += groups;
    });
    std::vector<std::uint32_t> largest(parts);
    read(partial, largest.data(), largest.size() * sizeof(std::uint32_t));
    const float most = std::bit_cast<float>(*std::max_element(largest.begin(), largest.end()));
    return std::isfinite(most) ? static_cast<double>(most) : std::numeric_limits<double>::quiet_NaN();
}

std::shared_ptr<DeviceRange> VulkanBackend::hadamard_base(Index n, Transpose transpose)
{
    const auto factor = hadamard_factor(n);
    const std::lock_guard lock(cache_mutex_);
    auto& kept = hadamard_bases_[{factor->order, transpose == Transpose::Yes}];
    if (kept == nullptr) {
        // The kernel reads the matrix by columns, so what it gets is the transpose of what it applies.
        const Matrix turned =
            transpose == Transpose::Yes ? factor->single : Matrix(factor->single.transpose());
        kept = uploaded(turned.data(), static_cast<VkDeviceSize>(turned.size()) * sizeof(float));
    }
    return kept;
}

/// S over the last `segment` (a power of two) elements of every stretch of x, in one or more passes.
void VulkanBackend::butterflies(Buffer& x, Index segment)
{
    struct Push {
        std::uint32_t segments, extent, stride, base;
        float scale;
    };
    const Index step = x.cols();
    for (Index stride = 1; stride < segment;) {
        const Index extent = std::min(segment / stride, k_shared_floats);
        const bool last = stride * extent == segment;
        const float factor = last ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(segment))) : 1.0F;
        const Index block = std::max<Index>(extent, 1024);
        const double flops = static_cast<double>(step) * (4.0 + 2.0 * std::log2(static_cast<double>(extent)));
        for_rows(x.rows(), step, flops, [&](Index first, Index count) {
            const View part = rows_view(x, first, count, Access::ReadWrite);
            const Index segments = count * step / extent;
            const Index per_group = block / extent;
            const Push push{u32(segments), u32(extent), u32(stride), part.base, factor};
            run(Kernel::HadamardButterfly, {lanes_, u32(block)}, {part.binding}, push,
                static_cast<std::uint64_t>((segments + per_group - 1) / per_group),
                flops * static_cast<double>(count));
        });
        stride *= extent;
    }
}

void VulkanBackend::hadamard(Buffer& x, Transpose transpose)
{
    const Index order = x.empty() ? 1 : hadamard_factor(x.cols())->order;
    if (!fits({&x}) || order > k_shared_floats
        || static_cast<VkDeviceSize>(order * order) * sizeof(float) > binding_limit_) {
        HostFallbackBackend::hadamard(x, transpose);
        return;
    }
    const Index q = x.cols() / order;
    if (q > 1)
        butterflies(x, q); // symmetric: the same for both directions
    if (order == 1)
        return;
    const auto base = hadamard_base(x.cols(), transpose);
    struct Push {
        std::uint32_t rows, order, q, width, tiles, base;
    };
    const Index width = std::min({q, k_shared_floats / order, Index{32}});
    const Index tiles = (q + width - 1) / width;
    const double flops = 2.0 * static_cast<double>(order) * static_cast<double>(x.cols());
    for_rows(x.rows(), x.cols(), flops, [&](Index first, Index count) {
        const View part = rows_view(x, first, count, Access::ReadWrite);
        const Push push{u32(count), u32(order), u32(q), u32(width), u32(tiles), part.base};
        run(Kernel::HadamardBase, {lanes_, u32(k_shared_floats)},
            {part.binding, whole(base, Access::Read).binding}, push,
            static_cast<std::uint64_t>(count * tiles), flops * static_cast<double>(count));
    });
}

} // namespace rankscope::gpu
