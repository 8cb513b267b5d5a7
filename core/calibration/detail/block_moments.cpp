// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/detail/block_moments.h"

#include "core/base/random.h"
#include "core/calibration/activation_statistics.h"
#include "core/calibration/detail/calibration_format.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace calibration_format;

template <class T>
std::vector<std::byte> to_bytes(const T* data, std::size_t count)
{
    std::vector<std::byte> bytes(count * sizeof(T));
    if (!bytes.empty())
        std::memcpy(bytes.data(), data, bytes.size());
    return bytes;
}

TensorSource vector_source(std::string name, const VectorD& values)
{
    return tensor_source(std::move(name), DType::F64, {values.size()},
                         to_bytes(values.data(), static_cast<std::size_t>(values.size())));
}

TensorSource counts_source(std::string name, const std::vector<std::int64_t>& values)
{
    return tensor_source(std::move(name), DType::I64, {static_cast<std::int64_t>(values.size())},
                         to_bytes(values.data(), values.size()));
}

void add_statistics(const std::string& name, const ColumnStatistics& sums,
                    const std::vector<double>& thresholds, std::vector<TensorSource>& sources)
{
    const MatrixD rows = ActivationStatistics(sums, thresholds).to_rows();
    sources.push_back(tensor_source(name + k_statistics, Eigen::Ref<const MatrixD>(rows)));
    sources.push_back(counts_source(name + k_histogram, {sums.histogram.begin(), sums.histogram.end()}));
    sources.push_back(counts_source(
        name + k_counts, {static_cast<std::int64_t>(sums.rows), static_cast<std::int64_t>(sums.zeros)}));
    sources.push_back(
        vector_source(name + k_crest, (VectorD(2) << sums.crest_sum, sums.crest_max).finished()));
}

/// All tokens, first tokens, later ones. Returns the sums of all.
ColumnStatistics add_totals(const std::string& name, const ColumnTotals& totals,
                            const std::vector<double>& thresholds, std::vector<TensorSource>& sources)
{
    ColumnStatistics all = totals.apart;
    all.merge(totals.others);
    add_statistics(name, all, thresholds, sources);
    add_statistics(name + k_first, totals.apart, thresholds, sources);
    add_statistics(name + k_later, totals.others, thresholds, sources);
    return all;
}

void add_sample(const std::string& name, Index columns, const std::vector<Index>& tokens,
                const std::vector<Matrix>& parts, std::vector<TensorSource>& sources)
{
    if (tokens.empty()) // an expert that none of them reached
        return;
    constexpr float k_largest_half = 65504.0F; // beyond it a value is kept as this
    Matrix values(static_cast<Index>(tokens.size()), columns);
    Index row = 0;
    for (const Matrix& part : parts) {
        values.middleRows(row, part.rows()) = part.cwiseMin(k_largest_half).cwiseMax(-k_largest_half);
        row += part.rows();
    }
    sources.push_back(tensor_source(name + k_sample, values, DType::F16));
    sources.push_back(counts_source(name + k_sample_tokens, {tokens.begin(), tokens.end()}));
}

struct Entry {
    double value = 0.0;
    Index token = 0;
    Index channel = 0;
};

/// The largest entries by magnitude, found in the tokens whose largest entry is largest: no other holds one
/// of them.
std::vector<Entry> strongest_entries(const std::vector<float>& row_maxima,
                                     const BlockMoments::OutputRow& output)
{
    const std::size_t count = std::min<std::size_t>(k_strongest, row_maxima.size());
    std::vector<Index> order(row_maxima.size());
    std::iota(order.begin(), order.end(), Index{0});
    const auto stronger = [&](Index a, Index b) {
        const float left = row_maxima[static_cast<std::size_t>(a)];
        const float right = row_maxima[static_cast<std::size_t>(b)];
        return left != right ? left > right : a < b;
    };
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                      stronger);
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < count; ++i) {
        const Eigen::RowVectorXf row = output(order[i]);
        std::vector<Index> channels(static_cast<std::size_t>(row.size()));
        std::iota(channels.begin(), channels.end(), Index{0});
        const std::size_t kept = std::min<std::size_t>(k_strongest, channels.size());
        std::partial_sort(channels.begin(), channels.begin() + static_cast<std::ptrdiff_t>(kept),
                          channels.end(), [&](Index a, Index b) {
                              return std::abs(row[a]) != std::abs(row[b])
                                         ? std::abs(row[a]) > std::abs(row[b])
                                         : a < b;
                          });
        for (std::size_t k = 0; k < kept; ++k)
            entries.push_back({static_cast<double>(row[channels[k]]), order[i], channels[k]});
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return std::abs(a.value) > std::abs(b.value); });
    entries.resize(std::min<std::size_t>(entries.size(), k_strongest));
    return entries;
}

