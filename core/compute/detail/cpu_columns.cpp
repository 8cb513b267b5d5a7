// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"

namespace rankscope::detail {
namespace {

class CpuColumnAccumulator final : public ColumnAccumulator {
public:
    explicit CpuColumnAccumulator(const ColumnOptions& options) : options_(options)
    {
        const auto thresholds = static_cast<Index>(options.thresholds.size());
        totals_.apart = totals_.others = ColumnStatistics(options.columns, thresholds);
    }

    void add(const Buffer& x, std::span<const Index> apart) override
    {
        require(x.cols() == options_.columns, "column_accumulator", "the columns differ");
        with_elements(x, [&](const auto& rows) { add_rows(rows, apart, options_, rows_, totals_); });
        rows_ += x.rows();
    }
    std::int64_t first_not_finite() override { return totals_.first_not_finite; }
    ColumnTotals totals() override { return totals_; }

private:
    ColumnOptions options_;
    ColumnTotals totals_;
    std::int64_t rows_ = 0;
};

} // namespace

std::unique_ptr<ColumnAccumulator> CpuBackend::column_accumulator(const ColumnOptions& options)
{
    return std::make_unique<CpuColumnAccumulator>(options);
}

} // namespace rankscope::detail
