// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/attention_check.h"

namespace rankscope {

const char* attention_misfit(const Buffer& q, const Buffer& k, const Buffer& v, const AttentionShape& shape)
{
    if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.head_dim <= 0 || shape.sequence_length <= 0)
        return "the shape has an empty dimension";
    if (shape.heads % shape.kv_heads != 0)
        return "kv heads do not divide the heads";
    if (q.cols() != shape.heads * shape.head_dim)
        return "queries have another width than the heads";
    if (k.cols() != shape.kv_heads * shape.head_dim || v.cols() != k.cols())
        return "keys or values have another width than the kv heads";
    if (k.rows() != q.rows() || v.rows() != q.rows() || q.rows() % shape.sequence_length != 0)
        return "tokens are not whole sequences";
    if (k.precision() != q.precision() || v.precision() != q.precision())
        return "precisions differ";
    return nullptr;
}

} // namespace rankscope
