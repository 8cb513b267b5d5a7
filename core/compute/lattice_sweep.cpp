// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/lattice_sweep.h"

namespace rankscope {

const char* broken_contract(const Buffer& w, const LatticeSweep& sweep)
{
    const std::span<const Index> starts = sweep.starts;
    if (w.precision() != Precision::Float32 || sweep.feedback.precision() != Precision::Float32)
        return "weights and feedback matrix are float32";
    if (sweep.feedback.rows() != w.cols() || sweep.feedback.cols() != w.cols())
        return "the feedback matrix has another size than the rows";
    if (starts.empty() || starts.front() != 0 || starts.back() != w.cols())
        return "the blocks do not cover the columns";
    int narrow = 0;
    for (std::size_t block = 0; block + 1 < starts.size(); ++block) {
        const Index width = starts[block + 1] - starts[block];
        if (width <= 0 || width > k_lattice_width)
            return "a block has one to eight columns";
        narrow += width < k_lattice_width ? 1 : 0;
    }
    if (narrow > 1)
        return "only one block may be short";
    if (sweep.diagonal.size() + 1 != starts.size() || !(sweep.scale > 0.0F)
        || (sweep.bits != 2 && sweep.bits != 4))
        return "a lattice has 2 or 4 bits, a scale and a diagonal block for each group";
    return nullptr;
}

const char* broken_contract(const Buffer& w, const LatticeBuffers& start, const LatticeDescent& descent)
{
    const Index groups = (w.cols() + k_lattice_width - 1) / k_lattice_width;
    if (start.values.rows() != w.rows() || start.values.cols() != w.cols() || start.codes.rows() != w.rows()
        || start.codes.cols() != groups * lattice_stages(descent.bits))
        return "what is to be tuned has another shape";
    if (descent.hessian.rows() != w.cols() || descent.hessian.cols() != w.cols())
        return "the Hessian has another size than the rows";
    return descent.scale > 0.0F ? nullptr : "a lattice has a scale";
}

} // namespace rankscope