TensorSource strongest_source(const std::vector<Entry>& entries, Index length)
{
    MatrixD rows(static_cast<Index>(entries.size()), 4);
    for (Index i = 0; i < rows.rows(); ++i) {
        const Entry& entry = entries[static_cast<std::size_t>(i)];
        rows.row(i) << entry.value, static_cast<double>(entry.token / length),
            static_cast<double>(entry.token % length), static_cast<double>(entry.channel);
    }
    return tensor_source(std::string(k_output) + k_strongest_entries, rows);
}

} // namespace

std::vector<Index> sample_tokens(Index total, Index count, std::uint64_t seed)
{
    // Floyd's way to draw without repetition; which token comes when follows from the seed alone.
    const RandomStream random(seed, "sampled tokens");
    std::set<Index> chosen;
    for (Index last = std::max<Index>(0, total - count); last < total; ++last) {
        const auto drawn = static_cast<Index>(
            random.below(static_cast<std::uint64_t>(last), static_cast<std::uint64_t>(last) + 1));
        chosen.insert(chosen.contains(drawn) ? last : drawn);
    }
    return {chosen.begin(), chosen.end()};
}

BlockMoments::BlockMoments(int block, const GroupWidths& widths, Index hidden, const CollectionPlan& plan,
                           Backend& backend)
    : block_(block), plan_(plan), backend_(backend), output_(make_stream(hidden, true))
{
    for (const auto& [name, width] : widths)
        groups_[name] = {CovarianceSums(width, plan.activations.active(), backend),
                         make_stream(width, false)};
}

BlockMoments::Stream BlockMoments::make_stream(Index columns, bool keep_row_maxima)
{
    Stream stream;
    stream.columns = backend_.column_accumulator({columns, plan_.thresholds, keep_row_maxima});
    return stream;
}

Status BlockMoments::add(Index first_window, const std::string& group, const Buffer& x,
                         std::span<const Index> rows)
{
    const auto found = groups_.find(group);
    if (found == groups_.end())
        return internal_error("the forward pass names an input group that the model does not list", group);
    if (auto taken = take_in(found->second.stream, first_window, "input of " + group, x, rows); !taken)
        return taken;
    found->second.sums.add(
        x, plan_.activations.active() ? quantized_activations(x, plan_.activations, backend_) : Buffer{},
        backend_);
    return {};
}

Status BlockMoments::add_output(Index first_window, const Buffer& hidden)
{
    return take_in(output_, first_window, "its output", hidden, {});
}

Status BlockMoments::take_in(Stream& stream, Index first_window, const std::string& what, const Buffer& x,
                             std::span<const Index> rows)
{
    const auto token_of = [&](Index row) { return rows.empty() ? row : rows[static_cast<std::size_t>(row)]; };
    std::vector<Index> first_tokens;
    if (rows.empty()) {
        for (Index row = 0; row < x.rows(); row += plan_.length)
            first_tokens.push_back(row);
    } else {
        for (Index row = 0; row < x.rows(); ++row) {
            if (token_of(row) % plan_.length == 0)
                first_tokens.push_back(row);
        }
    }
    stream.columns->add(x, first_tokens);
    const std::int64_t bad = stream.columns->first_not_finite();
    if (bad >= 0)
        return not_finite(what,
                          first_window * plan_.length + token_of(static_cast<Index>(bad - stream.rows)));
    stream.rows += x.rows();
    keep_sampled(stream, first_window * plan_.length, x, rows);
    return {};
}

void BlockMoments::keep_sampled(Stream& stream, Index first_token, const Buffer& x,
                                std::span<const Index> rows)
{
    const std::vector<Index>& sampled = plan_.sampled_tokens;
    std::vector<Index> wanted;
    if (rows.empty()) {
        const auto begin = std::lower_bound(sampled.begin(), sampled.end(), first_token);
        const auto end = std::lower_bound(begin, sampled.end(), first_token + x.rows());
        for (auto token = begin; token != end; ++token) {
            wanted.push_back(*token - first_token);
            stream.tokens.push_back(*token);
        }
    } else {
        for (Index row = 0; row < x.rows(); ++row) {
            const Index token = first_token + rows[static_cast<std::size_t>(row)];
            if (!std::binary_search(sampled.begin(), sampled.end(), token))
                continue;
            wanted.push_back(row);
            stream.tokens.push_back(token);
        }
    }
    if (!wanted.empty())
        stream.kept.push_back(backend_.download(backend_.gather_rows(x, wanted)));
}

