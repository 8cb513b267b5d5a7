// SPDX-License-Identifier: GPL-3.0-or-later
// ColumnStatistics where the matrices are: sums stay on the device until somebody asks for the totals.
#include "gpu/failure.h"
#include "gpu/operations.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace rankscope::gpu {

namespace {

constexpr Index k_bins = ColumnStatistics::k_histogram_bins;
constexpr Index k_bins_per_octave = 16;
// Where things stand in column_sums.comp's buffers.
constexpr Index k_not_finite = 0;
constexpr Index k_zeros = 1;
constexpr Index k_first_bin = 2;
constexpr Index k_counts = k_first_bin + k_bins;
enum Plane : Index { Pivot, Powers, Absolute = 9, Low = 11, High, Above };

/// Numbers that 32 bits and the 24 of a float hold, with room to spare.
constexpr std::int64_t k_most_entries = std::int64_t{1} << 31;
constexpr std::int64_t k_most_rows = std::int64_t{1} << 23;
/// Rounds of a dispatch's loops, inner ones counted: llvmpipe leaves all loops after 65,535 without a word.
constexpr Index k_most_rounds = 32768;

/// Significands of floats at which the bins of an octave begin.
std::vector<std::uint32_t> octave_edges()
{
    std::vector<std::uint32_t> edges;
    for (Index bin = 0; bin < k_bins_per_octave; ++bin) {
        const double edge = std::exp2(static_cast<double>(bin) / k_bins_per_octave);
        auto next = static_cast<float>(edge);
        if (static_cast<double>(next) < edge)
            next = std::nextafter(next, 4.0F);
        edges.push_back(std::bit_cast<std::uint32_t>(next) & 0x7FFFFFU);
    }
    return edges;
}

/// What column_sums.comp leaves of some rows, a plane of `columns` floats for each kind of sum.
class Sums {
public:
    Sums(std::vector<float> planes, Index columns) : planes_(std::move(planes)), columns_(columns) {}

    VectorD plane(Index index) const
    {
        return Eigen::Map<const Vector>(planes_.data() + index * columns_, columns_).cast<double>();
    }
    VectorD pair(Index index) const { return plane(index) + plane(index + 1); }

private:
    std::vector<float> planes_;
    Index columns_;
};

/// Central sums from powers of the distance to a pivot, and the rest as it is.
ColumnStatistics statistics_of(const Sums& sums, const std::vector<std::uint32_t>& counts, std::int64_t rows,
                               Index columns, Index thresholds)
{
    ColumnStatistics result(columns, thresholds);
    const auto n = static_cast<double>(rows);
    const Eigen::ArrayXd first = sums.pair(Powers);
    const Eigen::ArrayXd second = sums.pair(Powers + 2);
    const Eigen::ArrayXd third = sums.pair(Powers + 4);
    const Eigen::ArrayXd fourth = sums.pair(Powers + 6);
    const Eigen::ArrayXd d = first / n;
    result.rows = static_cast<std::uint64_t>(rows);
    result.mean = sums.plane(Pivot) + d.matrix();
    result.m2 = (second - n * d.square()).max(0.0).matrix();
    result.m3 = (third - 3.0 * d * second + 2.0 * n * d.cube()).matrix();
    result.m4 = (fourth - 4.0 * d * third + 6.0 * d.square() * second - 3.0 * n * d.square().square())
                    .max(0.0)
                    .matrix();
    result.minimum = sums.plane(Low);
    result.maximum = sums.plane(High);
    result.sum_abs = sums.pair(Absolute);
    for (Index k = 0; k < thresholds; ++k)
        result.above.row(k) = sums.plane(Above + k).transpose();
    result.zeros = counts[k_zeros];
    std::copy_n(counts.begin() + k_first_bin, k_bins, result.histogram.begin());
    return result;
}

bool all_finite(const ColumnStatistics& sums)
{
    return sums.mean.allFinite() && sums.m2.allFinite() && sums.m3.allFinite() && sums.m4.allFinite()
           && sums.sum_abs.allFinite();
}

} // namespace

