// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/exporter.h"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// What the exporters share.
namespace rankscope::export_common {

/// The run is complete and was made from this very checkpoint, which still has its layers.
Status check_complete(const Run& run, const Model& model);
/// The same, and nothing but weights was changed: what every format with weights asks for. Refused: rotated
/// models, layers whose activations were rounded.
Status check_weights_alone(const Run& run, const Model& model);
/// The same, and the checkpoint is one of Hugging Face's whose layers are float tensors: what every folder
/// for transformers asks for.
Status check_exportable(const Run& run, const Model& model);

/// Whether any layer of the run has L·R. Errors: those of Run::decomposition.
Result<bool> has_factors(const Run& run);
/// For formats with an adapter: Usage error where it would be empty, naming the format to take instead.
Status require_factors(const Run& run, const std::string& instead);

/// The layers that the run replaced, in its order; check_complete has seen that the model has them.
std::vector<const LinearLayer*> replaced_layers(const Run& run, const Model& model);
std::set<std::string> replaced_weights(const Run& run, const Model& model); ///< names of their tensors

/// Reads decompositions and keeps the last one, because a layer's tensors are asked for in a row. Copies
/// share what they keep; one thread at a time.
class LayerCache {
public:
    explicit LayerCache(const Run& run) : run_(&run), kept_(std::make_shared<Kept>()) {}
    /// Valid until the next call.
    Result<const Decomposition*> get(const std::string& layer) const;

private:
    struct Kept {
        std::string name;
        Decomposition decomposition;
    };
    const Run* run_;
    std::shared_ptr<Kept> kept_;
};

/// The folder that holds the checkpoint's config.json and tokenizer.
std::filesystem::path model_folder(const Model& model);
/// Configuration, tokenizer, chat template and licence files that stand beside the checkpoint, by name.
std::vector<std::string> companion_files(const Model& model);
std::uint64_t companion_bytes(const Model& model);
/// Copies them. A config.json with `additions` at its top takes the place of the original's.
Status copy_companions(const Model& model, const std::filesystem::path& folder,
                       const Json& config_additions = {});
/// Every companion in `folder` has the bytes of the original, or is what copy_companions makes of it.
Status check_companions(const Model& model, const std::filesystem::path& folder,
                        const Json& config_additions = {});

/// A tensor's bytes as they stand in the checkpoint.
Result<std::vector<std::byte>> original_bytes(const Model& model, const std::string& tensor);

/// Q in the basis of the weight: out × in, zero where the layer keeps L·R alone.
Matrix base_weight(const Decomposition& decomposition, const LinearLayer& layer);
/// L and R in the basis of the weight.
LowRank weight_factors(const Decomposition& decomposition);

/// A layer's weight in `dtype`, laid out as the checkpoint stores it. Errors: BadInput (another shape than
/// the checkpoint's, or a value beyond the dtype).
Result<std::vector<std::byte>> dense_bytes(const Matrix& weight, const LinearLayer& layer, DType dtype);

/// What of a layer is stored dense.
enum class DensePart : std::uint8_t {
    Whole, ///< Q + L·R
    Base,  ///< Q
};
/// The tensor of a layer's weight under its own name, with its own type and shape.
TensorSource dense_source(const LayerCache& cache, const Model& model, const LinearLayer& layer,
                          DensePart part);

/// The tensor `name` of `reader` has this type, shape and content. Errors: BadInput naming it.
Status compare_tensor(const CheckpointReader& reader, const std::string& name, DType dtype,
                      const Shape& shape, const std::vector<std::byte>& bytes);

/// What was done, layer by layer: plan row, bits and errors; with the run's origin.
Json describe_run(const Run& run, const Model& model, std::string_view format);
/// Puts the members of `additions` into `target`; objects in objects are merged.
void merge(Json& target, const Json& additions);

} // namespace rankscope::export_common
