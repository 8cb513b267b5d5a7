// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/failure.h"
#include "gpu/operations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace rankscope::gpu {

namespace {

constexpr VkDeviceSize k_small_transfer = VkDeviceSize{256} << 10; // a range of a shared block serves it

constexpr Index k_side = 16; // of a transposed tile

VkDeviceSize bytes_of(Index elements) { return static_cast<VkDeviceSize>(elements) * sizeof(float); }

double mebibytes(VkDeviceSize bytes) { return static_cast<double>(bytes) / 1048576.0; }

} // namespace

void require(bool fine, const char* operation, const char* what)
{
    if (!fine)
        throw BackendFailure(internal_error(what, std::string("Vulkan backend, ") + operation));
}

std::shared_ptr<DeviceRange> VulkanBackend::new_range(VkDeviceSize bytes, MemoryUse use)
{
    device_->require_alive();
    if (auto range = allocator_->try_allocate(bytes, use))
        return range;
    recorder_->finish(); // lets go of temporaries that only waited for the device
    if (auto range = allocator_->try_allocate(bytes, use))
        return range;
    const std::string& device = device_->physical().info.name;
    if (bytes > allocator_->largest_range())
        throw BackendFailure(
            {ErrorKind::NoSpace,
             fmt::format("a matrix of {:.1f} MiB is larger than the device's largest allocation "
                         "({:.1f} MiB)",
                         mebibytes(bytes), mebibytes(allocator_->largest_range())),
             device, "Compute this layer with --backend cpu"});
    const VkDeviceSize room = allocator_->room();
    throw BackendFailure({ErrorKind::NoSpace,
                          fmt::format("the device has no room for another {:.1f} MiB, {:.1f} MiB are in use{}",
                                      mebibytes(bytes), mebibytes(allocator_->allocated_bytes()),
                                      room < std::numeric_limits<VkDeviceSize>::max()
                                          ? fmt::format(" and {:.1f} MiB are free", mebibytes(room))
                                          : std::string()),
                          device,
                          "Lower --memory, close other programs that use the device, or use --backend cpu"});
}

Buffer VulkanBackend::new_buffer(Index rows, Index cols)
{
    require(rows >= 0 && cols >= 0, "allocate", "a dimension is negative");
    require(rows == 0 || cols <= std::numeric_limits<Index>::max() / 8 / rows, "allocate",
            "a matrix is too large");
    std::shared_ptr<DeviceRange> range;
    if (rows > 0 && cols > 0)
        range = new_range(bytes_of(rows * cols));
    return {rows, cols, Precision::Float32, std::make_shared<DeviceStorage>(std::move(range))};
}

const std::shared_ptr<DeviceRange>& VulkanBackend::range_of(const Buffer& buffer) const
{
    const auto* storage = dynamic_cast<const DeviceStorage*>(buffer.storage());
    require(storage != nullptr && storage->range != nullptr, "memory",
            "a buffer is empty or belongs to another backend");
    return storage->range;
}

VulkanBackend::View VulkanBackend::view(const std::shared_ptr<DeviceRange>& range, Index first, Index count,
                                        Access access)
{
    const VkDeviceSize start = bytes_of(first);
    const VkDeviceSize aligned = start / k_range_alignment * k_range_alignment;
    View result;
    result.binding = {range, aligned, start - aligned + bytes_of(count), access};
    result.base = static_cast<std::uint32_t>((start - aligned) / sizeof(float));
    return result;
}

VulkanBackend::View VulkanBackend::rows_view(const Buffer& buffer, Index first, Index count,
                                             Access access) const
{
    return view(range_of(buffer), first * buffer.cols(), count * buffer.cols(), access);
}

VulkanBackend::View VulkanBackend::whole(const std::shared_ptr<DeviceRange>& range, Access access)
{
    return {{range, 0, range->size(), access}, 0};
}

/// Fills a range that no recorded command touches yet.
void VulkanBackend::write(const std::shared_ptr<DeviceRange>& target, const void* source, VkDeviceSize bytes)
{
    ++uploads_;
    uploaded_bytes_ += bytes;
    if (target->mapped() != nullptr) {
        std::memcpy(target->mapped(), source, bytes);
        return;
    }
    if (bytes > k_small_transfer) {
        staging_.write(target, source, bytes);
        return;
    }
    const auto staging = new_range(bytes, MemoryUse::Upload);
    std::memcpy(staging->mapped(), source, bytes);
    recorder_->copy(staging, target, {{0, 0, bytes}});
}

