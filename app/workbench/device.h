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
    bool isCpu() const;
    /// The device was lost while a job was on it: from now on it is the CPU, and fallback() says why.
    void giveUp(Error why);

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

/// Warns that the job is computed on the CPU after all, and gives a lost device up.
void sayComputedAgain(Device& device, JobMonitor& monitor, const Error& failure);

/// `work(backend)` on the window's device, its kernels timed; again on the CPU where the device fails. For what can be
/// computed twice.
template <class Work>
auto computeOn(Device& device, JobMonitor& monitor, const Work& work) -> decltype(work(*device.cpu()))
{
    std::optional<Error> failure;
    try {
        KernelWatch watch(device.backend(), monitor);
        auto done = work(watch.backend());
        if (done || done.error().kind != ErrorKind::NoDevice || device.isCpu())
            return done;
        failure = done.error();
    } catch (const BackendFailure& problem) {
        if (device.isCpu())
            throw;
        failure = problem.error();
    }
    sayComputedAgain(device, monitor, *failure);
    return work(*device.cpu());
}

} // namespace rankscope
