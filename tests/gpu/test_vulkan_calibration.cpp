// SPDX-License-Identifier: GPL-3.0-or-later
// A calibration on a Vulkan device: the figures are the CPU's, and of what depends on the number of tokens
// next to nothing comes back.
#include "core/calibration/calibration_store.h"
#include "gpu/vulkan_backend.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

class TestVulkanCalibration : public QObject {
    Q_OBJECT

    fs::path file(const std::string& name) const { return fs::path(folder_->path().toStdString()) / name; }

    CalibrationOptions options(Index samples) const
    {
        CalibrationOptions options;
        options.samples = samples;
        options.length = 128;
        options.thresholds = {1.5};
        return options;
    }

    std::unique_ptr<Backend> device(bool staging = false) const
    {
        auto backend = make_vulkan_backend(0, {.validation = true, .force_staging = staging});
        if (!backend)
            qFatal("%s", backend.error().sentence().c_str());
        return std::move(*backend);
    }

    void calibrate_sample(const std::string& name, const CalibrationOptions& options, Backend& backend)
    {
        const Status done = calibrate(model_, sample_folder() / "calibration.txt", file(name), options,
                                      backend, silent_monitor());
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
    }

    std::unique_ptr<QTemporaryDir> folder_;
    std::shared_ptr<const Model> model_ = sample_model();
    bool has_device_ = false;

private Q_SLOTS:
    void initTestCase()
    {
        const auto devices = vulkan_devices();
        has_device_ = devices && !devices->empty() && devices->front().usable;
    }

    void init()
    {
        folder_ = std::make_unique<QTemporaryDir>();
        if (!has_device_)
            QSKIP("no Vulkan device here: install mesa-vulkan-drivers to run these tests");
    }

    void cleanupTestCase()
    {
        QStringList messages;
        for (const std::string& message : validation_messages())
            messages << QString::fromStdString(message);
        QVERIFY2(messages.isEmpty(), qPrintable(messages.join('\n')));
    }

    void figures_are_those_of_the_cpu()
    {
        const auto cpu = make_cpu_backend();
        calibrate_sample("cpu", options(20), *cpu);
        for (const bool staging : {false, true}) {
            const auto vulkan = device(staging);
            calibrate_sample("vulkan" + std::to_string(staging), options(20), *vulkan);
            const auto expected = CalibrationStore::open(file("cpu"));
            const auto got = CalibrationStore::open(file("vulkan" + std::to_string(staging)));
            QVERIFY(expected && got);
            for (const LinearLayer& layer : model_->linears()) {
                const auto a = layer_moments(**expected, *model_, layer);
                const auto b = layer_moments(**got, *model_, layer);
                QVERIFY(a && b);
                QVERIFY2(relative_difference(b->hessian, a->hessian) < 1e-5, layer.name.c_str());
                QVERIFY(b->hessian == b->hessian.transpose());
                for (const TokenKind kind : {TokenKind::All, TokenKind::First, TokenKind::Later}) {
                    const auto x = (*expected)->statistics(layer.input_group, kind);
                    const auto y = (*got)->statistics(layer.input_group, kind);
                    QVERIFY(x && y);
                    QCOMPARE(y->tokens(), x->tokens());
                    QVERIFY(relative_difference(y->rms(), x->rms()) < 1e-5);
                    QVERIFY(relative_difference(y->channel_kurtosis(), x->channel_kurtosis()) < 1e-3);
                    QVERIFY(std::abs(y->mean_token_crest() / x->mean_token_crest() - 1.0) < 1e-4);
                    QVERIFY(std::abs(y->quantile_abs(0.5) / x->quantile_abs(0.5) - 1.0) < 0.05);
                }
            }
            for (int block = 0; block < static_cast<int>(model_->config().blocks); ++block) {
                const auto x = (*expected)->block_output(block);
                const auto y = (*got)->block_output(block);
                QVERIFY(x && y);
                QCOMPARE(y->strongest.front().channel, x->strongest.front().channel);
                QVERIFY(std::abs(y->strongest.front().value / x->strongest.front().value - 1.0) < 1e-4);
            }
        }
    }

