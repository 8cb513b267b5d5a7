// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/token_activations.h"

#include "core/calibration/massive_activation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

constexpr std::size_t k_listed = 24;
constexpr std::string_view k_word_start = "\xE2\x96\x81";  // ▁ of SentencePiece
constexpr std::string_view k_replacement = "\xEF\xBF\xBD"; // what decoding makes of bytes that are not UTF-8

double median_magnitude(const Matrix& values)
{
    if (values.size() == 0)
        return 0.0;
    std::vector<float> magnitudes(static_cast<std::size_t>(values.size()));
    std::transform(values.data(), values.data() + values.size(), magnitudes.begin(),
                   [](float value) { return std::isfinite(value) ? std::abs(value) : 0.0F; });
    const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
    std::nth_element(magnitudes.begin(), middle, magnitudes.end());
    return *middle;
}

/// The largest |x| of each row, falling.
std::vector<TokenEntry> row_peaks(const Matrix& values)
{
    std::vector<TokenEntry> peaks;
    for (Index row = 0; row < values.rows(); ++row) {
        TokenEntry peak{row, 0, 0.0};
        for (Index channel = 0; channel < values.cols(); ++channel) {
            const double value = values(row, channel);
            if (std::isfinite(value) && std::abs(value) > std::abs(peak.value))
                peak = {row, channel, value};
        }
        peaks.push_back(peak);
    }
    std::stable_sort(peaks.begin(), peaks.end(), [](const TokenEntry& a, const TokenEntry& b) {
        return std::abs(a.value) > std::abs(b.value);
    });
    return peaks;
}

std::vector<TokenEntry> massive_entries(const Matrix& hidden)
{
    const double median = median_magnitude(hidden);
    std::vector<TokenEntry> found;
    for (Index row = 0; row < hidden.rows(); ++row)
        for (Index channel = 0; channel < hidden.cols(); ++channel)
            if (is_massive(static_cast<double>(hidden(row, channel)), median))
                found.push_back({row, channel, static_cast<double>(hidden(row, channel))});
    std::stable_sort(found.begin(), found.end(), [](const TokenEntry& a, const TokenEntry& b) {
        return std::abs(a.value) > std::abs(b.value);
    });
    if (found.size() > k_listed)
        found.resize(k_listed);
    return found;
}

} // namespace

Result<TokenStretch> token_stretch(const Model& model, const std::filesystem::path& text, Index length,
                                   Index window)
{
    const auto checked = window_length(model, length);
    if (!checked)
        return checked.error();
    auto read = tokenize_file(model, text);
    if (!read)
        return read.error();
    const auto available = static_cast<Index>(read->tokens.size());
    const Index content = std::max<Index>(1, *checked - static_cast<Index>(read->prefix.size()));
    TokenStretch stretch{read->file, read->hash, available, window * content, read->prefix};
    if (window < 0 || stretch.first >= available)
        return usage_error("There is no stretch " + std::to_string(window) + ": the text has "
                               + std::to_string(available) + " tokens, " + std::to_string(content)
                               + " a stretch",
                           read->file);
    const auto begin = read->tokens.begin() + stretch.first;
    stretch.tokens.insert(stretch.tokens.end(), begin, begin + std::min(content, available - stretch.first));
    return stretch;
}

std::string readable_token(const Tokenizer& tokenizer, TokenId id)
{
    std::string stored = tokenizer.token_text(id);
    if (stored.find(k_word_start) != std::string::npos) { // decoding one token alone would drop the space
        for (auto at = stored.find(k_word_start); at != std::string::npos; at = stored.find(k_word_start))
            stored.replace(at, k_word_start.size(), " ");
        return stored;
    }
    std::string decoded = tokenizer.decode(std::span(&id, 1));
    return decoded.empty() || decoded.find(k_replacement) != std::string::npos ? stored : decoded;
}

Result<TokenActivations> token_activations(const Model& model, const WeightSource& weights,
                                           const LinearLayer& layer, TokenStretch stretch, Backend& backend,
                                           Monitor& monitor)
{
    if (const Status runs = model.architecture().runs(); !runs)
        return runs.error();
    const auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    const auto length = static_cast<Index>(stretch.tokens.size());
    auto hidden = embed(model, stretch.tokens, length, backend);
    if (!hidden)
        return hidden.error();
    TokenActivations result;
    const InputObserver observer = [&](const std::string& group, const Buffer& x,
                                       std::span<const Index> rows) {
        if (group != layer.input_group)
            return;
        result.values = backend.download(x);
        result.positions.assign(rows.begin(), rows.end());
    };
    for (int block = 0; block <= layer.block; ++block) {
        monitor.throw_if_cancelled();
        monitor.report(static_cast<std::uint64_t>(block), static_cast<std::uint64_t>(layer.block) + 1,
                       "block");
        const auto loaded = TransformerBlock::load(model, weights, block, backend);
        if (!loaded)
            return loaded.error();
        monitor.throw_if_cancelled();
        loaded->forward(*hidden, length, backend, block == layer.block ? observer : InputObserver{});
    }
    if (result.positions.empty() && result.values.rows() == length) {
        result.positions.resize(static_cast<std::size_t>(length));
        std::iota(result.positions.begin(), result.positions.end(), Index{0});
    }
    for (const Index position : result.positions)
        result.texts.push_back(
            readable_token(**tokenizer, stretch.tokens[static_cast<std::size_t>(position)]));
    result.strongest = row_peaks(result.values);
    if (result.strongest.size() > k_listed)
        result.strongest.resize(k_listed);
    result.median_abs = median_magnitude(result.values);
    result.massive = massive_entries(backend.download(*hidden));
    result.stretch = std::move(stretch);
    return result;
}

} // namespace rankscope