/// Waits for what is recorded and copies the content out.
void VulkanBackend::read(const std::shared_ptr<DeviceRange>& source, void* target, VkDeviceSize bytes)
{
    ++downloads_;
    downloaded_bytes_ += bytes;
    if (source->mapped() != nullptr) {
        recorder_->finish();
        std::memcpy(target, source->mapped(), bytes);
        return;
    }
    if (bytes > k_small_transfer) {
        staging_.read(source, target, bytes);
        return;
    }
    const auto staging = new_range(bytes, MemoryUse::Readback);
    recorder_->copy(source, staging, {{0, 0, bytes}});
    recorder_->finish();
    std::memcpy(target, staging->mapped(), bytes);
}

/// Less an eighth for the ring of transfers and for what blocks of small ranges leave unused.
std::uint64_t VulkanBackend::free_bytes() const
{
    const std::uint64_t whole = device_->physical().info.memory_bytes;
    const std::uint64_t room =
        std::min<std::uint64_t>(allocator_->room(), whole - std::min(whole, allocator_->allocated_bytes()));
    return room - room / 8;
}

TransferCounts VulkanBackend::transfers() const
{
    return {uploads_, uploaded_bytes_, downloads_, downloaded_bytes_};
}

std::shared_ptr<DeviceRange> VulkanBackend::uploaded(const void* source, VkDeviceSize bytes)
{
    auto range = new_range(bytes);
    write(range, source, bytes);
    return range;
}

std::shared_ptr<DeviceRange> VulkanBackend::uploaded_floats(const VectorD& values)
{
    const Vector singles = values.cast<float>();
    return uploaded(singles.data(), bytes_of(singles.size()));
}

Buffer VulkanBackend::allocate(Index rows, Index cols, Precision precision)
{
    if (precision == Precision::Float64)
        return host().allocate(rows, cols, precision);
    Buffer buffer = new_buffer(rows, cols);
    if (!buffer.empty())
        recorder_->clear(range_of(buffer), bytes_of(buffer.size()));
    return buffer;
}

Buffer VulkanBackend::upload(const Eigen::Ref<const Matrix>& matrix)
{
    Buffer buffer = new_buffer(matrix.rows(), matrix.cols());
    if (buffer.empty())
        return buffer;
    const VkDeviceSize bytes = bytes_of(buffer.size());
    if (matrix.outerStride() == matrix.cols()) {
        write(range_of(buffer), matrix.data(), bytes);
    } else {
        const Matrix packed = matrix;
        write(range_of(buffer), packed.data(), bytes);
    }
    return buffer;
}

Buffer VulkanBackend::upload(const Eigen::Ref<const MatrixD>& matrix) { return host().upload(matrix); }

Matrix VulkanBackend::download(const Buffer& buffer)
{
    if (buffer.precision() == Precision::Float64)
        return host().download(to_host(buffer));
    Matrix matrix(buffer.rows(), buffer.cols());
    if (!buffer.empty())
        read(range_of(buffer), matrix.data(), bytes_of(buffer.size()));
    return matrix;
}

MatrixD VulkanBackend::download_double(const Buffer& buffer)
{
    if (buffer.precision() == Precision::Float64)
        return host().download_double(to_host(buffer));
    return download(buffer).cast<double>();
}

Buffer VulkanBackend::convert(const Buffer& buffer, Precision precision)
{
    if (buffer.precision() == precision)
        return copy(buffer);
    if (precision == Precision::Float64)
        return host().upload(download_double(buffer));
    return upload(host().download(buffer));
}

Buffer VulkanBackend::copy(const Buffer& buffer)
{
    if (buffer.precision() == Precision::Float64)
        return host().copy(to_host(buffer));
    return rows_of(buffer, 0, buffer.rows());
}

void VulkanBackend::assign(Buffer& target, const Buffer& host_buffer)
{
    require(target.rows() == host_buffer.rows() && target.cols() == host_buffer.cols(), "assign",
            "shapes differ");
    if (target.empty())
        return;
    const Matrix content = host().download(host_buffer);
    if (range_of(target)->mapped() != nullptr)
        recorder_->finish(); // recorded commands may still use the old content
    write(range_of(target), content.data(), bytes_of(target.size()));
}

Buffer VulkanBackend::rows_of(const Buffer& buffer, Index first, Index count)
{
    if (buffer.precision() == Precision::Float64)
        return HostFallbackBackend::rows_of(buffer, first, count);
    require(first >= 0 && count >= 0 && count <= buffer.rows() - first, "rows_of", "rows outside the matrix");
    Buffer part = new_buffer(count, buffer.cols());
    if (!part.empty())
        recorder_->copy(range_of(buffer), range_of(part),
                        {{bytes_of(first * buffer.cols()), 0, bytes_of(part.size())}});
    return part;
}

