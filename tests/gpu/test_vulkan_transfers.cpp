// SPDX-License-Identifier: GPL-3.0-or-later
// What goes over to a device and comes back for one layer: W and H in, codes, scales, L and R out.
#include "core/methods/method.h"
#include "gpu/vulkan_backend.h"
#include "tests/support/sample_layer.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr Index k_out = 320;
constexpr Index k_in = 384; // sides at which L and R are fitted in a subspace
constexpr Index k_rank = 32;
constexpr Index k_width = 48; // of that subspace
constexpr Index k_groups = k_in / 64;

std::uint64_t bytes(Index elements) { return static_cast<std::uint64_t>(4 * elements); }
/// Of the weight's bytes.
double share(std::uint64_t count)
{
    return static_cast<double>(count) / static_cast<double>(bytes(k_out * k_in));
}

} // namespace

class TestVulkanTransfers : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase()
    {
        qputenv("XDG_CACHE_HOME", folder_.path().toUtf8());
        const auto devices = vulkan_devices();
        if (!devices || devices->empty() || !devices->front().usable)
            QSKIP("no Vulkan device here: install mesa-vulkan-drivers to run these tests");
        layer_ = sample_layer({.out = k_out, .in = k_in, .tokens = 900}, 3);
    }

    void layer_job_moves_its_matrices_once_data()
    {
        QTest::addColumn<QString>("method");
        QTest::addColumn<QString>("codebook");
        QTest::addColumn<int>("tune_passes");
        QTest::addColumn<int>("moments"); // matrices of the moments' size that go over
        // H in float32, for the low-rank step, and its factor, for the rounding; ODLRI's start has an H of
        // its own.
        QTest::newRow("caldera") << "caldera" << "uniform" << 0 << 2;
        QTest::newRow("odlri") << "odlri" << "uniform" << 0 << 3;
        QTest::newRow("caldera, tuned") << "caldera" << "uniform" << 2 << 2;
        QTest::newRow("caldera, NormalFloat") << "caldera" << "nf" << 2 << 2;
        QTest::newRow("caldera, shared exponents") << "caldera" << "mxint" << 2 << 2;
        QTest::newRow("caldera, lattice") << "caldera" << "e8p" << 2 << 2;
    }
    void layer_job_moves_its_matrices_once()
    {
        QFETCH(QString, method);
        QFETCH(QString, codebook);
        QFETCH(int, tune_passes);
        QFETCH(int, moments);
        const Job job{method.toStdString(), codebook.toStdString(), tune_passes};
        const TransferCounts two = count(job, 2);
        const TransferCounts six = count(job, 6);
        const Index weights = k_out * k_in;
        // Of an iteration: matrices as wide and as high as the subspace, and numbers by row and by column.
        const Index small = 16 * k_width * k_width + 4 * (k_out + k_in);
        const Index in = weights + moments * k_in * k_in + k_out * k_width * (moments - 1);
        const Index codes = codebook == "e8p" ? weights / 8 : weights;
        const Index out = codes + 2 * k_out * k_groups + k_rank * (k_out + k_in);
        qInfo("in W, %lld bytes: %.2f in, %.2f out; with four iterations more %.2f and %.2f more",
              static_cast<long long>(bytes(weights)), share(two.uploaded_bytes), share(two.downloaded_bytes),
              share(six.uploaded_bytes - two.uploaded_bytes),
              share(six.downloaded_bytes - two.downloaded_bytes));
        QVERIFY(two.uploaded_bytes >= bytes(in) && two.uploaded_bytes <= bytes(in + 4 * small));
        QVERIFY(two.downloaded_bytes >= bytes(codes) && two.downloaded_bytes <= bytes(out + 4 * small));
        QVERIFY(six.uploaded_bytes - two.uploaded_bytes <= bytes(4 * small));
        QVERIFY(six.downloaded_bytes - two.downloaded_bytes <= bytes(4 * small));
    }

    /// Every iteration has solves with both factors, a target and a remainder of W's size: none of them leaves the
    /// device. With so many outputs U comes from a subspace of twice the rank.
    void lrc_iterations_stay_on_the_device()
    {
        constexpr Index k_outputs = 800, k_inputs = 352;
        const SampleLayer wide = sample_layer({.out = k_outputs, .in = k_inputs, .tokens = 900}, 3);
        const TransferCounts one = count({"lrc", "uniform", 0}, 1, wide);
        const TransferCounts three = count({"lrc", "uniform", 0}, 3, wide);
        const auto weights = static_cast<double>(bytes(k_outputs * k_inputs));
        const auto more_in = static_cast<double>(three.uploaded_bytes - one.uploaded_bytes) / weights;
        const auto more_out = static_cast<double>(three.downloaded_bytes - one.downloaded_bytes) / weights;
        qInfo("in W: %.2f in, %.2f out; with two iterations more %.2f and %.2f more",
              static_cast<double>(one.uploaded_bytes) / weights,
              static_cast<double>(one.downloaded_bytes) / weights, more_in, more_out);
        QVERIFY(more_in <= 0.25);
        QVERIFY(more_out <= 0.25);
    }

private:
    struct Job {
        std::string method, codebook;
        std::int64_t tune_passes;
    };

    TransferCounts count(const Job& job, std::int64_t iterations) const { return count(job, iterations, layer_); }

    static TransferCounts count(const Job& job, std::int64_t iterations, const SampleLayer& layer)
    {
        auto backend = make_vulkan_backend(0);
        if (!backend)
            qFatal("%s", backend.error().sentence().c_str());
        const Method& method = **require_method(job.method);
        std::map<std::string, ParameterValue, std::less<>> given{{"bits", std::int64_t{2}},
                              {"group", std::int64_t{64}},
                              {"rank", std::int64_t{k_rank}},
                              {"iterations", iterations},
                              {"tune_passes", job.tune_passes}};
        if (job.method != "lrc") {
            given["early_stop"] = false;
            given["codebook"] = job.codebook;
        }
        auto parameters = Parameters::make(method.info(), given);
        if (!parameters)
            qFatal("%s", parameters.error().sentence().c_str());
        LayerProblem problem;
        problem.weight = (*backend)->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        auto done = method.decompose(problem, *parameters, **backend, silent_monitor());
        if (!done)
            qFatal("%s", done.error().sentence().c_str());
        return transfer_counts(**backend);
    }

    QTemporaryDir folder_;
    SampleLayer layer_;
};

QTEST_GUILESS_MAIN(TestVulkanTransfers)
#include "test_vulkan_transfers.moc"
