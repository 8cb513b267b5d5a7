// SPDX-License-Identifier: GPL-3.0-or-later
// The Vulkan backend against the CPU one, with validation layers and synchronization validation on. CTest
// runs the same program at several vector widths of the software driver, because a kernel may depend on none.
#include "gpu/vulkan_backend.h"

#include "core/base/log.h"
#include "core/model/model.h"
#include "gpu/self_test_cases.h"
#include "tests/support/numbers.h"
#include "tests/support/test_paths.h"

#include <QDir>
#include <QFile>
#include <QProcess>
#include <QTemporaryDir>
#include <QTest>

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <thread>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr char k_no_device[] = "no Vulkan device here: install mesa-vulkan-drivers to run these tests";

/// What a test is run on; every one of them must give the same numbers.
struct Variant {
    const char* name;
    VulkanOptions options;
};

const Variant k_variants[] = {
    {"mapped", {.validation = true}},
    {"staged", {.validation = true, .force_staging = true}},
    {"tiled", {.validation = true, .binding_limit_bytes = 70'000}},
};

/// The slow test of CTest sets this: kernels then check what they read and write.
bool gpu_assisted() { return qEnvironmentVariableIsSet("RANKSCOPE_TEST_GPU_ASSISTED"); }

std::unique_ptr<Backend> open(VulkanOptions options)
{
    options.gpu_assisted = options.validation && gpu_assisted();
    auto backend = make_vulkan_backend(0, options);
    if (!backend)
        qFatal("%s", backend.error().sentence().c_str());
    return std::move(*backend);
}

ErrorKind failure_kind(const std::function<void()>& operation)
{
    try {
        operation();
    } catch (const BackendFailure& failure) {
        return failure.error().kind;
    }
    return ErrorKind::Usage; // no backend fails that way
}

std::size_t resident_kilobytes()
{
    QFile status("/proc/self/status");
    if (!status.open(QIODevice::ReadOnly))
        return 0;
    for (const QByteArray& line : status.readAll().split('\n')) {
        if (line.startsWith("VmRSS:"))
            return line.mid(6).trimmed().split(' ').first().toULongLong();
    }
    return 0;
}

qsizetype thread_total()
{
    return QDir("/proc/self/task").entryList(QDir::Dirs | QDir::NoDotAndDotDot).size();
}

} // namespace

class TestVulkanBackend : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase()
    {
        // Kept loaded, so that the leak check can name what the layer itself leaks (tests/support/lsan.supp).
        (void)dlopen("libVkLayer_khronos_validation.so", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
        QVERIFY(cache_.isValid());
        qputenv("XDG_CACHE_HOME", cache_.path().toUtf8());
        const auto devices = vulkan_devices();
        has_device_ = devices && !devices->empty() && devices->front().usable;
        cpu_ = make_cpu_backend();
    }

    void init()
    {
        const QByteArray test = QTest::currentTestFunction();
        if (!has_device_ && !test.startsWith("any_machine"))
            QSKIP(k_no_device);
    }

    void cleanupTestCase()
    {
        QStringList messages; // the devices of all tests are destroyed by now
        for (const std::string& message : validation_messages())
            messages << QString::fromStdString(message);
        QVERIFY2(messages.isEmpty(), qPrintable(messages.join('\n')));
    }

    // Choosing a device -------------------------------------------------------------------------------------
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
             {"", "gpu", "CPU", "vulkan:", "vulkan:-1", "vulkan:x", "vulkan:0x", "vulkan:99999999999"})
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

    // Numbers -----------------------------------------------------------------------------------------------
    void operations_match_the_cpu_data()
    {
        QTest::addColumn<int>("variant");
        for (int i = 0; i < static_cast<int>(std::size(k_variants)); ++i)
            QTest::newRow(k_variants[i].name) << i;
    }
    void operations_match_the_cpu()
    {
        QFETCH(int, variant);
        const auto backend = open(k_variants[variant].options);
        // Matrices beyond a binding are for the slow test; `tiled` binds little of all of them.
        const bool large = variant == 0 && qEnvironmentVariableIsSet("RANKSCOPE_TEST_LARGE");
        const auto rows = self_test(*backend, large);
        QVERIFY2(rows.has_value(), rows ? "" : rows.error().sentence().c_str());
        QVERIFY(rows->size() > 100);
        for (const SelfTestRow& row : *rows)
            QVERIFY2(row.passed, qPrintable(QStringLiteral("%1: error %2, allowed %3")
                                                .arg(QString::fromStdString(row.operation))
                                                .arg(row.error)
                                                .arg(row.tolerance)));
    }

    void products_match_the_cpu_in_every_tiling_data()
    {
        QTest::addColumn<QString>("tiling");
        for (const std::string& name : product_tilings())
            QTest::newRow(name.c_str()) << QString::fromStdString(name);
    }
    void products_match_the_cpu_in_every_tiling()
    {
        QFETCH(QString, tiling);
        const auto backend = open({.validation = true, .binding_limit_bytes = 70'000, .tiling = tiling.toStdString()});
        if (product_tiling(*backend) != tiling.toStdString())
            QSKIP("too large for this device");
        int checked = 0;
        for (const gpu::SelfTestCase& item : gpu::self_test_cases()) {
            if (!item.name.starts_with("gemm") && !item.name.starts_with("gram"))
                continue;
            ++checked;
            const double error = item.error(*backend, *cpu_);
            QVERIFY2(error <= item.tolerance, qPrintable(QString::fromStdString(item.name)));
        }
        QVERIFY(checked > 30);
    }

    void the_fastest_tiling_is_kept_for_the_driver()
    {
        QTemporaryDir folder;
        qputenv("XDG_CACHE_HOME", folder.path().toUtf8());
        const auto files = [&] {
            return QDir(folder.filePath("rankscope")).entryInfoList({"tiling-*.json"}, QDir::Files);
        };
        std::string chosen;
        {
            const auto backend = open({.validation = true});
            const std::string before = product_tiling(*backend);
            const auto rates = tune_products(*backend);
            QVERIFY2(rates.has_value(), rates ? "" : rates.error().sentence().c_str());
            QVERIFY(rates->size() >= 2);
            const auto fastest = std::ranges::max_element(*rates, {}, &TilingRate::flops_per_second);
            QVERIFY(fastest->chosen && fastest->flops_per_second > 0.0 && fastest->share_of_peak > 0.0);
            QCOMPARE(std::ranges::count_if(*rates, &TilingRate::chosen), std::ptrdiff_t{1});
            chosen = fastest->tiling;
            QCOMPARE(product_tiling(*backend), chosen);
            QCOMPARE(files().size(), 1);
        }
        QCOMPARE(product_tiling(*open({})), chosen);
        QFile file(files().first().filePath());
        QVERIFY(file.open(QIODevice::ReadWrite));
        const QByteArray whole = file.readAll();
        const std::vector<std::string> names = product_tilings();
        const std::string other = names[0] != chosen ? names[0] : names[2];
        const auto with = [&](const QByteArray& content) {
            file.resize(0);
            file.seek(0);
            file.write(content);
            file.flush();
            return product_tiling(*open({}));
        };
        QCOMPARE(with(QByteArray(whole).replace(chosen.c_str(), other.c_str())), other); // it is what is read
        const std::string plain = with("{}");
        for (const char* broken : {"", "{\"gemm\": 7}", "{\"gemm\": \"1x1\"}", "\xff\xfe"})
            QCOMPARE(with(broken), plain);
        QCOMPARE(tune_products(*cpu_).error().kind, ErrorKind::NoDevice);
        qputenv("XDG_CACHE_HOME", cache_.path().toUtf8());
    }

    void self_test_fails_on_wrong_numbers()
    {
        // The comparison itself: a matrix that is off by a little more than allowed, and one that is not
        // finite.
        const MatrixD right = random_matrix(9, 7, 1);
        MatrixD wrong = right;
        wrong(3, 3) += 1e-5 * right.norm();
        QVERIFY(gpu::normalized_error(right, right) == 0.0);
        QVERIFY(gpu::normalized_error(wrong, right) > 5e-6);
        wrong(3, 3) = std::numeric_limits<double>::quiet_NaN();
        QVERIFY(!std::isfinite(gpu::normalized_error(wrong, right)));
        QVERIFY(!std::isfinite(gpu::normalized_error(right.transpose(), right)));
    }

    void products_cut_into_submits_match()
    {
        const auto backend = open({.validation = true});
        const Matrix a = random_floats(521, 307, 1); // 170 MFLOP, more than one submit of a software device
        const Matrix b = random_floats(307, 533, 2);
        const Buffer product = backend->multiply(backend->upload(a), backend->upload(b));
        QVERIFY(relative_difference(backend->download(product), MatrixD(a.cast<double>() * b.cast<double>()))
                < 1e-6);
        for (const Precision precision : {Precision::Float32, Precision::Float64}) {
            const Matrix x = random_floats(307, 613, 3);
            Buffer gram = backend->allocate(613, 613, precision);
            backend->gram(1.0, backend->upload(x), Transpose::Yes, 0.0, gram);
            const MatrixD result = backend->download_double(gram);
            const MatrixD exact = x.cast<double>().transpose() * x.cast<double>();
            QVERIFY(relative_difference(result, exact) < 1e-6);
            QVERIFY(result == result.transpose());
        }
    }

    void long_gram_sums_keep_their_digits()
    {
        // 40,000 nearly equal terms: a plain float32 sum is off by 1e-5 and more.
        const auto backend = open({.validation = true});
        Matrix x = random_floats(40'001, 3, 4) * 0.01F;
        x.array() += 1.0F;
        Buffer gram = backend->allocate(3, 3, Precision::Float64);
        backend->gram(1.0, backend->upload(x), Transpose::Yes, 0.0, gram);
        const MatrixD exact = x.cast<double>().transpose() * x.cast<double>();
        QVERIFY(relative_difference(backend->download_double(gram), exact) < 3e-7);
    }

    void matrices_beyond_one_binding()
    {
        const auto backend = open({.validation = true});
        constexpr Index rows = 12'000;
        constexpr Index cols = 3'000; // 137 MiB; 128 is what a device must bind at once
        Matrix w = Matrix::Zero(rows, cols);
        const RandomStream random(5);
        for (std::uint64_t i = 0; i < 2000; ++i)
            w(static_cast<Index>(random.below(2 * i, rows)),
              static_cast<Index>(random.below(2 * i + 1, cols))) = static_cast<float>(random.normal(i));
        w(rows - 1, cols - 1) = 3.5F;
        Buffer buffer = backend->upload(w);
        QCOMPARE(backend->max_abs(buffer), static_cast<double>(w.cwiseAbs().maxCoeff()));
        QVERIFY(std::abs(backend->dot(buffer, buffer) / w.cast<double>().squaredNorm() - 1.0) < 1e-9);

        const Matrix left = random_floats(2, rows, 6);
        const MatrixD product = left.cast<double>() * w.cast<double>();
        QVERIFY(
            relative_difference(backend->download(backend->multiply(backend->upload(left), buffer)), product)
            < 1e-6);

        const UniformGrid grid{.bits = 4, .group = 0, .symmetric = true};
        const RoundedBuffers rounded = backend->round_nearest(buffer, backend->fit_grid(buffer, grid));
        const std::vector<Index> sample{0, 1, 5'999, 6'000, 11'183, 11'184, rows - 1};
        Matrix part(static_cast<Index>(sample.size()), cols);
        for (std::size_t i = 0; i < sample.size(); ++i)
            part.row(static_cast<Index>(i)) = w.row(sample[i]);
        const Buffer host = cpu_->upload(part);
        const Matrix expected = cpu_->download(cpu_->round_nearest(host, cpu_->fit_grid(host, grid)).values);
        QVERIFY(relative_difference(backend->download(backend->gather_rows(rounded.values, sample)), expected)
                < 1e-6);

        backend->add_scaled(-2.0, backend->copy(buffer), 1.0, buffer);
        QVERIFY(backend->download(buffer) == -w);
    }

    void forward_pass_matches_the_cpu()
    {
        auto model = Model::open(sample_folder());
        QVERIFY(model.has_value());
        std::vector<TokenId> ids;
        for (int i = 0; i < 60; ++i)
            ids.push_back(static_cast<TokenId>(1 + (i * 37) % 400));
        const auto weights = checkpoint_weights(*model);
        const auto backend = open({.validation = true});
        const auto got = logits(**model, *weights, ids, *backend, silent_monitor());
        const auto expected = logits(**model, *weights, ids, *cpu_, silent_monitor());
        QVERIFY(got.has_value() && expected.has_value());
        QVERIFY((*got - *expected).cwiseAbs().maxCoeff() < 1e-4F);
    }

    // Times -------------------------------------------------------------------------------------------------
    void kernels_are_timed()
    {
        const auto backend = open({.validation = true, .force_staging = true});
        const Matrix a = random_floats(130, 70, 1);
        const Buffer x = backend->upload(a);
        QVERIFY(kernel_times(*backend).kernels.empty()); // not before somebody asks
        QVERIFY(measure_kernels(*backend));
        for (int round = 0; round < 300; ++round) // more than a submit holds
            (void)backend->multiply(x, Transpose::Yes, x, Transpose::No);
        Buffer y = backend->copy(x);
        backend->add_scaled(1.0, x, 1.0, y);
        const KernelTimes times = kernel_times(*backend);
        double sum = 0.0;
        double share = 0.0;
        double shortest = times.wall_seconds;
        std::map<std::string, KernelTime> found;
        for (const KernelTime& kernel : times.kernels) {
            QVERIFY(kernel.seconds > 0.0 && kernel.seconds <= shortest); // the longest first
            shortest = kernel.seconds;
            sum += kernel.seconds;
            share += kernel.share;
            found[kernel.kernel] = kernel;
        }
        QVERIFY(std::abs(sum - times.busy_seconds) <= 1e-12 && std::abs(share - 1.0) < 1e-9);
        QVERIFY(times.busy_seconds <= times.wall_seconds);
        QCOMPARE(found.size(), std::size_t{4});
        QCOMPARE(found["gemm"].calls, std::uint64_t{300});
        QCOMPARE(found["gemm"].flops, 300.0 * 2.0 * 70 * 70 * 130);
        QCOMPARE(found["gemm"].bytes, 0.0);
        QCOMPARE(found["add_scaled"].bytes, 3.0 * 4.0 * 130 * 70);
        QCOMPARE(found["copy"].calls, std::uint64_t{1});
        QCOMPARE(found["fill"].calls, std::uint64_t{300}); // a new result starts at zero

        QVERIFY(measure_kernels(*backend)); // from zero
        QVERIFY(kernel_times(*backend).kernels.empty());
        QVERIFY(measure_kernels(*backend, false));
        (void)backend->multiply(x, Transpose::Yes, x, Transpose::No);
        QVERIFY(kernel_times(*backend).kernels.empty());
        QVERIFY(!measure_kernels(*cpu_) && kernel_times(*cpu_).kernels.empty());
    }

    void peak_is_measured()
    {
        const auto backend = open({.validation = true});
        const auto peak = measure_peak(*backend);
        QVERIFY(peak.has_value());
        QVERIFY(peak->flops_per_second > 1e7 && peak->flops_per_second < 1e15);
        QVERIFY(peak->bytes_per_second > 1e7 && peak->bytes_per_second < 1e14);
        QVERIFY(kernel_times(*backend).kernels.empty());
        QCOMPARE(measure_peak(*cpu_).error().kind, ErrorKind::NoDevice);
    }

    // Memory ------------------------------------------------------------------------------------------------
    void float64_lives_on_the_host()
    {
        const auto backend = open({.validation = true});
        const MatrixD a = random_matrix(13, 9, 7);
        const Buffer buffer = backend->upload(a);
        QCOMPARE(buffer.precision(), Precision::Float64);
        QVERIFY(backend->download_double(buffer) == a);
        QVERIFY(backend->download_double(backend->copy(buffer)) == a);
        const Buffer single = backend->convert(buffer, Precision::Float32);
        QVERIFY(backend->download(single) == Matrix(a.cast<float>()));
        QVERIFY(backend->download_double(backend->convert(single, Precision::Float64))
                == MatrixD(a.cast<float>().cast<double>()));
        const MatrixD product =
            backend->download_double(backend->multiply(buffer, Transpose::No, buffer, Transpose::Yes));
        QVERIFY(relative_difference(product, MatrixD(a * a.transpose())) < 1e-14);
    }

    void factorizations_fall_back_to_the_host()
    {
        const auto backend = open({.validation = true});
        const MatrixD moments = random_moments(37, 8);
        const Buffer h = backend->upload(Matrix(moments.cast<float>()));
        const auto factor = backend->cholesky(h);
        QVERIFY(factor.has_value());
        const Matrix lower = backend->download(*factor);
        QVERIFY(relative_difference(Matrix(lower * lower.transpose()), moments) < 1e-6);
        Buffer y = backend->upload(random_floats(37, 5, 9));
        backend->orthonormalize(y); // changed in place: the result must reach the device
        const Matrix basis = backend->download(backend->multiply(y, Transpose::Yes, y, Transpose::No));
        QVERIFY((basis - Matrix::Identity(5, 5)).norm() < 1e-5F);
        QVERIFY(!backend->cholesky(backend->upload(Matrix(-Matrix::Identity(4, 4)))).has_value());
    }

    void empty_matrices_are_fine()
    {
        const auto backend = open({.validation = true});
        Buffer none = backend->allocate(0, 5);
        QCOMPARE(backend->download(none).cols(), Index{5});
        QCOMPARE(backend->copy(none).rows(), Index{0});
        backend->scale_columns(none, VectorD::Ones(5));
        backend->add_scaled(1.0, none, 1.0, none);
        QCOMPARE(backend->dot(none, none), 0.0);
        QCOMPARE(backend->max_abs(none), 0.0);
        QCOMPARE(backend->gather_columns(backend->allocate(3, 4), {}).cols(), Index{0});
        // A product over no terms is beta · c.
        Buffer c = backend->upload(Matrix(Matrix::Constant(5, 5, 2.0F)));
        backend->gemm(1.0, none, Transpose::Yes, none, Transpose::No, 0.5, c);
        QVERIFY(backend->download(c) == Matrix(Matrix::Ones(5, 5)));
    }

    void copies_do_not_share_and_handles_do()
    {
        const auto backend = open({.validation = true});
        const Matrix a = random_floats(31, 17, 10);
        Buffer first = backend->upload(a);
        const Buffer same = first;
        const Buffer copy = backend->copy(first);
        backend->scale_rows(first, VectorD::Constant(31, 2.0));
        QVERIFY(backend->download(same) == Matrix(2.0F * a));
        QVERIFY(backend->download(copy) == a);
        const Matrix wide = random_floats(40, 40, 11); // a part whose rows do not touch
        QVERIFY(backend->download(backend->upload(wide.block(3, 4, 20, 9)))
                == Matrix(wide.block(3, 4, 20, 9)));
        QVERIFY(backend->download(backend->allocate(300, 7)).isZero(0.0F));
    }

    void failures_are_said()
    {
        const auto backend = open({.validation = true});
        const Buffer a = backend->allocate(3, 4);
        Buffer c = backend->allocate(3, 3);
        QCOMPARE(failure_kind([&] { backend->allocate(Index{1} << 30, Index{1} << 20); }),
                 ErrorKind::NoSpace);
        QCOMPARE(failure_kind([&] { backend->allocate(Index{1} << 40, Index{1} << 40); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->allocate(-1, 2); }), ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gemm(1.0, a, Transpose::No, a, Transpose::No, 0.0, c); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->download(cpu_->allocate(3, 4)); }), ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gather_rows(a, std::vector<Index>{3}); }), ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gather_columns(a, std::vector<Index>{-1}); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] {
                     backend->cross_entropy(a, std::vector<Index>{0, 1, 4});
                 }),
                 ErrorKind::Internal);
        QVERIFY(backend->download(a).isZero(0.0F)); // and the backend goes on working
    }

    // Lifetime and threads ----------------------------------------------------------------------------------
    void four_threads_share_one_backend()
    {
        const auto backend = open({.validation = true});
        std::atomic<int> wrong = 0;
        std::vector<std::thread> threads;
        for (std::uint64_t id = 0; id < 4; ++id) {
            threads.emplace_back([&, id] {
                for (std::uint64_t round = 0; round < 6; ++round) {
                    const Index n = 33 + 16 * static_cast<Index>(id) + static_cast<Index>(round);
                    const Matrix x = random_floats(n, 64, 100 * id + round);
                    Buffer turned = backend->upload(x);
                    backend->hadamard(turned, Transpose::No);
                    Buffer gram = backend->allocate(n, n);
                    backend->gram(1.0, turned, Transpose::No, 0.0, gram); // the transform is orthogonal
                    const MatrixD exact = x.cast<double>() * x.cast<double>().transpose();
                    if (!(relative_difference(backend->download(gram), exact) < 2e-6))
                        ++wrong;
                }
            });
        }
        for (std::thread& thread : threads)
            thread.join();
        QCOMPARE(wrong.load(), 0);
    }

    void buffers_outlive_their_backend()
    {
        auto backend = open({.validation = true});
        Buffer kept = backend->upload(random_floats(20, 20, 12));
        backend->add_scaled(1.0, backend->copy(kept), 1.0, kept); // recorded, never asked for
        backend.reset();
        kept = {};
    }

    void opening_and_closing_leaks_nothing()
    {
        const auto round = [] {
            const auto backend = open({});
            const Buffer a = backend->upload(random_floats(70, 70, 13));
            QVERIFY(backend->max_abs(backend->multiply(a, a)) > 0.0);
        };
        for (int i = 0; i < 4; ++i)
            round(); // the driver's own one-time memory
        const std::size_t before = resident_kilobytes();
        const qsizetype threads = thread_total();
        for (int i = 0; i < 16; ++i)
            round();
        QCOMPARE(thread_total(), threads);
        const std::size_t after = resident_kilobytes();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        QSKIP("a sanitizer keeps freed memory; its own leak check stands in");
#endif
        QVERIFY2(after < before + 16'384, qPrintable(QStringLiteral("%1 → %2 KiB").arg(before).arg(after)));
    }

    void pipeline_cache_is_kept_and_a_broken_one_ignored()
    {
        QTemporaryDir folder;
        qputenv("XDG_CACHE_HOME", folder.path().toUtf8());
        const auto use = [] {
            const auto backend = open({.validation = true});
            const Matrix a = random_floats(5, 6, 14);
            const Matrix b = random_floats(6, 4, 15);
            const Matrix product =
                backend->download(backend->multiply(backend->upload(a), backend->upload(b)));
            return relative_difference(product, Matrix(a * b)) < 1e-6;
        };
        const auto files = [&] { return QDir(folder.filePath("rankscope")).entryInfoList(QDir::Files); };
        const auto content = [&] {
            QFile file(files().first().filePath());
            return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
        };
        QVERIFY(use());
        QCOMPARE(files().size(), 1);
        const QByteArray whole = content();
        QVERIFY(whole.size() > 64);
        for (const QByteArray& broken : {whole.left(70), QByteArray(), QByteArray(5000, 'x'), whole + "more",
                                         QByteArray(whole).replace(80, 4, "????")}) {
            QFile file(files().first().filePath());
            QVERIFY(file.open(QIODevice::WriteOnly | QIODevice::Truncate));
            file.write(broken);
            file.close();
            QVERIFY(use());
            QVERIFY(content() != broken); // written anew
            QCOMPARE(files().size(), 1);
        }
        qputenv("XDG_CACHE_HOME", "/proc/nowhere"); // not writable: costs time and nothing else
        QVERIFY(use());
        qputenv("XDG_CACHE_HOME", cache_.path().toUtf8());
    }

private:
    QTemporaryDir cache_;
    bool has_device_ = false;
    std::unique_ptr<Backend> cpu_;
};

QTEST_GUILESS_MAIN(TestVulkanBackend)
#include "test_vulkan_backend.moc"
