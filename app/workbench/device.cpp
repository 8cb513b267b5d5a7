// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/device.h"

#include "app/workbench/jobs/job_monitor.h"
#include "app/workbench/models/number_format.h"
#include "app/workbench/text.h"
#include "gpu/vulkan_backend.h"

namespace rankscope {

namespace {

QString kernelLine(const KernelTime& kernel)
{
    constexpr double k_giga = 1e9;
    QString line =
        QStringLiteral("%1 · %2 % · %3 ms · %4 %5")
            .arg(toQString(kernel.kernel), formatNumber(100.0 * kernel.share, 3),
                 formatNumber(1e3 * kernel.seconds, 3), formatCount(static_cast<qint64>(kernel.calls)),
                 kernel.calls == 1 ? QStringLiteral("call") : QStringLiteral("calls"));
    if (kernel.flops > 0.0)
        line += QStringLiteral(" · %1 GFLOP/s").arg(formatNumber(kernel.flops_per_second() / k_giga, 3));
    else if (kernel.bytes > 0.0)
        line += QStringLiteral(" · %1 GB/s").arg(formatNumber(kernel.bytes_per_second() / k_giga, 3));
    // A line too long for the panel is broken between two figures, never between a figure and its unit.
    return line.replace(QLatin1Char(' '), QChar::Nbsp)
        .replace(QStringLiteral("\u00a0·\u00a0"), QStringLiteral("\u00a0· "));
}

} // namespace

std::shared_ptr<Backend> Device::backend()
{
    const std::lock_guard lock(mutex_);
    if (!backend_) {
        auto opened = open_backend(toStd(choice_));
        if (opened) {
            backend_ = std::move(*opened);
        } else {
            fallback_ = opened.error();
            backend_ = make_cpu_backend();
        }
    }
    return backend_;
}

std::shared_ptr<Backend> Device::cpu()
{
    const std::lock_guard lock(cpu_mutex_);
    if (!cpu_)
        cpu_ = make_cpu_backend();
    return cpu_;
}

std::optional<Error> Device::fallback() const
{
    const std::lock_guard lock(mutex_);
    return fallback_;
}

void Device::giveUp(Error why)
{
    auto cpu_backend = cpu();
    const std::lock_guard lock(mutex_);
    fallback_ = std::move(why);
    backend_ = std::move(cpu_backend);
}

bool Device::isCpu() const
{
    const std::lock_guard lock(mutex_);
    return backend_ && backend_->id().starts_with("cpu");
}

void sayComputedAgain(Device& device, JobMonitor& monitor, const Error& failure)
{
    monitor.warn("The device failed: " + failure.sentence() + " This is computed again on the CPU.");
    if (failure.kind == ErrorKind::NoDevice)
        device.giveUp(failure);
}

KernelWatch::KernelWatch(std::shared_ptr<Backend> backend, JobMonitor& monitor)
    : backend_(std::move(backend)), monitor_(monitor)
{
    try {
        measures_ = measure_kernels(*backend_);
    } catch (const BackendFailure&) { // the job meets it too, and says so
    }
}

KernelWatch::~KernelWatch()
{
    if (!measures_)
        return;
    try {
        const KernelTimes times = kernel_times(*backend_);
        (void)measure_kernels(*backend_, false);
        if (times.kernels.empty())
            return;
        QStringList kernels;
        for (const KernelTime& kernel : times.kernels)
            kernels << kernelLine(kernel);
        monitor_.setDeviceUse(QStringLiteral("Device busy %1 of %2, mostly %3")
                                  .arg(formatElapsed(times.busy_seconds), formatElapsed(times.wall_seconds),
                                       toQString(times.kernels.front().kernel)),
                              kernels);
    } catch (const BackendFailure&) { // a lost device: the job has said what it thinks of that
    }
}

} // namespace rankscope
