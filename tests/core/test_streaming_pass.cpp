// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/quantized_activations.h"
#include "core/calibration/streaming_pass.h"
#include "tests/support/copying_backend.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <map>

using namespace rankscope;

namespace {

constexpr Index k_length = 32;
constexpr Index k_samples = 40; // more than one batch

/// The checkpoint's weights, those of block 0 a little off.
class PerturbedWeights : public WeightSource {
public:
    explicit PerturbedWeights(const std::shared_ptr<const Model>& model) : weights_(checkpoint_weights(model))
    {}
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        auto weight = weights_->linear(layer, backend);
        if (weight && layer.block == 0 && layer.role == LinearRole::Down)
            weight->weight = backend.upload(Matrix(backend.download(weight->weight) * 1.5F));
        return weight;
    }

private:
    std::unique_ptr<WeightSource> weights_;
};

/// Sums of a pair of streams by group.
using PairSums = std::map<std::string, CovarianceSums>;

} // namespace

class TestStreamingPass : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void equal_weights_give_equal_streams();
    void a_perturbed_block_shows_in_the_next();
    void looking_leaves_the_states();
    void pairs_follow_the_single_stream();
    void reports_stay_within_their_total();
    void goes_on_from_a_block();
    void states_stay_on_a_device();
    void states_on_a_device_are_saved_in_time();

private:
    HiddenStates states() const
    {
        return std::move(*HiddenStates::in_memory(windows_.count() * k_length, width()));
    }
    Index width() const { return model_->config().hidden; }
    PairSums run_pair(const WeightSource& second, int blocks, HiddenStates& a, HiddenStates& b)
    {
        PairSums sums;
        StreamingPass pass(*model_, windows_, *backend_, silent_monitor());
        if (!pass.embed(a) || !pass.embed(b))
            qFatal("no embedding");
        const PairObserver observer = [&](int, Index, const std::string& group, const Buffer& x,
                                          const Buffer& other) -> Status {
            auto found = sums.find(group);
            if (found == sums.end())
                found = sums.emplace(group, CovarianceSums(x.cols(), true, *backend_)).first;
            found->second.add(x, other, *backend_);
            return {};
        };
        for (int block = 0; block < blocks; ++block) {
            const Status done = pass.run_block_pair(block, {*weights_, a}, {second, b}, observer, true);
            if (!done)
                qFatal("%s", done.error().sentence().c_str());
        }
        return sums;
    }

    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<WeightSource> weights_ = checkpoint_weights(model_);
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    TokenWindows windows_;
};

void TestStreamingPass::initTestCase()
{
    const auto text = tokenize_file(*model_, test::sample_folder() / "calibration.txt");
    QVERIFY(text);
    auto windows =
        prefixed_windows(*text, k_length, k_length - static_cast<Index>(text->prefix.size()), k_samples);
    QVERIFY(windows);
    windows_ = std::move(*windows);
    QCOMPARE(windows_.count(), k_samples);
}

void TestStreamingPass::equal_weights_give_equal_streams()
{
    HiddenStates a = states();
    HiddenStates b = states();
    const PairSums sums = run_pair(*weights_, 3, a, b);
    QCOMPARE(sums.size(), std::size_t{12});
    for (const auto& [group, sum] : sums) {
        const MatrixD xx = backend_->download_double(sum.xx());
        QCOMPARE(backend_->download_double(sum.yy()), xx);
        QVERIFY2(test::relative_difference(backend_->download_double(sum.xy()), xx) < 1e-6, group.c_str());
    }
    QCOMPARE(Matrix(a.rows(0, a.tokens())), Matrix(b.rows(0, b.tokens())));
}

void TestStreamingPass::a_perturbed_block_shows_in_the_next()
{
    HiddenStates a = states();
    HiddenStates b = states();
    const PerturbedWeights perturbed(model_);
    const PairSums sums = run_pair(perturbed, 2, a, b);
    for (const auto& [group, sum] : sums) {
        const bool later = group.find("layers.1.") != std::string::npos;
        const MatrixD xx = backend_->download_double(sum.xx());
        const double other = test::relative_difference(backend_->download_double(sum.yy()), xx);
        const double cross = test::relative_difference(backend_->download_double(sum.xy()), xx);
        QVERIFY2(later ? other > 1e-3 : other == 0.0,
                 qPrintable(QString("%1 %2").arg(group.c_str()).arg(other)));
        QVERIFY2(later ? cross > 1e-3 : cross < 1e-6,
                 qPrintable(QString("%1 %2").arg(group.c_str()).arg(cross)));
        // Cauchy and Schwarz: the cross moment is no larger than those of the streams.
        const MatrixD xy = backend_->download_double(sum.xy());
        const MatrixD yy = backend_->download_double(sum.yy());
        for (Index i = 0; i < xx.rows(); ++i)
            for (Index j = 0; j < xx.cols(); ++j)
                QVERIFY(xy(i, j) * xy(i, j) <= xx(i, i) * yy(j, j) * (1.0 + 1e-4));
    }
}

