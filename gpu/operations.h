// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/device_memory.h"
#include "core/compute/host_fallback_backend.h"
#include "gpu/recorder.h"
#include "gpu/staging.h"
#include "gpu/tiling.h"
#include "gpu/vulkan_backend.h"

#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace rankscope::gpu {

/// Device memory behind a float32 buffer; none for a matrix without elements.
class DeviceStorage final : public BufferStorage {
public:
    explicit DeviceStorage(std::shared_ptr<DeviceRange> device_range) : range(std::move(device_range)) {}
    std::shared_ptr<DeviceRange> range;
};

/// A prepared weight in float16, two numbers a word, rows of whole words.
class HalfStorage final : public BufferStorage {
public:
    HalfStorage(std::shared_ptr<DeviceRange> device_range, Index row_stride)
        : range(std::move(device_range)), stride(row_stride)
    {}
    std::shared_ptr<DeviceRange> range;
    Index stride; ///< numbers from one row to the next
};

/// A part of a row-major matrix in device memory, as a product sees it.
struct Operand {
    std::shared_ptr<DeviceRange> range;
    Index first = 0;  ///< element at (0, 0)
    Index stride = 0; ///< elements from one row to the next
    bool half = false; ///< float16: of b only
};

struct Product {
    Operand a, b, c;
    Transpose ta = Transpose::No;
    Transpose tb = Transpose::No;
    Index m = 0, n = 0, k = 0;
    float alpha = 1.0F, beta = 0.0F;
};

/// Backend on one Vulkan device; operations are grouped by file: memory, products, factorize, elementwise,
/// quantize, lattice, statistics, forward, backward, learned. Float32 matrices live in device memory, float64 ones on the host. Work is recorded and runs when
/// a result is asked for; a matrix larger than one storage binding is worked on by row tiles.
class VulkanBackend final : public HostFallbackBackend, public DeviceMemory {
public:
    /// Throws BackendFailure.
    VulkanBackend(std::shared_ptr<Device> device, const VulkanOptions& options);
    ~VulkanBackend() override;

    std::string name() const override;
    std::string id() const override;
    bool supports(Op op) const override;

    Buffer allocate(Index rows, Index cols, Precision precision) override;
    Buffer upload(const Eigen::Ref<const Matrix>& matrix) override;
    Buffer upload(const Eigen::Ref<const MatrixD>& matrix) override;
    Matrix download(const Buffer& buffer) override;
    MatrixD download_double(const Buffer& buffer) override;
    Buffer convert(const Buffer& buffer, Precision precision) override;
    Buffer copy(const Buffer& buffer) override;
    Buffer rows_of(const Buffer& buffer, Index first, Index count) override;
    Buffer gather_columns(const Buffer& buffer, std::span<const Index> columns) override;
    Buffer gather_rows(const Buffer& buffer, std::span<const Index> rows) override;
    Buffer transposed(const Buffer& buffer) override;

    Buffer prepare_weight(const Buffer& weight) override;
    using Backend::prepare_weight;
    void gemm(double alpha, const Buffer& a, Transpose ta, const Buffer& b, Transpose tb, double beta,
              Buffer& c) override;
    void gram(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c) override;
    void add_scaled(double alpha, const Buffer& x, double beta, Buffer& y) override;
    void scale_columns(Buffer& x, const VectorD& factors) override;
    void scale_rows(Buffer& x, const VectorD& factors) override;
    double dot(const Buffer& a, const Buffer& b) override;
    double max_abs(const Buffer& x) override;

    void solve_lower(const Buffer& lower, Transpose transpose, Buffer& b) override;
    void orthonormalize(Buffer& y) override;

