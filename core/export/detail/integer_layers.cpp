// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/integer_layers.h"

#include "core/compute/grid_levels.h"
#include "core/export/detail/bit_packing.h"
#include "core/export/detail/stored_floats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope::export_common {
namespace {

Status check_fit(const QuantizedMatrix& q, const LinearLayer& layer)
{
    const Index groups = q.grid.groups(q.codes.cols());
    const bool scales_fit = q.scales.rows() == q.codes.rows() && q.scales.cols() == groups;
    const bool zeros_fit = q.grid.symmetric || (q.zeros.rows() == q.codes.rows() && q.zeros.cols() == groups);
    if (q.codes.rows() != layer.out || q.codes.cols() != layer.in || !scales_fit || !zeros_fit
        || q.grid.bits < 1 || q.grid.bits > 8 || !q.scales.allFinite())
        return bad_input("codes, scales and zero points do not fit the layer, or a scale is not finite",
                         layer.name, "Compute the layer again");
    return {};
}

/// The least of `widths` that holds `bits`; the widest where none does, which check_fit rules out.
int width_for(int bits, std::span<const int> widths)
{
    const auto found = std::find_if(widths.begin(), widths.end(), [&](int width) { return width >= bits; });
    return found == widths.end() ? widths.back() : *found;
}

/// Narrows the scheme's groups so that none crosses a border of this layer's.
class CommonGroup {
public:
    void add(Index width, Index in)
    {
        by_row_ = by_row_ && width == in;
        common_ = std::gcd(std::gcd(common_, width), in);
    }
    Result<Index> width(const std::string& format) const
    {
        if (by_row_)
            return Index{0};
        if (common_ >= k_least_group)
            return common_;
        return usage_error(format
                               + " has one group width for all layers, which divides their inputs; the "
                                 "largest that fits this plan is "
                               + std::to_string(common_),
                           {},
                           "Plan groups that divide the inputs of all layers, or group 0 (one scale a row)");
    }

private:
    bool by_row_ = true;
    Index common_ = 0;
};

} // namespace

Status check_integer(const Decomposition& decomposition, const LinearLayer& layer, const std::string& format)
{
    std::string reason;
    if (decomposition.quantized.codebook != Codebook::Uniform)
        reason = format + " holds steps of a uniform grid, this layer's codes are points of a lattice";
    else if (decomposition.quantized.grid.levels == GridLevels::NormalFloat)
        reason = format + " holds steps of a uniform grid, this layer's codes are NormalFloat levels";
    else if (has_minimum(decomposition.quantized.grid))
        reason = format
                 + " holds steps of a uniform grid with whole zero points, this layer's codes are those of "
                   "a K type, which gguf holds";
    else if (!decomposition.transform.empty())
        reason = format + " has no rotation of activations, this layer is stored in a rotated basis";
    else if (layer.transposed)
        reason = "the layer is a Conv1D in transformers, and " + format + " replaces linear modules only";
    else if (layer.expert >= 0)
        reason = "transformers keeps the experts of a block in one module, which " + format
                 + " cannot hold one by one";
    if (reason.empty())
        return {};
    return usage_error(reason, layer.name, "Export as peft or hf, which hold dense weights");
}

Result<IntegerLayers> find_integer_layers(const ExportJob& job, std::span<const int> widths,
                                          const std::string& format)
{
    IntegerLayers found;
    found.scheme.bits = widths.front();
    CommonGroup group;
    const auto layers = replaced_layers(job.run, job.model);
    ExportProgress progress(job.monitor, layers.size());
    for (const LinearLayer* layer : layers) {
        progress.step("laying out " + layer->name);
        auto decomposition = job.run.decomposition(layer->name);
        if (!decomposition)
            return decomposition.error();
        if (auto fits = check_integer(*decomposition, *layer, format); !fits)
            return fits.error();
        const QuantizedMatrix& q = decomposition->quantized;
        if (q.empty()) {
            found.empty.push_back(layer);
            continue;
        }
        if (auto fits = check_fit(q, *layer); !fits)
            return fits.error();
        found.scheme.bits = std::max(found.scheme.bits, width_for(q.grid.bits, widths));
        found.scheme.symmetric = found.scheme.symmetric && q.grid.symmetric;
        group.add(q.grid.group_width(layer->in), layer->in);
        found.scale_types[layer->name] = scale_type(q.scales);
        found.packed.push_back(layer);
    }
    if (found.packed.empty())
        return usage_error("no layer of this run has codes to pack", job.run.path().string(),
                           "Export as peft or hf");
    auto width = group.width(format);
    if (!width)
        return width.error();
    found.scheme.group = *width;
    return found;
}