class VulkanBackend::Columns final : public ColumnAccumulator {
public:
    Columns(VulkanBackend& backend, const ColumnOptions& options)
        : backend_(backend), options_(options), fixed_(octave_edges()),
          planes_(Above + static_cast<Index>(options.thresholds.size()))
    {
        for (const double threshold : options.thresholds)
            fixed_.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(threshold)));
        for (Side* side : {&apart_, &others_}) {
            side->sums = backend.new_range(bytes(planes_ * options.columns));
            side->counts = backend.new_range(bytes(k_counts));
            side->totals = ColumnStatistics(options.columns, static_cast<Index>(options.thresholds.size()));
            backend.recorder_->clear(side->counts, bytes(k_counts));
        }
    }

    /// Whether the sums of so many columns and a table of so many rows fit a binding.
    static bool fit(const VulkanBackend& backend, const ColumnOptions& options)
    {
        const Index planes = Above + static_cast<Index>(options.thresholds.size());
        return options.columns > 0 && bytes(planes * options.columns) <= backend.binding_limit_
               && bytes(k_counts) <= backend.binding_limit_
               && bytes(options.columns) <= backend.binding_limit_ - k_range_alignment;
    }

    void add(const Buffer& x, std::span<const Index> apart) override
    {
        require(x.cols() == options_.columns && x.precision() == Precision::Float32, "column_accumulator",
                "the columns or the precision differ");
        if (x.empty())
            return;
        const auto most = static_cast<Index>(backend_.binding_limit_ / sizeof(std::uint32_t)
                                             - fixed_.size()); // rows that the table can name
        if (x.rows() > most) {
            add_parts(x, apart, most);
            return;
        }
        const auto named = static_cast<Index>(apart.size());
        for (auto [side, rows] : {std::pair{&apart_, named}, {&others_, x.rows() - named}}) {
            if (side->rows + rows > k_most_rows || (side->rows + rows) * x.cols() > k_most_entries)
                fetch(*side);
        }
        order_rows(x.rows(), apart);
        sum(x, apart_, 0, named);
        sum(x, others_, named, x.rows() - named);
        find_extremes(x);
        rows_ += x.rows();
    }

    std::int64_t first_not_finite() override
    {
        for (const Side* side : {&apart_, &others_}) {
            if (side->rows == 0)
                continue;
            std::uint32_t number = 0;
            backend_.read(side->counts, &number, sizeof(number));
            note_not_finite(number);
        }
        return not_finite_;
    }

    ColumnTotals totals() override
    {
        ColumnTotals totals;
        for (Side* side : {&apart_, &others_})
            fetch(*side);
        add_row_figures(totals);
        totals.apart = apart_.totals;
        totals.others = others_.totals;
        totals.first_not_finite = not_finite_;
        return totals;
    }