    void hadamard(Buffer& x, Transpose transpose) override;
    GridBuffers fit_grid(const Buffer& w, const UniformGrid& grid) override;
    RoundedBuffers round_nearest(const Buffer& w, const GridBuffers& grid) override;
    RoundedBuffers round_with_feedback(const Buffer& w, const Buffer& feedback, const GridBuffers& grid,
                                       std::span<const Index> group_column) override;
    RoundedBuffers tune_codes(const Buffer& w, const RoundedBuffers& start, const GridBuffers& grid,
                              const Buffer& hessian, int passes) override;
    LatticeBuffers round_lattice(const Buffer& w, const LatticeSweep& sweep) override;
    LatticeBuffers tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                const LatticeDescent& descent) override;

    Buffer rms_norm(const Buffer& x, const Buffer& gain, double epsilon) override;
    void add_bias(Buffer& x, const Buffer& bias) override;
    void rope(Buffer& x, const RopeShape& shape) override;
    Buffer attention(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape) override;
    Buffer layer_norm(const Buffer& x, const Buffer& gain, const Buffer& bias, double epsilon) override;
    void silu_multiply(Buffer& gate, const Buffer& up) override;
    void activate(Buffer& x, Activation activation) override;
    void activate_multiply(Buffer& gate, const Buffer& up, Activation activation) override;
    void soft_cap(Buffer& x, double cap) override;
    void activate_backward(const Buffer& x, Activation activation, Buffer& dy) override;
    GateGradient activate_multiply_backward(const Buffer& gate, const Buffer& up, Activation activation,
                                            const Buffer& dy) override;
    void adam_step(Buffer& parameter, const Buffer& gradient, Buffer& first, Buffer& second,
                   const AdamStep& step) override;
    std::vector<Index> row_argmax(const Buffer& x) override;
    VectorD cross_entropy(const Buffer& logits, std::span<const Index> targets) override;
    VectorD kl_divergence(const Buffer& reference, const Buffer& logits) override;

    NormGradient rms_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                   const Buffer& dy) override;
    NormGradient layer_norm_backward(const Buffer& x, const Buffer& gain, double epsilon,
                                     const Buffer& dy) override;
    Buffer column_sums(const Buffer& x) override;
    AttentionGradient attention_backward(const Buffer& q, const Buffer& k, const Buffer& v, const Buffer& dy,
                                         const AttentionShape& shape) override;
    LearnedRounding round_learned(const Buffer& w, const LearnedGrid& grid) override;
    LearnedGradient round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                           const LearnedGrid& grid) override;

    std::unique_ptr<ColumnAccumulator> column_accumulator(const ColumnOptions& options) override;

    std::uint64_t free_bytes() const override;
    TransferCounts transfers() const;
    void inject(const VulkanFaults& faults) { device_->faults().set(faults); }
    VulkanCounts counts() const { return device_->faults().counts(); }
    bool measure(bool on) { return recorder_->measure(on); }
    KernelTimes times() { return recorder_->times(); }
    /// Throws BackendFailure.
    DevicePeak peak();
    /// Throws BackendFailure.
    std::vector<TilingRate> tune();
    std::string tiling() const { return tiling_.name(); }

protected:
    void settle(const Buffer& buffer) override;
    void assign(Buffer& target, const Buffer& host_buffer) override;

