// SPDX-License-Identifier: GPL-3.0-or-later
// Choosing a Vulkan device, and what happens on a machine without one.
#include "core/base/log.h"
#include "tests/gpu/vulkan_fixture.h"

#include <QFile>
#include <QProcess>

using namespace rankscope;
using namespace rankscope::test;

class TestVulkanDevices : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { fixture_.start(); }
    void init() { fixture_.skip_without_device(); }
    void cleanupTestCase() { fixture_.finish(); }

    void devices_are_sorted_and_described()
    {
        const auto devices = vulkan_devices();
        QVERIFY(devices.has_value());
        int worst = 0;
        for (std::size_t i = 0; i < devices->size(); ++i) {
            const VulkanDevice& device = (*devices)[i];
            QCOMPARE(device.index, static_cast<int>(i));
            QVERIFY(!device.name.empty() && !device.driver.empty() && !device.api_version.empty());
            QVERIFY(device.usable == device.reason.empty());
            QVERIFY(device.max_storage_range_bytes >= (1U << 27));
            QVERIFY(device.max_workgroup_invocations >= 128 && device.shared_memory_bytes >= 16384);
            QVERIFY(device.memory_bytes > 0);
            const int rank = device.type == DeviceType::Software ? 1 : 0; // software comes last
            QVERIFY(rank >= worst);
            worst = rank;
        }
    }

    void backend_names_itself()
    {
        const auto backend = open_backend("vulkan");
        QVERIFY(backend.has_value());
        QCOMPARE((*backend)->id(), std::string("vulkan:0"));
        QCOMPARE((*backend)->name(), vulkan_devices()->front().name);
        QVERIFY((*backend)->supports(Op::Gemm));
        QVERIFY(!(*backend)->supports(Op::Cholesky));
        QCOMPARE((*open_backend("vulkan:0"))->id(), std::string("vulkan:0"));
        QCOMPARE((*open_backend("vulkan:half"))->id(), std::string("vulkan:0:half"));
        QCOMPARE((*open_backend("vulkan:0:half"))->id(), std::string("vulkan:0:half"));
    }

    void any_machine_knows_the_cpu() { QCOMPARE((*open_backend("cpu"))->id(), std::string("cpu")); }

    void any_machine_auto_takes_hardware_or_cpu()
    {
        const auto backend = open_backend("auto");
        QVERIFY(backend.has_value());
        const auto devices = vulkan_devices();
        bool hardware = false;
        if (devices) {
            for (const VulkanDevice& device : *devices)
                hardware |=
                    device.usable && device.type != DeviceType::Software && device.type != DeviceType::Other;
        }
        QCOMPARE((*backend)->id() == "cpu", !hardware);
    }

    void any_machine_refuses_other_texts_data()
    {
        QTest::addColumn<QString>("choice");
        for (const char* choice :
             {"", "gpu", "CPU", "vulkan:", "vulkan:-1", "vulkan:x", "vulkan:0x", "cpu:half", ":half", "vulkan::half", "vulkan:99999999999"})
            QTest::newRow(qPrintable(QStringLiteral("'%1'").arg(choice))) << QString(choice);
    }
    void any_machine_refuses_other_texts()
    {
        QFETCH(QString, choice);
        const auto backend = open_backend(choice.toStdString());
        QVERIFY(!backend.has_value());
        QCOMPARE(backend.error().kind, ErrorKind::Usage);
        QVERIFY(!backend.error().remedy.empty());
    }

    void any_machine_has_no_device_99()
    {
        const auto backend = open_backend("vulkan:99");
        QVERIFY(!backend.has_value());
        QCOMPARE(backend.error().kind, ErrorKind::NoDevice);
        QVERIFY(!backend.error().message.empty() && !backend.error().remedy.empty());
    }

    /// The body of the next test's child processes: a machine without Vulkan.
    void any_machine_child_without_vulkan()
    {
        if (!qEnvironmentVariableIsSet("RANKSCOPE_TEST_NO_VULKAN"))
            QSKIP("run by any_machine_computes_without_vulkan");
        const auto devices = vulkan_devices();
        QVERIFY(!devices.has_value());
        QCOMPARE(devices.error().kind, ErrorKind::NoDevice);
        QVERIFY2(devices.error().message.find(qgetenv("RANKSCOPE_TEST_NO_VULKAN").toStdString())
                     != std::string::npos,
                 devices.error().message.c_str());
        QVERIFY(!devices.error().remedy.empty());
        QCOMPARE(open_backend("vulkan").error().kind, ErrorKind::NoDevice);
        QCOMPARE(open_backend("vulkan:0").error().kind, ErrorKind::NoDevice);
        for (int round = 0; round < 2; ++round)
            QCOMPARE((*open_backend("auto"))->id(), std::string("cpu"));
        int said = 0;
        for (const std::string& line : log::recent(100))
            said += line.find("No Vulkan device: computing on CPU") != std::string::npos ? 1 : 0;
        QCOMPARE(said, 1);
    }
    void any_machine_computes_without_vulkan_data()
    {
        QTest::addColumn<QString>("missing");
        QTest::newRow("no driver") << "driver";
        QTest::newRow("no loader") << "loader";
    }
    void any_machine_computes_without_vulkan()
    {
        QFETCH(QString, missing);
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        environment.insert("RANKSCOPE_TEST_NO_VULKAN", missing);
        QTemporaryDir broken;
        if (missing == "driver") {
            environment.insert("VK_ICD_FILENAMES", "/nonexistent");
            environment.insert("VK_DRIVER_FILES", "/nonexistent");
        } else { // empty libraries stand before the real ones: loading them fails as if there were none
            for (const char* name : {"libvulkan.so.1", "libvulkan.so"}) {
                QFile library(broken.filePath(name));
                QVERIFY(library.open(QIODevice::WriteOnly));
            }
            environment.insert("LD_LIBRARY_PATH", broken.path());
        }
        QProcess child;
        child.setProcessEnvironment(environment);
        child.setProcessChannelMode(QProcess::MergedChannels);
        child.start(QCoreApplication::applicationFilePath(), {"any_machine_child_without_vulkan"});
        QVERIFY(child.waitForFinished(60'000));
        const QByteArray output = child.readAll();
        QVERIFY2(child.exitStatus() == QProcess::NormalExit && child.exitCode() == 0, output.constData());
        QVERIFY2(!output.contains("SKIP"), output.constData());
    }

private:
    VulkanFixture fixture_;
};

QTEST_GUILESS_MAIN(TestVulkanDevices)
#include "test_vulkan_devices.moc"
