// SPDX-License-Identifier: GPL-3.0-or-later
// SmoothQuant: factors, and folding them into the norms of every family.
#include "core/base/random.h"
#include "core/export/smoothed_checkpoint.h"
#include "core/methods/smoothing.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

class TestSmoothing : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir folder_;

    /// Factors between 1/4 and 4, another set for each norm.
    static Result<VectorD> some_scales(const SmoothingGroup& group)
    {
        const RandomStream random(3, group.norm);
        VectorD scales(group.linears.front()->in);
        for (Index i = 0; i < scales.size(); ++i)
            scales(i) = std::exp2(4.0 * random.uniform(static_cast<std::uint64_t>(i)) - 2.0);
        return scales;
    }

    Matrix logits_of(const std::shared_ptr<const Model>& model)
    {
        std::vector<TokenId> ids;
        for (TokenId id = 0; id < 12; ++id)
            ids.push_back((7 * id + 3) % static_cast<TokenId>(model->config().vocabulary));
        const auto weights = checkpoint_weights(model);
        auto result = logits(*model, *weights, ids, *backend_, silent_monitor());
        if (!result)
            qFatal("%s", result.error().sentence().c_str());
        return *result;
    }

private slots:
    void folding_is_exact_data()
    {
        QTest::addColumn<int>("groups"); // in each block
        QTest::newRow("sample") << 2;
        if (!shared_folder())
            return;
        for (const char* name :
             {"gemma2-softcap", "gemma3-text", "gpt-neox-partial-rotary", "gpt2", "gpt2-hub-names", "llama-gqa-tied",
              "llama-gqa-untied-sharded", "mixtral-moe", "opt", "phi3-fused", "qwen2-bias-bf16", "qwen3-qknorm"})
            QTest::newRow(name) << 2;
    }
    void folding_is_exact()
    {
        QFETCH(int, groups);
        const std::string name = QTest::currentDataTag();
        std::shared_ptr<const Model> model = sample_model();
        if (name != "sample") {
            auto opened = Model::open(*shared_folder() / "models/tiny-arch" / name);
            QVERIFY2(opened.has_value(), opened ? "" : opened.error().sentence().c_str());
            model = *opened;
        }
        QCOMPARE(smoothing_groups(*model).size(),
                 static_cast<std::size_t>(groups * static_cast<int>(model->config().blocks)));
        const fs::path folder = fs::path(folder_.path().toStdString()) / name;
        const auto written = write_smoothed_checkpoint(*model, some_scales, folder, {}, silent_monitor());
        QVERIFY2(written.has_value(), written ? "" : written.error().sentence().c_str());
        const auto smoothed = Model::open(folder);
        QVERIFY2(smoothed.has_value(), smoothed ? "" : smoothed.error().sentence().c_str());
        const LinearLayer& layer = *smoothing_groups(*model).front().linears.front();
        QVERIFY(relative_difference(*(*smoothed)->weight(layer), *model->weight(layer)) > 0.1);
        const double moved = relative_difference(logits_of(*smoothed), logits_of(model));
        QVERIFY2(moved < 1e-5, qPrintable(QString::number(moved)));
    }

    void groups_may_be_left_alone()
    {
        const auto model = sample_model();
        const fs::path folder = fs::path(folder_.path().toStdString()) / "same";
        QVERIFY(write_smoothed_checkpoint(
            *model, [](const SmoothingGroup&) { return Result<VectorD>(VectorD()); }, folder, {},
            silent_monitor()));
        const auto same = Model::open(folder);
        QVERIFY(same.has_value());
        QVERIFY(logits_of(*same) == logits_of(model));
    }

    void broken_factors_are_refused()
    {
        const auto model = sample_model();
        const fs::path folder = fs::path(folder_.path().toStdString()) / "broken";
        for (const double wrong : {0.0, -1.0, std::nan("")}) {
            const auto written = write_smoothed_checkpoint(
                *model,
                [&](const SmoothingGroup& group) {
                    return Result<VectorD>(VectorD::Constant(group.linears.front()->in, wrong));
                },
                folder, {}, silent_monitor());
            QVERIFY(!written.has_value());
            QCOMPARE(written.error().kind, ErrorKind::BadInput);
            QVERIFY(!fs::exists(folder));
        }
    }

    void alpha_moves_the_range_from_activations_to_weights()
    {
        const SampleLayer layer = sample_layer({24, 32, 200, 3}, 4);
        const std::vector<Matrix> weights{layer.weight};
        const auto spread = [](const VectorD& values) { return values.maxCoeff() / values.minCoeff(); };
        double before = spread(layer.moments.max_abs);
        for (const double alpha : {0.25, 0.5, 0.75}) {
            const VectorD s = smooth_scales(layer.moments.max_abs, weights, alpha);
            QVERIFY(s.minCoeff() > 0.0);
            // As the formula says, channel by channel.
            const double w = std::max(1e-5, static_cast<double>(layer.weight.col(5).cwiseAbs().maxCoeff()));
            QVERIFY(std::abs(s(5) - std::pow(layer.moments.max_abs(5), alpha) / std::pow(w, 1.0 - alpha))
                    < 1e-12 * s(5));
            const double after = spread(layer.moments.max_abs.cwiseQuotient(s));
            QVERIFY(after < before);
            before = after;
        }
    }

    void the_chosen_alpha_has_the_least_error()
    {
        const SampleLayer layer = sample_layer({24, 32, 200, 3}, 5);
        const std::vector<Matrix> weights{layer.weight};
        SmoothingGrid grid;
        grid.weights.bits = 8;
        grid.weights.group = 0;
        const auto error_at = [&](double alpha) {
            return predicted_smoothing_error(layer.moments, weights,
                                             smooth_scales(layer.moments.max_abs, weights, alpha), grid,
                                             *backend_);
        };
        const double best = error_at(best_smoothing_alpha(layer.moments, weights, grid, *backend_));
        for (int i = 10; i < 20; ++i)
            QVERIFY(best <= error_at(0.05 * i));
        // Outliers in three channels: smoothing helps.
        QVERIFY(best < predicted_smoothing_error(layer.moments, weights, VectorD::Ones(32), grid, *backend_));
    }

    void channels_that_were_never_active_do_no_harm()
    {
        VectorD max_abs = VectorD::Ones(4);
        max_abs(2) = 0.0;
        const std::vector<Matrix> weights{Matrix::Zero(3, 4)};
        const VectorD s = smooth_scales(max_abs, weights, 0.85);
        QVERIFY(s.allFinite() && s.minCoeff() >= 1e-5);
    }
};

QTEST_GUILESS_MAIN(TestSmoothing)
#include "test_smoothing.moc"
