// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <memory>
#include <mutex>
#include <vector>

namespace rankscope::detail {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// cos and sin of every position and pair of a rotary embedding, in the precision of the activations.
template <class T>
struct RotationTable {
    RowMajor<T> cosine; ///< positions × pairs
    RowMajor<T> sine;
};

/// Keeps the table that was asked for last: a pass needs the same one for every batch. Thread-safe.
class RotationTables {
public:
    template <class T>
    std::shared_ptr<const RotationTable<T>> of(const RopeShape& shape);

private:
    template <class T>
    struct Last {
        std::vector<double> inverse_frequency;
        double attention_factor = 1.0;
        std::shared_ptr<const RotationTable<T>> table;
    };

    std::mutex mutex_;
    Last<float> single_;
    Last<double> twice_;
};

} // namespace rankscope::detail