Buffer VulkanBackend::gather_rows(const Buffer& buffer, std::span<const Index> rows)
{
    if (buffer.precision() == Precision::Float64)
        return HostFallbackBackend::gather_rows(buffer, rows);
    for (const Index row : rows)
        require(row >= 0 && row < buffer.rows(), "gather_rows", "an index lies outside the matrix");
    Buffer result = new_buffer(static_cast<Index>(rows.size()), buffer.cols());
    if (result.empty())
        return result;
    const VkDeviceSize row_bytes = bytes_of(buffer.cols());
    std::vector<VkBufferCopy> parts;
    parts.reserve(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i)
        parts.push_back({static_cast<VkDeviceSize>(rows[i]) * row_bytes, i * row_bytes, row_bytes});
    recorder_->copy(range_of(buffer), range_of(result), std::move(parts));
    return result;
}

Buffer VulkanBackend::gather_columns(const Buffer& buffer, std::span<const Index> columns)
{
    if (!fits({&buffer}))
        return HostFallbackBackend::gather_columns(buffer, columns);
    std::vector<std::uint32_t> indices;
    indices.reserve(columns.size());
    for (const Index column : columns) {
        require(column >= 0 && column < buffer.cols(), "gather_columns", "an index lies outside the matrix");
        indices.push_back(u32(column));
    }
    Buffer result = new_buffer(buffer.rows(), static_cast<Index>(columns.size()));
    if (result.empty())
        return result;
    if (!fits({&result}))
        return HostFallbackBackend::gather_columns(buffer, columns);
    const auto index_range = uploaded(indices.data(), indices.size() * sizeof(std::uint32_t));
    struct Push {
        std::uint32_t count, source_cols, target_cols, base_source, base_target;
    };
    const double flops = k_element_flops * static_cast<double>(result.cols());
    for_rows(buffer.rows(), std::max(buffer.cols(), result.cols()), flops, [&](Index first, Index count) {
        const View source = rows_view(buffer, first, count, Access::Read);
        const View target = rows_view(result, first, count, Access::Write);
        const Index elements = count * result.cols();
        const Push push{u32(elements), u32(buffer.cols()), u32(result.cols()), source.base, target.base};
        run(Kernel::Gather, {}, {source.binding, whole(index_range, Access::Read).binding, target.binding},
            push, flat_groups(elements), flops * static_cast<double>(count));
    });
    return result;
}

Buffer VulkanBackend::transposed(const Buffer& buffer)
{
    const Index rows = buffer.rows();
    const Index cols = buffer.cols();
    Buffer result = new_buffer(cols, rows);
    if (!fits({&buffer, &result}))
        return HostFallbackBackend::transposed(buffer);
    struct Push {
        std::uint32_t rows, cols, source_stride, target_stride, base_source, base_target;
    };
    constexpr Index k_most_groups = 65535; // of a dimension
    Index high = std::min({rows, rows_per_binding(cols), k_most_groups * k_side});
    Index wide = std::min({cols, rows_per_binding(rows), k_most_groups * k_side});
    const double most = recorder_->flops_per_submit() / k_element_flops;
    while (static_cast<double>(high) * static_cast<double>(wide) > most && std::max(high, wide) > k_side)
        (high > wide ? high : wide) /= 2;
    const std::array<std::uint32_t, 0> no_constants{};
    for (Index i = 0; i < rows; i += high) {
        for (Index j = 0; j < cols; j += wide) {
            const Index part_rows = std::min(high, rows - i);
            const Index part_cols = std::min(wide, cols - j);
            const View source =
                view(range_of(buffer), i * cols + j, (part_rows - 1) * cols + part_cols, Access::Read);
            const View target =
                view(range_of(result), j * rows + i, (part_cols - 1) * rows + part_rows, Access::Write);
            const Push push{u32(part_rows), u32(part_cols), u32(cols), u32(rows), source.base, target.base};
            const std::array<Binding, 2> bindings{source.binding, target.binding};
            recorder_->dispatch({Kernel::Transpose,
                                 no_constants,
                                 bindings,
                                 std::as_bytes(std::span(&push, 1)),
                                 {u32((part_cols + k_side - 1) / k_side), u32((part_rows + k_side - 1) / k_side), 1},
                                 k_element_flops * static_cast<double>(part_rows)
                                     * static_cast<double>(part_cols)});
        }
    }
    return result;
}

} // namespace rankscope::gpu