Result<IntegerLayer> on_scheme(const QuantizedMatrix& q, const IntegerScheme& scheme)
{
    const Index rows = q.codes.rows();
    const Index cols = q.codes.cols();
    const Index own_width = q.grid.group_width(cols);
    const Index width = scheme.group_width(cols);
    const Index groups = scheme.groups(cols);
    const int highest = (1 << scheme.bits) - 1;
    IntegerLayer layer;
    layer.scales.resize(rows, groups);
    layer.codes.reserve(static_cast<std::size_t>(rows * cols));
    for (Index row = 0; row < rows; ++row) {
        for (Index group = 0; group < groups; ++group) {
            const Index own = group * width / own_width;
            layer.scales(row, group) = q.scales(row, own);
            const long zero = q.grid.symmetric ? scheme.middle() : std::lrintf(q.zeros(row, own));
            if (zero < 0 || zero > highest)
                return bad_input("a zero point is outside its grid", {}, "Compute the layer again");
            layer.zeros.push_back(static_cast<std::uint16_t>(zero));
            for (Index col = group * width; col < (group + 1) * width; ++col) {
                const long code = q.codes(row, col) + zero;
                if (code < 0 || code > highest)
                    return bad_input("the code at row " + std::to_string(row) + ", column "
                                         + std::to_string(col) + " is outside its grid",
                                     {}, "Compute the layer again");
                layer.codes.push_back(static_cast<std::uint16_t>(code));
            }
        }
    }
    return layer;
}

IntegerTensors::IntegerTensors(const Run& run, const IntegerScheme& scheme)
    : scheme_(scheme), cache_(run), kept_(std::make_shared<Kept>())
{}

TensorSource IntegerTensors::source(const LinearLayer& layer, const char* suffix, DType dtype, Shape shape,
                                    Make make) const
{
    const auto fill = [scheme = scheme_, cache = cache_, kept = kept_, name = layer.name,
                       make = std::move(make)]() -> Result<std::vector<std::byte>> {
        if (kept->name != name) {
            auto decomposition = cache.get(name);
            if (!decomposition)
                return decomposition.error();
            auto integers = on_scheme((*decomposition)->quantized, scheme);
            if (!integers)
                return integers.error().in(name);
            kept->layer = std::move(*integers);
            kept->name = name;
        }
        return make(kept->layer);
    };
    return {layer.name + suffix, dtype, std::move(shape), fill};
}

std::vector<std::uint16_t> transposed(const std::vector<std::uint16_t>& values, Index rows, Index cols)
{
    std::vector<std::uint16_t> result(values.size());
    for (Index row = 0; row < rows; ++row) {
        for (Index col = 0; col < cols; ++col)
            result[static_cast<std::size_t>(col * rows + row)] =
                values[static_cast<std::size_t>(row * cols + col)];
    }
    return result;
}

std::uint64_t integer_bytes(const Run& run, const Model& model, std::span<const int> widths)
{
    constexpr std::uint64_t k_headers = 2048; // four tensors in the file and in the index
    int bits = widths.front();
    Index narrowest = 0;
    for (const LayerResult& result : run.results()) {
        const Index group = result.parameters["group"].integer();
        bits = std::max(bits, width_for(static_cast<int>(result.parameters["bits"].integer(4)), widths));
        narrowest = group > 0 && (narrowest == 0 || group < narrowest) ? group : narrowest;
    }
    std::uint64_t bytes = 0;
    for (const LinearLayer* layer : replaced_layers(run, model)) {
        const Index groups = narrowest > 0 ? (layer->in + narrowest - 1) / narrowest : 1;
        bytes += k_headers + 4 * static_cast<std::uint64_t>(layer->out * packed_words(layer->in, bits))
                 + 4 * static_cast<std::uint64_t>(layer->out * groups); // a scale and a zero point
    }
    return bytes;
}

} // namespace rankscope::export_common