    void only_moments_come_back()
    {
        // What is transferred for 16 windows more is what depends on the tokens. A copy of the hidden states
        // of 2048 tokens is 512 KiB; the embedding goes over once, and nothing of that size comes back in any
        // of the blocks.
        TransferCounts counts[2];
        for (const int run : {0, 1}) {
            const auto vulkan = device();
            calibrate_sample("run" + std::to_string(run), options(run == 0 ? 16 : 32), *vulkan);
            counts[run] = transfer_counts(*vulkan);
        }
        const auto states = static_cast<double>(16 * 128 * model_->config().hidden) * sizeof(float);
        const auto up = static_cast<double>(counts[1].uploaded_bytes - counts[0].uploaded_bytes);
        const auto down = static_cast<double>(counts[1].downloaded_bytes - counts[0].downloaded_bytes);
        qInfo("16 windows more: %.2f copies of their hidden states went over, %.2f came back in %d blocks",
              up / states, down / states, static_cast<int>(model_->config().blocks));
        QVERIFY2(up < 1.5 * states, qPrintable(QString::number(up / states)));
        QVERIFY2(down < 1.0 * states, qPrintable(QString::number(down / states)));
        QCOMPARE(transfer_counts(*make_cpu_backend()).uploads, std::uint64_t{0});
    }

    void interrupted_passes_resume()
    {
        const auto vulkan = device();
        CalibrationOptions whole = options(12);
        calibrate_sample("whole", whole, *vulkan);
        /// Cancels in the third block.
        class Stopping : public Monitor {
        public:
            void report(std::uint64_t, std::uint64_t, std::string_view what) override
            {
                stop_ = stop_ || what.starts_with("block 3");
            }
            bool cancelled() const override { return stop_; }

        private:
            bool stop_ = false;
        };
        Stopping stopping; // sooner than the states are saved: all begins again
        const Status stopped =
            calibrate(model_, sample_folder() / "calibration.txt", file("resumed"), whole, *vulkan, stopping);
        QVERIFY(!stopped);
        QCOMPARE(stopped.error().kind, ErrorKind::Cancelled);
        whole.resume = true;
        calibrate_sample("resumed", whole, *vulkan);
        QVERIFY(folder_contents(file("resumed")) == folder_contents(file("whole")));
    }

    void gram_sums_wait_for_whoever_looks()
    {
        const auto vulkan = device();
        const Matrix x = random_floats(300, 37, 1);
        const Matrix y = random_floats(65, 37, 2);
        const MatrixD start = random_matrix(37, 37, 3);
        const MatrixD symmetric = start + start.transpose();
        const MatrixD xx = x.cast<double>().transpose() * x.cast<double>();
        const MatrixD yy = y.cast<double>().transpose() * y.cast<double>();
        Buffer sum = vulkan->upload(symmetric);
        const Buffer left = vulkan->upload(x);
        const Buffer right = vulkan->upload(y);
        const auto before = transfer_counts(*vulkan);
        vulkan->gram(1.0, left, Transpose::Yes, 1.0, sum);
        vulkan->gram(1.0, right, Transpose::Yes, 1.0, sum);
        QCOMPARE(transfer_counts(*vulkan).downloads, before.downloads);
        QVERIFY(relative_difference(vulkan->download_double(vulkan->copy(sum)), symmetric + xx + yy) < 1e-6);
        QVERIFY(relative_difference(vulkan->download_double(sum), symmetric + xx + yy) < 1e-6);
        vulkan->gram(1.0, left, Transpose::Yes, 1.0, sum);   // and on
        vulkan->gram(-2.0, right, Transpose::Yes, 1.0, sum); // with another factor
        vulkan->add_scaled(1.0, vulkan->upload(symmetric), 1.0, sum);
        QVERIFY(relative_difference(vulkan->download_double(sum), 2.0 * symmetric + 2.0 * xx - yy) < 1e-6);
        vulkan->gram(1.0, left, Transpose::Yes, 1.0, sum);
        vulkan->gram(1.0, right, Transpose::Yes, 0.5, sum); // what waits is halved, too
        QVERIFY(relative_difference(vulkan->download_double(sum), symmetric + 1.5 * xx + 0.5 * yy) < 1e-6);
        vulkan->gram(1.0, left, Transpose::Yes, 1.0, sum);
        vulkan->gram(1.0, right, Transpose::Yes, 0.0, sum);
        QVERIFY(relative_difference(vulkan->download_double(sum), yy) < 1e-6);
        for (int i = 0; i < 20; ++i) { // matrices that nobody ever looks at
            Buffer other = vulkan->allocate(37, 37, Precision::Float64);
            vulkan->gram(1.0, left, Transpose::Yes, 1.0, other);
            if (i == 19)
                QVERIFY(relative_difference(vulkan->download_double(other), xx) < 1e-6);
        }
    }
};

QTEST_GUILESS_MAIN(TestVulkanCalibration)
#include "test_vulkan_calibration.moc"