void TestStreamingPass::looking_leaves_the_states()
{
    HiddenStates a = states();
    HiddenStates b = states();
    StreamingPass pass(*model_, windows_, *backend_, silent_monitor());
    QVERIFY(pass.embed(a) && pass.embed(b));
    const Matrix before = a.rows(0, a.tokens());
    int seen = 0;
    const PairObserver observer = [&](int block, Index, const std::string&, const Buffer& x,
                                      const Buffer& other) -> Status {
        seen += block == 0 && x.rows() == other.rows() ? 1 : 0;
        return {};
    };
    QVERIFY(pass.run_block_pair(0, {*weights_, a}, {*weights_, b}, observer, false));
    QCOMPARE(seen, 8); // four inputs, two batches
    QCOMPARE(Matrix(a.rows(0, a.tokens())), before);
    QCOMPARE(Matrix(b.rows(0, b.tokens())), before);
    // An observer's error stops the pass.
    const Status stopped = pass.run_block_pair(
        0, {*weights_, a}, {*weights_, b},
        [](int, Index, const std::string&, const Buffer&, const Buffer&) -> Status {
            return bad_input("enough");
        },
        true);
    QVERIFY(!stopped);
    QCOMPARE(stopped.error().message, std::string("enough"));
}

void TestStreamingPass::pairs_follow_the_single_stream()
{
    HiddenStates single = states();
    const Status done = stream_blocks(*model_, *weights_, windows_, single, {}, *backend_, silent_monitor());
    QVERIFY(done);
    HiddenStates a = states();
    HiddenStates b = states();
    const PerturbedWeights perturbed(model_);
    run_pair(perturbed, static_cast<int>(model_->config().blocks), a, b);
    QCOMPARE(Matrix(a.rows(0, a.tokens())), Matrix(single.rows(0, single.tokens())));
    HiddenStates other = states();
    QVERIFY(stream_blocks(*model_, perturbed, windows_, other, {}, *backend_, silent_monitor()));
    QCOMPARE(Matrix(b.rows(0, b.tokens())), Matrix(other.rows(0, other.tokens())));
}

void TestStreamingPass::reports_stay_within_their_total()
{
    HiddenStates single = states();
    test::TestMonitor monitor;
    QVERIFY(stream_blocks(*model_, *weights_, windows_, single, {}, *backend_, monitor));
    QVERIFY(monitor.within_total());
    QCOMPARE(monitor.reports(), std::int64_t{2 * (model_->config().blocks + 1)});
}

void TestStreamingPass::goes_on_from_a_block()
{
    HiddenStates whole = states();
    HiddenStates half = states();
    PassEvents events;
    events.block_finished = [&](int block) -> Status {
        if (block == 1)
            half.rows(0, half.tokens()) = whole.rows(0, whole.tokens());
        return {};
    };
    QVERIFY(stream_blocks(*model_, *weights_, windows_, whole, events, *backend_, silent_monitor()));
    test::TestMonitor monitor;
    QVERIFY(stream_blocks(*model_, *weights_, windows_, half, {}, *backend_, monitor, 2));
    QVERIFY(monitor.within_total());
    QCOMPARE(Matrix(half.rows(0, half.tokens())), Matrix(whole.rows(0, whole.tokens())));
}

void TestStreamingPass::states_stay_on_a_device()
{
    HiddenStates expected = states();
    QVERIFY(stream_blocks(*model_, *weights_, windows_, expected, {}, *backend_, silent_monitor()));
    test::CopyingBackend device;
    for (Backend* backend : {static_cast<Backend*>(&device), backend_.get()}) {
        HiddenStates here = states();
        here.rows(0, here.tokens()).setConstant(-7.0F);
        here.stay_on_device(*backend);
        PassEvents events;
        events.block_ends = [&](int) -> Status {
            const Matrix row = here.result_row(k_length + 3);
            return row.allFinite() && row.cols() == width() ? Status{} : bad_input("no row");
        };
        QVERIFY(stream_blocks(*model_, *weights_, windows_, here, events, *backend, silent_monitor()));
        const bool stayed = backend == &device;
        QCOMPARE(Matrix(here.rows(0, here.tokens())) == Matrix(expected.rows(0, expected.tokens())), !stayed);
        QCOMPARE(Matrix(here.result_row(k_length + 3)), Matrix(expected.rows(k_length + 3, 1)));
        here.bring_back();
        QCOMPARE(Matrix(here.rows(0, here.tokens())), Matrix(expected.rows(0, expected.tokens())));
    }
}

void TestStreamingPass::states_on_a_device_are_saved_in_time()
{
    test::CopyingBackend device;
    HiddenStates expected = states();
    QVERIFY(stream_blocks(*model_, *weights_, windows_, expected, {}, *backend_, silent_monitor()));
    for (const bool mapped : {false, true}) {
        for (const auto interval : {std::chrono::milliseconds(0), std::chrono::milliseconds(3'600'000)}) {
            const QTemporaryDir folder;
            auto durable = HiddenStates::durable(expected.tokens(), width(),
                                                 {folder.path().toStdString(), mapped, -1});
            QVERIFY(durable);
            durable->stay_on_device(device, interval);
            int saved = 0;
            PassEvents events;
            events.block_finished = [&](int) -> Status {
                saved += durable->saved() ? 1 : 0;
                return {};
            };
            QVERIFY(stream_blocks(*model_, *weights_, windows_, *durable, events, device, silent_monitor()));
            const bool always = interval.count() == 0;
            QCOMPARE(saved, always ? static_cast<int>(model_->config().blocks) : 0);
            if (!always)
                continue;
            auto read = HiddenStates::durable(
                expected.tokens(), width(), {folder.path().toStdString(), false, durable->generation()});
            QVERIFY(read);
            QCOMPARE(Matrix(read->rows(0, expected.tokens())),
                     Matrix(expected.rows(0, expected.tokens())));
        }
    }
}

QTEST_GUILESS_MAIN(TestStreamingPass)
#include "test_streaming_pass.moc"
