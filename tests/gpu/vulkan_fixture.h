// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/vulkan_backend.h"

#include <QTemporaryDir>
#include <QTest>

#include <dlfcn.h>

#include <functional>
#include <memory>

namespace rankscope::test {

/// What the tests of the Vulkan backend share: a cache folder of their own, a skip where there is no device,
/// and no message of the validation layers at the end.
class VulkanFixture {
public:
    void start()
    {
        // Kept loaded, so that the leak check can name what the layer itself leaks (tests/support/lsan.supp).
        (void)dlopen("libVkLayer_khronos_validation.so", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
        QVERIFY(cache_.isValid());
        use_own_cache();
        const auto devices = vulkan_devices();
        has_device_ = devices && !devices->empty() && devices->front().usable;
        cpu_ = make_cpu_backend();
    }
    /// Before each test; those whose name starts with any_machine need no device.
    void skip_without_device() const
    {
        if (!has_device_ && !QByteArray(QTest::currentTestFunction()).startsWith("any_machine"))
            QSKIP("no Vulkan device here: install mesa-vulkan-drivers to run these tests");
    }
    /// The devices of all tests are destroyed by now.
    void finish() const
    {
        QStringList messages;
        for (const std::string& message : validation_messages())
            messages << QString::fromStdString(message);
        QVERIFY2(messages.isEmpty(), qPrintable(messages.join('\n')));
    }
    void use_own_cache() const { qputenv("XDG_CACHE_HOME", cache_.path().toUtf8()); }
    Backend& cpu() { return *cpu_; }

private:
    QTemporaryDir cache_;
    bool has_device_ = false;
    std::unique_ptr<Backend> cpu_;
};

/// Device 0. The slow test of CTest sets the variable: kernels then check what they read and write.
inline std::unique_ptr<Backend> open(VulkanOptions options)
{
    options.gpu_assisted = options.validation && qEnvironmentVariableIsSet("RANKSCOPE_TEST_GPU_ASSISTED");
    auto backend = make_vulkan_backend(0, options);
    if (!backend)
        qFatal("%s", backend.error().sentence().c_str());
    return std::move(*backend);
}

inline ErrorKind failure_kind(const std::function<void()>& operation)
{
    try {
        operation();
    } catch (const BackendFailure& failure) {
        return failure.error().kind;
    }
    return ErrorKind::Usage; // no backend fails that way
}

} // namespace rankscope::test
