// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/qlr_layer.h"
#include "core/export/exporter.h"
#include "core/quantize/quantized_matrix.h"

#include <QString>
#include <QTemporaryDir>

#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope::test {

/// "success", or the error's sentence.
QString text_of(const Status& status);
/// A tensor's bytes; none when it is missing.
std::vector<std::byte> bytes_of(const CheckpointReader& reader, const std::string& tensor);
/// Flips the lowest bit of the first byte of a tensor in a file.
Status flip_bit(const std::filesystem::path& file, const std::string& tensor);
/// Codes, scales and zero points of a uniform grid.
QuantizedMatrix random_codes(Index rows, Index cols, int bits, Index group, bool symmetric);
/// The weight that the reader of hf-qlr exports makes of a packed layer.
Result<Matrix> read_back(const PackedLayer& packed, const std::string& layer);
/// Writes `folder` and checks what was written; the error of whichever fails.
Status write_and_check(const Exporter& exporter, const Run& run, const Model& model,
                       const std::filesystem::path& folder);
/// A test row for each registered exporter, in the column "format".
void add_format_rows();

using Given = std::map<std::string, ParameterValue, std::less<>>;
/// A run by a method that needs no calibration, with settings as --set takes them. Fails the process with a
/// message.
std::shared_ptr<const Run> quick_run(const std::shared_ptr<const Model>& model,
                                     const std::filesystem::path& folder, std::string_view method,
                                     const Given& given, const std::vector<std::string>& settings = {});

/// Runs of the sample by svd_residual, all layers of rank 4, made when first asked for.
class SampleRuns {
public:
    SampleRuns();
    const std::shared_ptr<const Model>& model() const { return model_; }
    std::shared_ptr<const Run> ragged(); ///< 3 bits in groups of 64, the last of 172 inputs is shorter
    std::shared_ptr<const Run> by_row(); ///< 8 bits, symmetric, a scale for each row
    /// The first of them that the exporter accepts; null when it takes none.
    std::shared_ptr<const Run> fit_for(const Exporter& exporter);

private:
    std::shared_ptr<const Run> made(const char* name, const Given& given);

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;
    std::map<std::string, std::shared_ptr<const Run>> runs_;
};

/// What clients are asked to go on with.
inline constexpr std::array k_prompts = {"Once upon a time", "The little dog ran to the",
                                         "Tom said: look at"};

struct PromptLogits {
    std::vector<TokenId> ids;  ///< of the prompt, with what the tokenizer puts in front
    Eigen::RowVectorXf logits; ///< of the token that would follow
};
/// Of every prompt, as the model says with these weights.
Result<std::vector<PromptLogits>> prompt_logits(const Model& model, const WeightSource& weights,
                                                Backend& backend);
/// Largest difference as a share of the spread (largest minus smallest) of `expected`; infinite where there
/// are not as many.
double logit_distance(const Json& values, const Eigen::RowVectorXf& expected);

} // namespace rankscope::test
