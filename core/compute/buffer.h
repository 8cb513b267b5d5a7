// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <cstdint>
#include <memory>

namespace rankscope {

enum class Precision : std::uint8_t { Float32, Float64 };

/// What a backend keeps behind a Buffer (host memory, a range of device memory).
class BufferStorage {
public:
    virtual ~BufferStorage() = default;
};

/// A row-major matrix that lives where its backend computes. A handle: copies share the storage; Backend::copy makes
/// a second matrix. Belongs to the backend that made it. A default-constructed one is empty (0 × 0).
class Buffer {
public:
    Buffer() = default;
    Buffer(Index rows, Index cols, Precision precision, std::shared_ptr<BufferStorage> storage)
        : rows_(rows), cols_(cols), precision_(precision), storage_(std::move(storage))
    {
    }

    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    Index size() const { return rows_ * cols_; }
    bool empty() const { return size() == 0; }
    Precision precision() const { return precision_; }
    BufferStorage* storage() const { return storage_.get(); }
    const std::shared_ptr<BufferStorage>& shared_storage() const { return storage_; }

private:
    Index rows_ = 0;
    Index cols_ = 0;
    Precision precision_ = Precision::Float32;
    std::shared_ptr<BufferStorage> storage_;
};

} // namespace rankscope
