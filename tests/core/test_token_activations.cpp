// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/massive_activation.h"
#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_activations.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <cmath>

using namespace rankscope;

namespace {

std::filesystem::path text() { return test::sample_folder() / "calibration.txt"; }

} // namespace

class TestTokenActivations : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void rows_are_what_the_pass_feeds_the_layer_data()
    {
        QTest::addColumn<QString>("layer");
        for (const char* layer : {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj",
                                  "model.layers.2.mlp.up_proj", "model.layers.4.self_attn.o_proj"})
            QTest::newRow(layer) << QString::fromLatin1(layer);
    }

    void rows_are_what_the_pass_feeds_the_layer()
    {
        QFETCH(QString, layer);
        const auto model = test::sample_model();
        const auto backend = make_cpu_backend();
        const LinearLayer* linear = model->find_linear(layer.toStdString());
        QVERIFY(linear);
        auto stretch = token_stretch(*model, text(), 24, 1);
        QVERIFY(stretch.has_value());
        QCOMPARE(stretch->tokens.size(), std::size_t{24});
        QCOMPARE(stretch->first, Index{23}); // BOS stands in front
        const auto weights = checkpoint_weights(model);
        const auto found = token_activations(*model, *weights, *linear, *stretch, *backend, silent_monitor());
        QVERIFY2(found.has_value(), found ? "" : found.error().sentence().c_str());
        QCOMPARE(found->values.rows(), Index{24});
        QCOMPARE(found->values.cols(), linear->in);
        QCOMPARE(found->texts.size(), std::size_t{24});

        TokenWindows windows{24, stretch->tokens};
        auto states = HiddenStates::in_memory(24, model->config().hidden);
        QVERIFY(states.has_value());
        Matrix expected;
        PassEvents events;
        events.input = [&](int, Index, const std::string& group, const Buffer& x,
                           std::span<const Index>) -> Status {
            if (group == linear->input_group)
                expected = backend->download(x);
            return {};
        };
        QVERIFY(stream_blocks(*model, *weights, windows, *states, events, *backend, silent_monitor()));
        QCOMPARE(expected.rows(), Index{24});
        QVERIFY((expected - found->values).cwiseAbs().maxCoeff() <= 1e-5F * expected.cwiseAbs().maxCoeff());

        const TokenEntry& top = found->strongest.front();
        QCOMPARE(std::abs(top.value), static_cast<double>(found->values.cwiseAbs().maxCoeff()));
        QCOMPARE(static_cast<double>(found->values(top.token, top.channel)), top.value);
        QVERIFY(found->median_abs > 0.0 && found->median_abs < std::abs(top.value));
    }

    void tokens_read_as_the_text()
    {
        const auto model = test::sample_model();
        const auto tokenizer = *model->tokenizer();
        const auto stretch = token_stretch(*model, text(), 40, 0);
        QVERIFY(stretch.has_value());
        QVERIFY(stretch->file_tokens > 1000);
        QCOMPARE(stretch->file, std::string("calibration.txt"));
        QCOMPARE(stretch->hash.size(), std::size_t{64});
        std::string joined;
        for (std::size_t i = 1; i < stretch->tokens.size(); ++i)
            joined += readable_token(*tokenizer, stretch->tokens[i]);
        const std::string decoded = tokenizer->decode(std::span(stretch->tokens).subspan(1));
        QVERIFY2(joined.find(decoded) != std::string::npos, (joined + " / " + decoded).c_str());
        QCOMPARE(readable_token(*tokenizer, -5), std::string());
    }

    void says_what_is_wrong()
    {
        const auto model = test::sample_model();
        QVERIFY(!token_stretch(*model, text(), 24, 1'000'000));
        QVERIFY(!token_stretch(*model, text(), 24, -1));
        QVERIFY(!token_stretch(*model, text(), 1, 0));
        QVERIFY(!token_stretch(*model, text(), 100'000, 0)); // beyond the context
        QVERIFY(!token_stretch(*model, "no such file", 24, 0));
    }

    void massive_is_large_and_far_above_the_median()
    {
        QVERIFY(is_massive(-500.0, 0.2));
        QVERIFY(!is_massive(99.0, 0.001));
        QVERIFY(!is_massive(500.0, 0.6));
    }
};

QTEST_GUILESS_MAIN(TestTokenActivations)
#include "test_token_activations.moc"
