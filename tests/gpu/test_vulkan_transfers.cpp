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
        QTest::addColumn<int>("turns");   // of W by way of the host
        // H in float32, for the low-rank step, and its factor, for the rounding; ODLRI's start has an H of
        // its own.
        QTest::newRow("caldera") << "caldera" << "uniform" << 0 << 2 << 0;
        QTest::newRow("odlri") << "odlri" << "uniform" << 0 << 3 << 0;
        QTest::newRow("caldera, tuned") << "caldera" << "uniform" << 2 << 2 << 0;
        QTest::newRow("caldera, NormalFloat") << "caldera" << "nf" << 2 << 2 << 0;
        QTest::newRow("caldera, shared exponents") << "caldera" << "mxint" << 2 << 2 << 0;
        // Rotated: columns are turned as rows of the transposed matrix, which is made on the host, there and back.
        QTest::newRow("caldera, lattice") << "caldera" << "e8p" << 2 << 2 << 2;
    }
    void layer_job_moves_its_matrices_once()
    {
        QFETCH(QString, method);
        QFETCH(QString, codebook);
        QFETCH(int, tune_passes);
        QFETCH(int, moments);
        QFETCH(int, turns);
        const Job job{method.toStdString(), codebook.toStdString(), tune_passes};
        const TransferCounts two = count(job, 2);
        const TransferCounts six = count(job, 6);
        const Index weights = k_out * k_in;
        // Of an iteration: matrices as wide and as high as the subspace, and numbers by row and by column.
        const Index small = 16 * k_width * k_width + 4 * (k_out + k_in);
        const Index in = (1 + turns) * weights + moments * k_in * k_in + k_out * k_width * (moments - 1);
        const Index codes = codebook == "e8p" ? weights / 8 : weights;
        const Index out = codes + turns * weights + 2 * k_out * k_groups + k_rank * (k_out + k_in);
        qInfo("in W, %lld bytes: %.2f in, %.2f out; with four iterations more %.2f and %.2f more",
              static_cast<long long>(bytes(weights)), share(two.uploaded_bytes), share(two.downloaded_bytes),
              share(six.uploaded_bytes - two.uploaded_bytes),
              share(six.downloaded_bytes - two.downloaded_bytes));
        QVERIFY(two.uploaded_bytes >= bytes(in) && two.uploaded_bytes <= bytes(in + 4 * small));
        QVERIFY(two.downloaded_bytes >= bytes(codes) && two.downloaded_bytes <= bytes(out + 4 * small));
        QVERIFY(six.uploaded_bytes - two.uploaded_bytes <= bytes(4 * small));
        QVERIFY(six.downloaded_bytes - two.downloaded_bytes <= bytes(4 * small));
    }

private:
    struct Job {
        std::string method, codebook;
        std::int64_t tune_passes;
    };

    TransferCounts count(const Job& job, std::int64_t iterations) const
    {
        auto backend = make_vulkan_backend(0);
        if (!backend)
            qFatal("%s", backend.error().sentence().c_str());
        const Method& method = **require_method(job.method);
        auto parameters = Parameters::make(method.info(), {{"bits", std::int64_t{2}},
                                                           {"group", std::int64_t{64}},
                                                           {"rank", std::int64_t{k_rank}},
                                                           {"iterations", iterations},
                                                           {"early_stop", false},
                                                           {"codebook", job.codebook},
                                                           {"tune_passes", job.tune_passes}});
        if (!parameters)
            qFatal("%s", parameters.error().sentence().c_str());
        LayerProblem problem;
        problem.weight = (*backend)->upload(layer_.weight);
        problem.moments = &layer_.moments;
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
