// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"

#include <fmt/format.h>

#include <limits>

namespace rankscope::detail {

void contract_broken(const char* operation, const std::string& what)
{
    throw BackendFailure(internal_error(what, std::string("CPU backend, ") + operation));
}

void require(bool fine, const char* operation, const char* what)
{
    if (!fine)
        contract_broken(operation, what);
}

CpuStorage& cpu_storage(const Buffer& buffer)
{
    auto* storage = dynamic_cast<CpuStorage*>(buffer.storage());
    if (storage == nullptr)
        contract_broken("memory", "a buffer is empty or belongs to another backend");
    return *storage;
}

int blas_int(Index value)
{
    if (value < 0 || value > std::numeric_limits<int>::max())
        contract_broken("BLAS", fmt::format("dimension {} does not fit in 32 bits", value));
    return static_cast<int>(value);
}

Buffer make_buffer(Matrix matrix)
{
    const Index rows = matrix.rows();
    const Index cols = matrix.cols();
    return {rows, cols, Precision::Float32, std::make_shared<CpuStorage>(std::move(matrix))};
}

Buffer make_buffer(MatrixD matrix)
{
    const Index rows = matrix.rows();
    const Index cols = matrix.cols();
    return {rows, cols, Precision::Float64, std::make_shared<CpuStorage>(std::move(matrix))};
}

MatrixD double_copy(const Buffer& buffer)
{
    if (buffer.storage() == nullptr && buffer.empty())
        return MatrixD(buffer.rows(), buffer.cols());
    return with_elements(buffer, [](const auto& matrix) { return MatrixD(matrix.template cast<double>()); });
}

Matrix single_copy(const Buffer& buffer)
{
    if (buffer.storage() == nullptr && buffer.empty())
        return Matrix(buffer.rows(), buffer.cols());
    return with_elements(buffer, [](const auto& matrix) { return Matrix(matrix.template cast<float>()); });
}

CpuBackend::CpuBackend(Factors factors) : factors_(factors)
{
    thread_count(); // makes the pool, and with it BLAS single-threaded
}

std::string CpuBackend::name() const
{
    const int threads = thread_count();
    return fmt::format("CPU ({} thread{}{})", threads, threads == 1 ? "" : "s",
                       factors_ == Factors::Bfloat16 ? ", bfloat16 products" : "");
}

Buffer CpuBackend::allocate(Index rows, Index cols, Precision precision)
{
    require(rows >= 0 && cols >= 0, "allocate", "a dimension is negative");
    if (precision == Precision::Float32)
        return make_buffer(Matrix(Matrix::Zero(rows, cols)));
    return make_buffer(MatrixD(MatrixD::Zero(rows, cols)));
}

Buffer CpuBackend::upload(const Eigen::Ref<const Matrix>& matrix) { return make_buffer(Matrix(matrix)); }

Buffer CpuBackend::upload(const Eigen::Ref<const MatrixD>& matrix) { return make_buffer(MatrixD(matrix)); }

Matrix CpuBackend::download(const Buffer& buffer) { return single_copy(buffer); }

MatrixD CpuBackend::download_double(const Buffer& buffer) { return double_copy(buffer); }

const Matrix* CpuBackend::host_matrix(const Buffer& buffer) const
{
    const auto* storage = dynamic_cast<const CpuStorage*>(buffer.storage());
    return storage != nullptr && buffer.precision() == Precision::Float32 ? &storage->single : nullptr;
}

Buffer CpuBackend::convert(const Buffer& buffer, Precision precision)
{
    return precision == Precision::Float32 ? make_buffer(single_copy(buffer))
                                           : make_buffer(double_copy(buffer));
}

Buffer CpuBackend::copy(const Buffer& buffer) { return convert(buffer, buffer.precision()); }

Buffer CpuBackend::rows_of(const Buffer& buffer, Index first, Index count)
{
    require(first >= 0 && count >= 0 && count <= buffer.rows() - first, "rows_of", "rows outside the matrix");
    return with_elements(buffer, [&](const auto& matrix) {
        using Owned = std::remove_cvref_t<decltype(matrix)>;
        return make_buffer(Owned(matrix.middleRows(first, count)));
    });
}

namespace {

void require_indices(std::span<const Index> indices, Index bound, const char* operation)
{
    for (const Index index : indices)
        require(index >= 0 && index < bound, operation, "an index lies outside the matrix");
}

} // namespace

Buffer CpuBackend::gather_columns(const Buffer& buffer, std::span<const Index> columns)
{
    require_indices(columns, buffer.cols(), "gather_columns");
    return with_elements(buffer, [&](const auto& matrix) {
        using Owned = std::remove_cvref_t<decltype(matrix)>;
        Owned out(matrix.rows(), static_cast<Index>(columns.size()));
        for (Index i = 0; i < out.rows(); ++i) {
            for (Index j = 0; j < out.cols(); ++j)
                out(i, j) = matrix(i, columns[static_cast<std::size_t>(j)]);
        }
        return make_buffer(std::move(out));
    });
}

Buffer CpuBackend::gather_rows(const Buffer& buffer, std::span<const Index> rows)
{
    require_indices(rows, buffer.rows(), "gather_rows");
    return with_elements(buffer, [&](const auto& matrix) {
        using Owned = std::remove_cvref_t<decltype(matrix)>;
        Owned out(static_cast<Index>(rows.size()), matrix.cols());
        for (Index i = 0; i < out.rows(); ++i)
            out.row(i) = matrix.row(rows[static_cast<std::size_t>(i)]);
        return make_buffer(std::move(out));
    });
}

Buffer CpuBackend::transposed(const Buffer& buffer)
{
    return with_elements(buffer, [](const auto& matrix) {
        using Owned = std::remove_cvref_t<decltype(matrix)>;
        return make_buffer(Owned(matrix.transpose()));
    });
}

} // namespace rankscope::detail
