// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/linalg/weighted_low_rank.h"

namespace rankscope::golden {
namespace {

Status check_hadamard(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Json::Array* sizes = golden.parameters()["sizes"].array_if();
    if (!sizes)
        return bad_input("the case lists no sizes");
    for (const Json& size : *sizes) {
        const std::string n = std::to_string(size.integer());
        if (!golden.has("x" + n))
            return bad_input("the case holds no tensor x" + n);
        Buffer x = backend.upload(golden.single("x" + n));
        backend.hadamard(x, Transpose::No);
        verdict.tensor("y" + n, backend.download(x));
    }
    return {};
}

/// T·diag(signs)·xᵀ for every row x.
Matrix rotate_rows(const Matrix& x, const MatrixD& signs, Backend& backend)
{
    Buffer rows = backend.upload(x);
    backend.scale_columns(rows, VectorD(signs.transpose()));
    backend.hadamard(rows, Transpose::No);
    return backend.download(rows);
}

/// The same on both sides.
Matrix rotate(const Matrix& x, const MatrixD& left, const MatrixD& right, Backend& backend)
{
    return rotate_rows(rotate_rows(x, right, backend).transpose(), left, backend).transpose();
}

Status check_rht(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const MatrixD& left = golden.tensor("signs_left");
    const MatrixD& right = golden.tensor("signs_right");
    const Matrix weight = rotate(golden.single("W"), left, right, backend);
    const Matrix hessian = rotate(golden.single("H"), right, right, backend);
    verdict.tensor("W_rotated", weight);
    verdict.tensor("H_rotated", hessian);
    verdict.scalar("objective",
                   weighted_squared_norm(backend.upload(weight),
                                         backend.upload(MatrixD(hessian.cast<double>())), backend));
    return {};
}

} // namespace

std::vector<Handler> transform_handlers()
{
    return {{"hadamard", {}, check_hadamard}, {"rht", {"W", "H", "signs_left", "signs_right"}, check_rht}};
}

} // namespace rankscope::golden
