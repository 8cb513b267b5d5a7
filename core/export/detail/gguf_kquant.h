// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/quantize/quantized_matrix.h"
#include "core/tensor/block_format.h"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace rankscope {

/// The K type whose blocks hold q bit for bit, scales and minima included. None: another codebook, inputs
/// that are not whole blocks of 256, or scales that are not multiples of a step as fit_kquant() makes them.
std::optional<BlockFormat> kquant_block(const QuantizedMatrix& q);

/// The blocks of a matrix for which kquant_block() names a format, row r of them made from row row_order[r]
/// of q (empty: as they are).
std::vector<std::byte> encode_kquant(const QuantizedMatrix& q, std::span<const Index> row_order = {});

} // namespace rankscope