private:
    struct View {
        Binding binding;
        std::uint32_t base = 0; ///< element of the binding at which the part starts
    };
    /// A part of a float64 Gram matrix that is still on the device: alpha · (high + low), lower triangle.
    struct PairSum {
        std::weak_ptr<BufferStorage> target;
        double alpha = 1.0;
        Buffer high, low;
    };
    class Columns;
    struct RopeTable {
        Index sequence_length = 0;
        double attention_factor = 0.0;
        std::vector<double> inverse_frequency;
        std::shared_ptr<DeviceRange> range;
    };

    // Memory.
    std::shared_ptr<DeviceRange> new_range(VkDeviceSize bytes, MemoryUse use = MemoryUse::Device);
    Buffer new_buffer(Index rows, Index cols); ///< content undefined
    void write(const std::shared_ptr<DeviceRange>& target, const void* source, VkDeviceSize bytes);
    void read(const std::shared_ptr<DeviceRange>& source, void* target, VkDeviceSize bytes);
    std::shared_ptr<DeviceRange> uploaded(const void* source, VkDeviceSize bytes);
    std::shared_ptr<DeviceRange> uploaded_floats(const VectorD& values);
    const std::shared_ptr<DeviceRange>& range_of(const Buffer& buffer) const;
    /// Elements [first, first + count) of a range.
    static View view(const std::shared_ptr<DeviceRange>& range, Index first, Index count, Access access);
    View rows_view(const Buffer& buffer, Index first, Index count, Access access) const;
    static View whole(const std::shared_ptr<DeviceRange>& range, Access access);

    // Tiling.
    /// True when the kernels can take all of these: float32, not empty, a row within a binding.
    bool fits(std::initializer_list<const Buffer*> buffers) const;
    Index rows_per_binding(Index stride) const;
    /// body(first, count) over stretches of rows that fit one binding and one submit. `stride`: the widest
    /// row.
    template <class Body>
    void for_rows(Index rows, Index stride, double flops_per_row, const Body& body) const;
    /// body(first, count) over stretches of elements; first is a multiple of 64.
    template <class Body>
    void for_elements(Index count, const Body& body) const;

    // Recording.
    /// `extra_constants`: none for a flat kernel, else the threads of a group and what the kernel declares
    /// after them.
    template <class Push>
    void run(Kernel kernel, std::initializer_list<std::uint32_t> extra_constants,
             std::initializer_list<Binding> bindings, const Push& push, std::uint64_t groups, double flops);
    std::uint32_t flat_groups(Index elements) const;

    void product(const Product& product);
    void product_tile(const Product& product, Index i0, Index j0, Index k0, Index rows, Index cols,
                      Index terms);
    struct GramTask;
    void gram_lower(const GramTask& task);
    void gram_tile(const GramTask& task, Index i0, Index j0, Index k0, Index rows, Index cols, Index terms);
    void mirror(const Buffer& c);
    void solve_panel(const Buffer& lower, Transpose transpose, Index start, Index count, Buffer& b);
    void gram_double(double alpha, const Buffer& x, Transpose tx, double beta, Buffer& c);
    void gram_pair(const Buffer& x, Transpose tx, const PairSum& sum, bool continued);
    void add_pair_sum(const PairSum& sum, double beta, Buffer& c);
    void scale(Buffer& x, const VectorD& factors, bool by_column);
    std::shared_ptr<DeviceRange> hadamard_base(Index n, Transpose transpose);
    void butterflies(Buffer& x, Index segment);
    void pack_grid(const GridBuffers& grid, const std::shared_ptr<DeviceRange>& packed, Index first);
    struct FeedbackTask;
    /// Group of every column, then pack_grid's pairs. Throws where a group column lies outside.
    std::shared_ptr<DeviceRange> mapped_grid(const GridBuffers& grid, Index cols, std::span<const Index> group_column);
    bool grid_fits(const GridBuffers& grid, Index cols) const;
    void targets_of_panel(const Buffer& errors, const Buffer& feedback, Index start, Index count, Buffer& targets);
    void feedback_panel(const FeedbackTask& task, Index start, Index count);
    void descend_panel(const FeedbackTask& task, Index start, Index count);
    /// W − Q with room for a panel's slopes at the end of each row.
    Buffer errors_with_slopes(const Buffer& w, const Buffer& values);
    void panel_slopes(const Buffer& errors, const Buffer& hessian, Index start, Index count);
    struct LatticeTask;
    struct LatticePanel;
    void lattice_panel(const LatticeTask& task, const LatticePanel& panel);
    void lattice_descent_panel(const LatticeTask& task, Index start, Index count);
    Buffer grid_values(const FeedbackTask& task);
    void apply_activation(Buffer& x, const Buffer* up, Activation activation);
    void apply_slope(const Buffer& x, Activation activation, Buffer& slope, const Buffer* up, const Buffer* dup);
    std::shared_ptr<DeviceRange> rope_table(const RopeShape& shape);
    struct NormSlope;
    NormGradient norm_backward(const NormSlope& norm);
    std::optional<Buffer> add_rows(const Buffer& x);
    struct HeadGradient;
    void head_backward(const HeadGradient& head);
    bool fits_learned(const Buffer& w, const LearnedGrid& grid) const;
    std::shared_ptr<DeviceRange> pack_learned(const LearnedGrid& grid);

    std::shared_ptr<Device> device_;
    std::shared_ptr<Allocator> allocator_;
    std::shared_ptr<Pipelines> pipelines_;
    std::unique_ptr<Recorder> recorder_;
    Staging staging_;
    VkDeviceSize binding_limit_ = 0;
    Tiling tiling_{};
    bool half_weights_ = false;
    std::uint32_t lanes_ = 128; ///< threads of a flat work group
    std::mutex cache_mutex_;
    std::map<std::pair<Index, bool>, std::shared_ptr<DeviceRange>> hadamard_bases_;
    std::array<RopeTable, 2> rope_tables_; ///< the newer one first
    std::mutex pair_mutex_;
    std::map<const BufferStorage*, PairSum> pair_sums_; ///< by the matrix that they belong to
    std::atomic<std::uint64_t> uploads_{0}, uploaded_bytes_{0}, downloads_{0}, downloaded_bytes_{0};
};

