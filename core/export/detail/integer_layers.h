// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/export_common.h"
#include "core/export/detail/folder_exporter.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// Integer weights for formats in which all layers share one grid: w = scale · (code − zero point), with one
/// scale for each row and group of consecutive inputs.
namespace rankscope::export_common {

/// The grid of a whole checkpoint.
struct IntegerScheme {
    int bits = 4;
    Index group = 0; ///< width that divides every layer's inputs; 0: a row has one scale
    bool symmetric = true;

    Index group_width(Index in) const { return group > 0 ? group : in; }
    Index groups(Index in) const { return in / group_width(in); }
    int middle() const { return 1 << (bits - 1); } ///< zero point of a symmetric grid
    std::int64_t reported_group() const { return group > 0 ? group : -1; }
};

/// A layer on that grid, unsigned.
struct IntegerLayer {
    std::vector<std::uint16_t> codes; ///< out × in
    std::vector<std::uint16_t> zeros; ///< out × groups
    Matrix scales;                    ///< out × groups
};

/// What a pass over the run finds.
struct IntegerLayers {
    IntegerScheme scheme;
    std::vector<const LinearLayer*> packed; ///< layers with codes, in the run's order
    std::vector<const LinearLayer*> empty;  ///< layers that keep L·R alone
    std::map<std::string, DType> scale_types;
};

/// Why this layer cannot be stored as integers with scales in a weight-only format of transformers' (lattice
/// codes, rotation, Conv1D, experts), or success.
Status check_integer(const Decomposition& decomposition, const LinearLayer& layer, const std::string& format);

/// The one grid that holds all layers of the run exactly: as many bits as the widest needs, out of `widths`
/// (rising), groups that divide all groups, zero points as soon as one layer has them. Errors: Usage where
/// the groups have no common width of at least k_least_group.
inline constexpr Index k_least_group = 16;
Result<IntegerLayers> find_integer_layers(const ExportJob& job, std::span<const int> widths,
                                          const std::string& format);

/// Errors: BadInput (codes, scales and zero points that do not fit together).
Result<IntegerLayer> on_scheme(const QuantizedMatrix& q, const IntegerScheme& scheme);

/// Makes tensors from layers on the scheme. Keeps the last layer, because its tensors are asked for in a row;
/// copies share it.
class IntegerTensors {
public:
    using Make = std::function<std::vector<std::byte>(const IntegerLayer&)>;

    IntegerTensors(const Run& run, const IntegerScheme& scheme);
    const IntegerScheme& scheme() const { return scheme_; }
    /// The tensor layer + suffix, whose bytes `make` takes from the layer's integers.
    TensorSource source(const LinearLayer& layer, const char* suffix, DType dtype, Shape shape,
                        Make make) const;

private:
    struct Kept {
        std::string name;
        IntegerLayer layer;
    };

    IntegerScheme scheme_;
    LayerCache cache_;
    std::shared_ptr<Kept> kept_;
};

/// values (rows × cols) with rows and columns exchanged.
std::vector<std::uint16_t> transposed(const std::vector<std::uint16_t>& values, Index rows, Index cols);

/// Estimate of the packed layers' bytes, from their plan rows.
std::uint64_t integer_bytes(const Run& run, const Model& model, std::span<const int> widths);

} // namespace rankscope::export_common
