// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/calibration/activation_statistics.h"

namespace rankscope::golden {
namespace {

constexpr double k_histogram_tolerance = 0.03; ///< of figures from the histogram, as the case's note says

/// The tokens cut where the case says, fed in one part after the other.
ActivationStatistics streamed(const GoldenCase& golden)
{
    const MatrixD& x = golden.tensor("x");
    ActivationStatistics statistics(x.cols());
    Index first = 0;
    const auto add_until = [&](Index end) {
        if (end > first && end <= x.rows())
            statistics.add(MatrixD(x.middleRows(first, end - first)));
        first = std::max(first, end);
    };
    if (const Json::Array* cuts = golden.parameters()["cuts"].array_if())
        for (const Json& cut : *cuts)
            add_until(cut.integer());
    add_until(x.rows());
    return statistics;
}

/// Scalars that the case gives by threshold or factor: {"6.0": 9}.
template <class Count>
void compare_by_key(const GoldenCase& golden, const std::string& name, Verdict& verdict, const Count& count)
{
    const Json::Object* members = golden.json()["scalars"][name].object_if();
    if (!members)
        return verdict.fail("the case holds no scalars " + name);
    for (const auto& [key, expected] : *members) {
        const auto number = Json::parse(key);
        if (!number || !number->is_number())
            return verdict.fail("the key '" + key + "' of " + name + " is no number");
        verdict.scalar(name, expected.number(), count(number->number()), 0.0);
    }
}

Status check_statistics(const GoldenCase& golden, Backend&, Verdict& verdict)
{
    const ActivationStatistics statistics = streamed(golden);
    const auto row = [](const VectorD& values) { return MatrixD(values.transpose()); };
    const VectorD rms = statistics.rms();
    verdict.tensor("absmax", row(statistics.max_abs()));
    verdict.tensor("rms", row(rms));
    verdict.tensor("mean", row(statistics.mean()));
    verdict.tensor("meanabs", row(statistics.mean_abs()));
    verdict.tensor("diagH", row(rms.cwiseAbs2()));
    verdict.tensor("channel_kurtosis", row(statistics.channel_kurtosis()));
    verdict.scalar("tokens", static_cast<double>(statistics.tokens()));
    verdict.scalar("tensor_kurtosis", statistics.tensor_kurtosis());
    verdict.scalar("topk_energy", statistics.top_energy_share(golden.parameters()["topk"].number()));
    const Json& scalars = golden.json()["scalars"];
    const double median = statistics.quantile_abs(0.5);
    verdict.scalar("median_abs_exact", scalars["median_abs_exact"].number(), median, k_histogram_tolerance);
    verdict.scalar("absmax_over_median", scalars["absmax_over_median"].number(),
                   statistics.max_abs().maxCoeff() / median, k_histogram_tolerance);
    // Only the threshold 6 is counted in the stream; another one would have to be refused.
    const auto at_six = [&](Index value) {
        return [value](double threshold) {
            return threshold == ActivationStatistics::k_outlier_threshold ? static_cast<double>(value) : -1.0;
        };
    };
    compare_by_key(golden, "outlier_channels", verdict, at_six(statistics.outlier_channels()));
    compare_by_key(golden, "outlier_channels_6pct", verdict, at_six(statistics.outlier_channels_in(0.06)));
    compare_by_key(golden, "outliers_k_median", verdict,
                   [&](double factor) { return static_cast<double>(statistics.relative_outliers(factor)); });
    return {};
}

} // namespace

std::vector<Handler> statistics_handlers() { return {{"statistics", {"x"}, check_statistics}}; }

} // namespace rankscope::golden