/// Columns that a kernel takes a row through, between two products with all of them.
inline constexpr Index k_panel = 64;
/// Rows, hence threads, of such a group: panel × rows floats are shared.
inline constexpr std::uint32_t k_panel_rows = 32;

/// Throws BackendFailure(Internal): a caller broke the contract of `operation`.
void require(bool fine, const char* operation, const char* what);

template <class Body>
void VulkanBackend::for_rows(Index rows, Index stride, double flops_per_row, const Body& body) const
{
    const double by_cost = recorder_->flops_per_submit() / std::max(flops_per_row, 1.0);
    Index step = rows_per_binding(stride);
    if (by_cost < static_cast<double>(step))
        step = std::max<Index>(1, static_cast<Index>(by_cost));
    for (Index first = 0; first < rows; first += step)
        body(first, std::min(step, rows - first));
}

/// What an element of a memory-bound kernel counts in FLOP, so that submits of such kernels are cut as well.
inline constexpr double k_element_flops = 8.0;

template <class Body>
void VulkanBackend::for_elements(Index count, const Body& body) const
{
    const double by_cost = recorder_->flops_per_submit() / k_element_flops;
    Index step = static_cast<Index>(binding_limit_ / sizeof(float));
    if (by_cost < static_cast<double>(step))
        step = static_cast<Index>(by_cost);
    step = std::max<Index>(step / 64 * 64, 64);
    for (Index first = 0; first < count; first += step)
        body(first, std::min(step, count - first));
}

template <class Push>
void VulkanBackend::run(Kernel kernel, std::initializer_list<std::uint32_t> extra_constants,
                        std::initializer_list<Binding> bindings, const Push& push, std::uint64_t groups,
                        double flops)
{
    static_assert(sizeof(Push) <= k_push_bytes);
    // Constants 0 and 1 are the local size, 2 repeats its first side as LANES for shared arrays.
    std::vector<std::uint32_t> constants;
    constants.reserve(extra_constants.size() + 2);
    constants.push_back(extra_constants.size() > 0 ? *extra_constants.begin() : lanes_);
    constants.push_back(1);
    for (const std::uint32_t value : extra_constants)
        constants.push_back(value);
    constexpr std::uint64_t k_widest = 32768; // a dimension holds 65535 at least
    const auto wide = static_cast<std::uint32_t>(std::min(groups, k_widest));
    const auto high = static_cast<std::uint32_t>((groups + k_widest - 1) / k_widest);
    recorder_->dispatch(
        {kernel, constants, bindings, std::as_bytes(std::span(&push, 1)), {wide, high, 1}, flops});
}

inline std::uint32_t u32(Index value) { return static_cast<std::uint32_t>(value); }

} // namespace rankscope::gpu