Error BlockMoments::not_finite(const std::string& what, Index token) const
{
    return bad_input(
        "an activation is not finite in block " + std::to_string(block_) + ", " + what + ", window "
            + std::to_string(token / plan_.length) + ", token " + std::to_string(token % plan_.length),
        {}, "The model overflows on this text: check its weights, or calibrate with another text");
}

/// The matrix leaves the device only when its turn to be written comes.
TensorSource BlockMoments::moment_source(std::string name, const Buffer& sum, std::uint64_t tokens) const
{
    // An expert that no token reached has 0; reading its moments says so.
    const auto divisor = static_cast<double>(std::max<std::uint64_t>(1, tokens));
    return {std::move(name),
            DType::F64,
            {sum.rows(), sum.cols()},
            [sum, divisor, &backend = backend_]() -> Result<std::vector<std::byte>> {
                MatrixD moment = backend.download_double(sum);
                moment /= divisor;
                return to_bytes(moment.data(), static_cast<std::size_t>(moment.size()));
            }};
}

Status BlockMoments::write(const fs::path& file, const OutputRow& output) const
{
    std::vector<TensorSource> sources;
    for (const auto& [name, group] : groups_) {
        const ColumnStatistics all =
            add_totals(name, group.stream.columns->totals(), plan_.thresholds, sources);
        const ActivationStatistics statistics(all, plan_.thresholds);
        sources.push_back(moment_source(name + k_hessian, group.sums.xx(), all.rows));
        if (group.sums.has_second()) {
            sources.push_back(moment_source(name + k_sigma_xy, group.sums.xy(), all.rows));
            sources.push_back(moment_source(name + k_sigma_yy, group.sums.yy(), all.rows));
        }
        sources.push_back(vector_source(name + k_mean_abs, statistics.mean_abs()));
        sources.push_back(vector_source(name + k_max_abs, statistics.max_abs()));
        add_sample(name, statistics.channels(), group.stream.tokens, group.stream.kept, sources);
    }
    const ColumnTotals totals = output_.columns->totals();
    const ColumnStatistics all = add_totals(k_output, totals, plan_.thresholds, sources);
    add_sample(k_output, all.columns(), output_.tokens, output_.kept, sources);
    sources.push_back(strongest_source(strongest_entries(totals.row_maxima, output), plan_.length));
    return write_safetensors(file, std::move(sources), {{"format", k_format}}, true);
}

std::uint64_t BlockMoments::memory_bytes(const GroupWidths& widths, Index hidden, const CollectionPlan& plan)
{
    const std::uint64_t matrices = plan.activations.active() ? 3 : 1;
    const auto sampled = [&](Index width) {
        return plan.sampled_tokens.size() * static_cast<std::uint64_t>(width) * 8;
    };
    std::uint64_t sum = sampled(hidden);
    std::uint64_t largest = 0;
    for (const auto& [group, width] : widths) {
        const auto bytes =
            static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(width) * sizeof(double);
        sum += matrices * bytes + sampled(width);
        largest = std::max(largest, bytes);
    }
    return sum + 2 * largest;
}

std::uint64_t BlockMoments::file_bytes(const GroupWidths& widths, Index hidden, const CollectionPlan& plan)
{
    constexpr std::uint64_t k_fixed = 64 * 1024; // header, histograms, counts
    const std::uint64_t rows =
        3 * (static_cast<std::uint64_t>(ActivationStatistics::k_fixed_rows) + plan.thresholds.size()) + 2;
    const auto vectors = [&](Index width) {
        const auto n = static_cast<std::uint64_t>(width);
        return n * (rows * sizeof(double) + plan.sampled_tokens.size() * sizeof(std::uint16_t)) + k_fixed;
    };
    const std::uint64_t matrices = plan.activations.active() ? 3 : 1;
    std::uint64_t bytes = vectors(hidden);
    for (const auto& [group, width] : widths) {
        const auto n = static_cast<std::uint64_t>(width);
        bytes += matrices * n * n * sizeof(double) + vectors(width);
    }
    return bytes;
}

} // namespace rankscope
