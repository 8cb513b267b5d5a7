// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <QString>

#include <memory>
#include <mutex>
#include <optional>

namespace rankscope {

class JobMonitor;

/// The compute device of the window: made by the first job that needs it, never on the GUI thread, since a
/// Vulkan context takes up to half a second. Thread-safe.
class Device {
public:
    /// `choice`: auto, cpu, cpu:bf16, vulkan, vulkan:INDEX.
    explicit Device(QString choice) : choice_(std::move(choice)) {}

    /// The chosen device. A choice that cannot be had is replaced by the CPU; fallback() then says why.
    std::shared_ptr<Backend> backend();
    /// The CPU, for pictures: these must not wait behind a run's device work.
    std::shared_ptr<Backend> cpu();
    std::optional<Error> fallback() const;

private:
    QString choice_;
    mutable std::mutex mutex_;
    std::mutex cpu_mutex_; ///< its own: a picture must not wait while the device is being opened
    std::shared_ptr<Backend> backend_;
    std::shared_ptr<Backend> cpu_;
    std::optional<Error> fallback_;
};

/// Times the kernels of a job on a Vulkan device, from its making to its end; then the job's monitor has what they
/// took. Nothing on the CPU. One at a time: the jobs of the work lane.
class KernelWatch {
public:
    KernelWatch(std::shared_ptr<Backend> backend, JobMonitor& monitor);
    ~KernelWatch();
    KernelWatch(const KernelWatch&) = delete;
    KernelWatch& operator=(const KernelWatch&) = delete;

    Backend& backend() { return *backend_; }

private:
    std::shared_ptr<Backend> backend_;
    JobMonitor& monitor_;
    bool measures_ = false;
};

} // namespace rankscope