private:
    struct Side {
        std::shared_ptr<DeviceRange> sums, counts;
        std::int64_t rows = 0;   ///< in the device's sums
        ColumnStatistics totals; ///< of what was fetched; without the crests
    };
    /// Extremes of the rows of one add().
    struct Extremes {
        std::shared_ptr<DeviceRange> range;
        Index rows = 0;
        std::vector<Index> apart;
    };

    static VkDeviceSize bytes(Index numbers) { return static_cast<VkDeviceSize>(numbers) * sizeof(float); }

    void add_parts(const Buffer& x, std::span<const Index> apart, Index most)
    {
        auto begin = apart.begin();
        for (Index first = 0; first < x.rows(); first += most) {
            const Index count = std::min(most, x.rows() - first);
            const auto end = std::lower_bound(begin, apart.end(), first + count);
            std::vector<Index> named(begin, end);
            for (Index& row : named)
                row -= first;
            add(backend_.rows_of(x, first, count), named);
            begin = end;
        }
    }

    /// The table of the kernel, rows apart first. It is mostly that of the batch before.
    void order_rows(Index rows, std::span<const Index> apart)
    {
        if (table_ && rows == table_rows_
            && std::equal(apart.begin(), apart.end(), apart_rows_.begin(), apart_rows_.end()))
            return;
        order_.assign(apart.begin(), apart.end());
        for (Index row = 0, next = 0; row < rows; ++row) {
            if (next < static_cast<Index>(apart.size()) && apart[static_cast<std::size_t>(next)] == row)
                ++next;
            else
                order_.push_back(row);
        }
        std::vector<std::uint32_t> words = fixed_;
        for (const Index row : order_)
            words.push_back(u32(row));
        table_ = backend_.uploaded(words.data(), words.size() * sizeof(std::uint32_t));
        table_rows_ = rows;
        apart_rows_.assign(apart.begin(), apart.end());
    }

    /// Rows order_[begin, begin + count) of x.
    void sum(const Buffer& x, Side& side, Index begin, Index count)
    {
        const auto first = order_.begin() + begin;
        const auto last = first + count;
        const double flops = 4.0 * k_element_flops * static_cast<double>(x.cols());
        const Index most =
            std::max<Index>(1, k_most_rounds / (8 + static_cast<Index>(options_.thresholds.size())));
        backend_.for_rows(x.rows(), x.cols(), flops, [&](Index row, Index rows) {
            const View part = backend_.rows_view(x, row, rows, Access::Read);
            auto from = std::lower_bound(first, last, row);
            const auto end = std::lower_bound(from, last, row + rows);
            while (from != end) {
                const Index entries = std::min<Index>(most, end - from);
                sum_entries(side, part, row, from - order_.begin(), entries);
                from += entries;
            }
        });
    }

    void sum_entries(Side& side, const View& part, Index first_row, Index first, Index entries)
    {
        struct Push {
            std::uint32_t cols, base_x, thresholds, first_entry, entries, first_row, row_number, fresh;
        };
        const Index columns = options_.columns;
        const Push push{u32(columns),
                        part.base,
                        static_cast<std::uint32_t>(options_.thresholds.size()),
                        u32(static_cast<Index>(fixed_.size()) + first),
                        u32(entries),
                        u32(first_row),
                        static_cast<std::uint32_t>(rows_),
                        side.rows == 0 ? 1U : 0U};
        backend_.run(Kernel::ColumnSums, {backend_.lanes_},
                     {part.binding, whole(table_, Access::Read).binding,
                      whole(side.sums, Access::ReadWrite).binding,
                      whole(side.counts, Access::ReadWrite).binding},
                     push, static_cast<std::uint64_t>((columns + backend_.lanes_ - 1) / backend_.lanes_),
                     4.0 * k_element_flops * static_cast<double>(columns) * static_cast<double>(entries));
        side.rows += entries;
    }

    void find_extremes(const Buffer& x)
    {
        struct Push {
            std::uint32_t rows, cols, base_x, first_row;
        };
        const auto range = backend_.new_range(bytes(2 * x.rows()));
        const double flops = k_element_flops * static_cast<double>(x.cols());
        backend_.for_rows(x.rows(), x.cols(), flops, [&](Index row, Index rows) {
            const View part = backend_.rows_view(x, row, rows, Access::Read);
            backend_.run(Kernel::RowExtremes, {backend_.lanes_},
                         {part.binding, whole(range, Access::Write).binding},
                         Push{u32(rows), u32(x.cols()), part.base, u32(row)},
                         static_cast<std::uint64_t>(rows), flops * static_cast<double>(rows));
        });
        extremes_.push_back({range, x.rows(), apart_rows_});
    }

    void note_not_finite(std::uint32_t inverted)
    {
        if (inverted == 0)
            return;
        const auto number = static_cast<std::int64_t>(~inverted);
        not_finite_ = not_finite_ < 0 ? number : std::min(not_finite_, number);
    }

    /// Merges what the device has summed into the totals; it begins anew.
    void fetch(Side& side)
    {
        if (side.rows == 0)
            return;
        std::vector<float> planes(static_cast<std::size_t>(planes_ * options_.columns));
        std::vector<std::uint32_t> counts(static_cast<std::size_t>(k_counts));
        backend_.read(side.sums, planes.data(), bytes(planes_ * options_.columns));
        backend_.read(side.counts, counts.data(), bytes(k_counts));
        note_not_finite(counts[k_not_finite]);
        const ColumnStatistics sums =
            statistics_of({std::move(planes), options_.columns}, counts, side.rows, options_.columns,
                          static_cast<Index>(options_.thresholds.size()));
        if (not_finite_ < 0 && !all_finite(sums))
            throw BackendFailure({ErrorKind::BadInput,
                                  "an activation is too large for statistics in single precision",
                                  backend_.name(), "Use --backend cpu"});
        side.totals.merge(sums);
        side.rows = 0;
        backend_.recorder_->clear(side.counts, bytes(k_counts));
    }

    void add_row_figures(ColumnTotals& totals)
    {
        const auto columns = static_cast<double>(options_.columns);
        for (const Extremes& part : extremes_) {
            std::vector<std::uint32_t> words(static_cast<std::size_t>(2 * part.rows));
            backend_.read(part.range, words.data(), bytes(2 * part.rows));
            for (Index row = 0; row < part.rows; ++row) {
                const auto largest = std::bit_cast<float>(words[static_cast<std::size_t>(2 * row)]);
                const auto energy = std::bit_cast<float>(words[static_cast<std::size_t>(2 * row + 1)]);
                const double rms = std::sqrt(static_cast<double>(energy) / columns);
                row_maxima_.push_back(largest);
                const double crest = rms > 0.0 ? static_cast<double>(largest) / rms : 0.0;
                const bool is_apart = std::binary_search(part.apart.begin(), part.apart.end(), row);
                ColumnStatistics& side = is_apart ? apart_.totals : others_.totals;
                side.crest_sum += crest;
                side.crest_max = std::max(side.crest_max, crest);
            }
        }
        extremes_.clear();
        if (options_.keep_row_maxima)
            totals.row_maxima = row_maxima_;
    }

    VulkanBackend& backend_;
    ColumnOptions options_;
    std::vector<std::uint32_t> fixed_; ///< of the table
    Index planes_;
    Side apart_, others_;
    std::vector<Extremes> extremes_;
    std::vector<float> row_maxima_;
    std::shared_ptr<DeviceRange> table_;
    Index table_rows_ = 0;
    std::vector<Index> apart_rows_;
    std::vector<Index> order_;
    std::int64_t rows_ = 0;
    std::int64_t not_finite_ = -1;
};

std::unique_ptr<ColumnAccumulator> VulkanBackend::column_accumulator(const ColumnOptions& options)
{
    if (!Columns::fit(*this, options))
        return HostFallbackBackend::column_accumulator(options);
    return std::make_unique<Columns>(*this, options);
}

} // namespace rankscope::gpu
