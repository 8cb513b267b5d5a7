// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/quantized_activations.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/compute/backend.h"

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace rankscope {

/// Widths of the input groups of one block, by name.
using GroupWidths = std::map<std::string, Index>;

/// What is collected of every input, the same for all blocks of a pass.
struct CollectionPlan {
    Index length = 0; ///< tokens of a window
    ActivationQuantization activations;
    std::vector<double> thresholds;    ///< the first is 6
    std::vector<Index> sampled_tokens; ///< rising, counted over all windows: whose values are kept
};

/// `count` of `total` tokens, or all of them, rising: the same ones for every layer and pass with this seed.
std::vector<Index> sample_tokens(Index total, Index count, std::uint64_t seed);

/// Moments, statistics and sampled tokens of one block's inputs, and the statistics of its output, as they
/// come.
class BlockMoments {
public:
    BlockMoments(int block, const GroupWidths& widths, Index hidden, const CollectionPlan& plan,
                 Backend& backend);

    /// The input of a group, for the windows from `first_window` on. `rows` names x's tokens among those of
    /// these windows; empty: all of them. Errors: BadInput where a value is not finite, naming window and
    /// token.
    Status add(Index first_window, const std::string& group, const Buffer& x, std::span<const Index> rows);
    /// What the block made of these windows. Errors: BadInput where a value is not finite.
    Status add_output(Index first_window, const Buffer& hidden);

    /// The state of one token behind this block.
    using OutputRow = std::function<Eigen::RowVectorXf(Index token)>;
    /// Errors: Io, NoSpace.
    Status write(const std::filesystem::path& file, const OutputRow& output) const;

    /// Bytes that a block with these groups needs at most: the sums, the sampled tokens, and the largest
    /// matrix once more as numbers and as bytes while it is written.
    static std::uint64_t memory_bytes(const GroupWidths& widths, Index hidden, const CollectionPlan& plan);
    /// Size of the file that write() makes, without the header's last kilobytes.
    static std::uint64_t file_bytes(const GroupWidths& widths, Index hidden, const CollectionPlan& plan);

private:
    struct Stream {
        std::unique_ptr<ColumnAccumulator> columns;
        std::vector<Index> tokens; ///< of the kept rows
        std::vector<Matrix> kept;  ///< in the order they came
        std::int64_t rows = 0;     ///< taken in so far
    };
    struct Group {
        CovarianceSums sums;
        Stream stream;
    };

    Stream make_stream(Index columns, bool keep_row_maxima);
    Status take_in(Stream& stream, Index first_window, const std::string& what, const Buffer& x,
                   std::span<const Index> rows);
    void keep_sampled(Stream& stream, Index first_token, const Buffer& x, std::span<const Index> rows);
    Error not_finite(const std::string& what, Index token) const;
    TensorSource moment_source(std::string name, const Buffer& sum, std::uint64_t tokens) const;

    int block_;
    const CollectionPlan& plan_;
    Backend& backend_;
    std::map<std::string, Group> groups_;
    Stream output_;
};

} // namespace rankscope
