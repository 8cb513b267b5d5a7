// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"
#include "core/compute/detail/micro_kernel.h"

#include <algorithm>
#include <memory>
#include <new>

namespace rankscope::detail {

/// Uninitialized memory that begins at a cache line.
template <class T>
class AlignedArray {
public:
    AlignedArray() = default;
    explicit AlignedArray(Index size)
        : memory_(static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), k_line)))
    {}

    T* data() { return memory_.get(); }
    const T* data() const { return memory_.get(); }

private:
    static constexpr std::align_val_t k_line{64};
    struct Free {
        void operator()(T* memory) const { ::operator delete(memory, k_line); }
    };
    std::unique_ptr<T[], Free> memory_;
};

/// The right factor of products, steps × cols: panels of k_panel_cols columns one after the other, each a
/// contiguous steps × k_panel_cols with zeros beyond the last column.
template <class Term>
class Panels {
public:
    Panels() = default;
    Panels(Index steps, Index cols) : steps_(steps), cols_(cols), terms_(count() * steps * k_panel_cols) {}

    Index steps() const { return steps_; }
    Index cols() const { return cols_; }
    Index count() const { return (cols_ + k_panel_cols - 1) / k_panel_cols; }
    /// Columns of panel i that are not filling.
    Index cols_of(Index i) const { return std::min(k_panel_cols, cols_ - i * k_panel_cols); }
    Term* panel(Index i) { return terms_.data() + i * steps_ * k_panel_cols; }
    const Term* panel(Index i) const { return terms_.data() + i * steps_ * k_panel_cols; }

private:
    Index steps_ = 0;
    Index cols_ = 0;
    AlignedArray<Term> terms_;
};

/// A left factor where it lies: element (r, k) at data[r · row + k · step], or, where `tile` is not 0, in
/// tiles of k_tile_rows rows: at data[r / k_tile_rows · tile + r % k_tile_rows · row + k · step].
template <class Term>
struct LeftFactor {
    const Term* data = nullptr;
    Index row = 0;
    Index step = 1;
    Index rows = 0;
    Index tile = 0;
};

/// c = alpha · a · b + beta · c on the thread pool, in tiles of fixed size; every element is a sum in the
/// order of the steps, cut only at fixed places.
void multiply_panels(const LeftFactor<float>& a, const Panels<float>& b, float alpha, float beta, float* c,
                     Index c_row);
void multiply_panels(const LeftFactor<BfloatPair>& a, const Panels<BfloatPair>& b, float alpha, float beta,
                     float* c, Index c_row);

/// c = alpha · xᵀ·x + beta · c, c n × n for the n columns of x; exactly symmetric. 256 terms are summed in
/// float32, their sums in float64.
template <class Term, class T>
void gram_panels(double alpha, const Panels<Term>& x, double beta, T* c);

/// The right factor whose column j is what `decode` writes for row j: `cols` of them, `terms` numbers each.
/// Term says whether they stay float32 or become pairs of bfloat16.
template <class Term>
Panels<Term> panels_of_columns(Index cols, Index terms, const RowDecoder& decode);
/// The right factor with the elements of a row-major matrix, terms × cols.
template <class Term>
Panels<Term> panels_of_rows(const float* x, Index terms, Index cols);

/// The left factor xᵀ of a row-major x, terms × rows, in `tiles`, which must live as long as it is used.
LeftFactor<float> turned_factor(const float* x, Index terms, Index rows, AlignedArray<float>& tiles);

/// Rounds to nearest even, two to a pair; an odd last one is paired with zero. NaN stays NaN.
void to_bfloat_pairs(const float* x, Index count, BfloatPair* pairs);
constexpr Index pairs_of(Index count) { return (count + 1) / 2; }

} // namespace rankscope::detail
