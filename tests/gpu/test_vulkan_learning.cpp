// SPDX-License-Identifier: GPL-3.0-or-later
// A step of learning a block's rounding (forward, backward, Adam) on a Vulkan device: the losses are the
// CPU's, and next to the sequences of the step nothing goes over or comes back.
#include "tests/gpu/vulkan_fixture.h"
#include "tests/support/learning_case.h"
#include "tests/support/test_paths.h"

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr Index k_sequences = 2;
constexpr Index k_length = 24;
constexpr std::int64_t k_steps = 3;

struct Steps {
    std::vector<double> losses;
    TransferCounts last; ///< of the last step alone
    Index tokens = 0, hidden = 0;
};

Steps learn(LearnedKind kind, Backend& backend)
{
    auto given = learning_case(sample_folder(), k_sequences, k_length, backend);
    if (!given)
        qFatal("%s", given.error().sentence().c_str());
    HiddenStates inputs = states_of(given->inputs);
    HiddenStates targets = states_of(given->targets);
    BlockProblem problem{&*given->block, {}, {}, {}, {&inputs, &targets, given->length, 0}};
    auto linears = learned_linears(*given, {.bits = 3, .group = 64}, kind, backend);
    for (auto& [role, linear] : linears)
        problem.learned[role] = &linear;
    ReconstructionOptions options;
    options.batch = k_sequences;
    Steps steps;
    steps.tokens = given->inputs.rows();
    steps.hidden = given->inputs.cols();
    for (std::int64_t step = 1; step <= k_steps; ++step) {
        const TransferCounts before = transfer_counts(backend);
        steps.losses.push_back(descend_block(problem, options, backend));
        for (auto& [role, linear] : linears)
            linear.step({.learning_rate = 5e-3, .step = step}, backend);
        const TransferCounts after = transfer_counts(backend);
        steps.last = {after.uploads - before.uploads, after.uploaded_bytes - before.uploaded_bytes,
                      after.downloads - before.downloads, after.downloaded_bytes - before.downloaded_bytes};
    }
    return steps;
}

} // namespace

class TestVulkanLearning : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { fixture_.start(); }
    void init() { fixture_.skip_without_device(); }
    void cleanupTestCase() { fixture_.finish(); }

    void a_step_stays_on_the_device_data()
    {
        QTest::addColumn<bool>("flexround");
        QTest::newRow("lrq") << false;
        QTest::newRow("flexround") << true;
    }
    void a_step_stays_on_the_device()
    {
        QFETCH(bool, flexround);
        const LearnedKind kind = flexround ? LearnedKind::FlexRound : LearnedKind::Lrq;
        const auto device = open({.validation = true});
        const Steps found = learn(kind, *device);
        const Steps expected = learn(kind, fixture_.cpu());
        QVERIFY2(expected.losses.back() < expected.losses.front(), "nothing was learned");
        for (std::size_t step = 0; step < expected.losses.size(); ++step) {
            const double apart = std::abs(found.losses[step] / expected.losses[step] - 1.0);
            // A weight on a tie may fall the other way, and later steps start from there.
            QVERIFY2(apart < 1e-3, qPrintable(QStringLiteral("step %1: %2 instead of %3")
                                                  .arg(step)
                                                  .arg(found.losses[step])
                                                  .arg(expected.losses[step])));
        }
        qInfo("a step: %llu bytes over, %llu back",
              static_cast<unsigned long long>(found.last.uploaded_bytes),
              static_cast<unsigned long long>(found.last.downloaded_bytes));
        // The sequences and their targets go over; the partial sums of the loss come back, pairs of floats.
        const auto states = static_cast<std::uint64_t>(found.tokens * found.hidden) * sizeof(float);
        QCOMPARE(found.last.uploaded_bytes, 2 * states);
        QCOMPARE(found.last.downloads, std::uint64_t{1});
        QVERIFY(found.last.downloaded_bytes <= 256 * 2 * sizeof(float));
    }

private:
    VulkanFixture fixture_;
};

QTEST_GUILESS_MAIN(TestVulkanLearning)
#include "test_vulkan_learning.moc"
