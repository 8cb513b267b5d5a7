// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <Eigen/Core>

namespace rankscope {

using Index = Eigen::Index;

/// Row-major, as checkpoints store weights: rows = outputs, columns = inputs.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXf;
using VectorD = Eigen::VectorXd;
using IndexVector = Eigen::Matrix<Index, Eigen::Dynamic, 1>;
/// Integer codes of a quantised matrix, zero point already subtracted (value = scale · code).
using CodeMatrix = Eigen::Matrix<std::int16_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

} // namespace rankscope
