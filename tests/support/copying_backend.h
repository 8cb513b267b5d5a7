// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/host_fallback_backend.h"

#include <string>

namespace rankscope::test {

/// A device without a single kernel: float32 buffers lie in memory of its own that only copies reach,
/// everything else is HostFallbackBackend's. What it computes must equal the CPU backend bit for bit.
class CopyingBackend : public HostFallbackBackend {
public:
    std::string name() const override { return "copying device"; }
    std::string id() const override { return "test:copying"; }
    bool supports(Op) const override { return false; }

    Buffer allocate(Index rows, Index cols, Precision precision) override
    {
        if (precision == Precision::Float64)
            return host().allocate(rows, cols, precision);
        return device_buffer(Matrix::Zero(rows, cols));
    }
    Buffer upload(const Eigen::Ref<const Matrix>& matrix) override { return device_buffer(matrix); }
    Buffer upload(const Eigen::Ref<const MatrixD>& matrix) override { return host().upload(matrix); }
    Matrix download(const Buffer& buffer) override
    {
        return buffer.precision() == Precision::Float64 ? host().download(buffer) : memory(buffer);
    }
    MatrixD download_double(const Buffer& buffer) override
    {
        return buffer.precision() == Precision::Float64 ? host().download_double(buffer)
                                                        : MatrixD(memory(buffer).cast<double>());
    }
    Buffer convert(const Buffer& buffer, Precision precision) override
    {
        return precision == Precision::Float64 ? host().upload(download_double(buffer))
                                               : upload(download(buffer));
    }
    Buffer copy(const Buffer& buffer) override { return convert(buffer, buffer.precision()); }

    int assignments() const { return assignments_; }

protected:
    void assign(Buffer& target, const Buffer& host_buffer) override
    {
        ++assignments_;
        memory(target) = host().download(host_buffer);
    }

private:
    struct DeviceStorage final : BufferStorage {
        Matrix matrix;
    };

    static Buffer device_buffer(const Matrix& matrix)
    {
        auto storage = std::make_shared<DeviceStorage>();
        storage->matrix = matrix;
        return {matrix.rows(), matrix.cols(), Precision::Float32, storage};
    }
    static Matrix& memory(const Buffer& buffer)
    {
        return dynamic_cast<DeviceStorage&>(*buffer.storage()).matrix;
    }

    int assignments_ = 0;
};

} // namespace rankscope::test
