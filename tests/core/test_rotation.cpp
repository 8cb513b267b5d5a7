// SPDX-License-Identifier: GPL-3.0-or-later
// A rotated model computes what the model computes; rounding of activations reaches Q and not L·R.
#include "core/base/atomic_file.h"
#include "core/export/exporter.h"
#include "core/run/run.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <algorithm>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

const std::vector<TokenId> k_ids = {1, 40, 7, 100, 21, 5, 60, 33, 2, 9, 9, 80};

/// Q = 0 and L·R = W·I with a rounded input: what it computes must not be rounded.
class AllInFactors : public WeightSource {
public:
    explicit AllInFactors(std::unique_ptr<WeightSource> inner) : inner_(std::move(inner)) {}
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        auto weight = inner_->linear(layer, backend);
        if (!weight)
            return weight;
        weight->left = weight->weight;
        weight->right = backend.upload(Matrix(Matrix::Identity(layer.in, layer.in)));
        weight->weight = backend.allocate(layer.out, layer.in);
        weight->activations = {2, 0.9};
        return weight;
    }

private:
    std::unique_ptr<WeightSource> inner_;
};

} // namespace

class TestRotation : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    std::unique_ptr<QTemporaryDir> folder_;

    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }

    Matrix logits_of(const std::shared_ptr<const Model>& model, const WeightSource& weights)
    {
        auto result = logits(*model, weights, k_ids, *backend_, silent_monitor());
        if (!result)
            qFatal("%s", result.error().sentence().c_str());
        return std::move(*result);
    }
    Matrix logits_of(const std::shared_ptr<const Model>& model)
    {
        return logits_of(model, *checkpoint_weights(model));
    }
    std::shared_ptr<const Model> opened(const fs::path& path)
    {
        auto model = Model::open(path);
        if (!model)
            qFatal("%s", model.error().sentence().c_str());
        return *model;
    }
    std::shared_ptr<const Model> rotated(const fs::path& path, std::uint64_t seed = 0)
    {
        const fs::path folder = file("rotated");
        if (const Status written = write_rotated_model(path, seed, folder, true); !written)
            qFatal("%s", written.error().sentence().c_str());
        return opened(folder);
    }
    void verify_refused(const Status& status, const char* part)
    {
        QVERIFY(!status);
        QVERIFY2(status.error().sentence().find(part) != std::string::npos,
                 status.error().sentence().c_str());
    }

private Q_SLOTS:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }

    void logits_stay_data()
    {
        QTest::addColumn<QString>("folder");
        for (const char* name :
             {"tiny-arch/llama-gqa-tied", "tiny-arch/llama-gqa-untied-sharded",
              "tiny-arch/mistral-sliding-fp16", "tiny-arch/qwen2-bias-bf16", "tiny-arch/qwen3-qknorm",
              "tiny-arch/phi3-fused", "stories260k", "babyllama-105"})
            QTest::newRow(name) << QString(name);
    }
    void logits_stay()
    {
        QFETCH(QString, folder);
        if (!shared_folder())
            QSKIP(k_no_shared);
        const fs::path path = *shared_folder() / "models" / folder.toStdString();
        const auto model = opened(path);
        const Matrix before = logits_of(model);
        for (const std::uint64_t seed : {0, 5}) {
            const auto turned = rotated(path, seed);
            QVERIFY(!turned->config().tied_embeddings);
            const Matrix after = logits_of(turned);
            const float off = (after - before).cwiseAbs().maxCoeff();
            QVERIFY2(off <= 1e-4F * std::max(1.0F, before.cwiseAbs().maxCoeff()),
                     qPrintable(QString::number(static_cast<double>(off))));
        }
    }

    void weights_are_turned_and_gains_are_one()
    {
        const auto model = opened(sample_folder());
        const auto turned = rotated(sample_folder());
        QVERIFY(turned->checkpoint().header_hash() != model->checkpoint().header_hash());
        QVERIFY(turned->checkpoint().header_hash()
                != rotated(sample_folder(), 1)->checkpoint().header_hash());
        QCOMPARE(turned->rotation()->seed, std::uint64_t{0});
        QVERIFY(!model->rotation());
        QVERIFY(turned->checkpoint().find(turned->architecture().head()));
        const BlockNames names = turned->architecture().block_names(turned->config(), 0);
        for (const std::string& norm :
             {names.attention_norm, names.mlp_norm, turned->architecture().final_norm()})
            QVERIFY(turned->checkpoint().read(norm)->isOnes());
        for (const LinearLayer& layer : turned->linears()) {
            const Matrix before = *model->weight(layer);
            const Matrix after = *turned->weight(layer);
            QVERIFY(relative_difference(before, after) > 0.5);
            if (layer.role == LinearRole::Output
                || layer.role == LinearRole::Down) // no gain: a mere rotation
                QVERIFY(std::abs(after.norm() / before.norm() - 1.0F) < 1e-5F);
            QVERIFY(same_bytes(after, *turned->weight(layer)));
            QVERIFY(!turned->checkpoint().view(layer.weight()));
        }
    }

    void calibration_sees_rotated_activations()
    {
        if (!shared_folder())
            QSKIP(k_no_shared);
        // The tiny checkpoints have outlier channels by construction.
        const fs::path path = *shared_folder() / "models/tiny-arch/llama-gqa-tied";
        const auto spread = [&](const std::shared_ptr<const Model>& model, const char* name) {
            CalibrationOptions options;
            options.samples = 4;
            options.length = 64;
            const Status done = calibrate(model, *shared_folder() / "data/tinystories/real-sample.txt",
                                          file(name), options, *backend_, silent_monitor());
            if (!done)
                qFatal("%s", done.error().sentence().c_str());
            const auto store = CalibrationStore::open(file(name));
            VectorD diagonal = (*store)->moments(model->linears().front().input_group)->hessian.diagonal();
            std::sort(diagonal.begin(), diagonal.end());
            return diagonal(diagonal.size() - 1) / diagonal(diagonal.size() / 2);
        };
        const auto model = opened(path);
        const auto turned = rotated(path);
        const double before = spread(model, "cal");
        const double after = spread(turned, "cal_rotated");
        QVERIFY2(after < 0.3 * before, qPrintable(QString("%1 %2").arg(before).arg(after)));
        QVERIFY(!(*CalibrationStore::open(file("cal")))->check(*turned));
        QVERIFY(!(*CalibrationStore::open(file("cal_rotated")))->check(*model));
    }

    void a_run_of_a_rotated_model_names_it_and_stays_here()
    {
        const auto turned = rotated(sample_folder(), 3);
        const auto plan =
            uniform_plan(*turned, "rtn", {{"bits", std::int64_t{8}}, {"group", std::int64_t{0}}}, 0);
        QVERIFY(plan.has_value());
        const Status done =
            Run::execute(turned, *plan, nullptr, file("run"), {}, *backend_, silent_monitor());
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
        QCOMPARE((*Json::read(file("run") / "run.json"))["rotation"].string(), std::string("seed 3"));
        const auto run = Run::open(file("run"));
        const auto model = (*run)->model();
        QVERIFY(model.has_value() && (*model)->rotation());
        const Matrix before = logits_of(turned);
        const Matrix after = logits_of(*model, *run_weights(*model, *run));
        QVERIFY((after - before).cwiseAbs().maxCoeff() < 0.05F * before.cwiseAbs().maxCoeff());
        for (const Exporter* exporter : exporters()) {
            if (exporter->info().id == "report") // tells of the run, and holds no weights
                QVERIFY(exporter->accepts(**run, **model).has_value());
            else
                verify_refused(exporter->accepts(**run, **model), "rotated model");
        }
    }

    void refuses_what_it_cannot_turn_data()
    {
        QTest::addColumn<QString>("part");
        QTest::newRow("gpt2") << "LayerNorm";
        QTest::newRow("opt") << "LayerNorm";
        QTest::newRow("gpt-neox-partial-rotary") << "LayerNorm";
        QTest::newRow("gemma2-softcap") << "cannot be folded";
        QTest::newRow("gemma3-text") << "cannot be folded";
        QTest::newRow("mixtral-moe") << "experts";
    }
    void refuses_what_it_cannot_turn()
    {
        QFETCH(QString, part);
        if (!shared_folder())
            QSKIP(k_no_shared);
        const fs::path path = *shared_folder() / "models/tiny-arch" / QTest::currentDataTag();
        verify_refused(write_rotated_model(path, 0, file("out"), false), qPrintable(part));
        QVERIFY(!fs::exists(file("out")));
    }

    void refuses_bad_folders()
    {
        const fs::path folder = file("rotated");
        QVERIFY(write_rotated_model(sample_folder(), 0, folder, false));
        verify_refused(write_rotated_model(sample_folder(), 0, folder, false), "exists");
        verify_refused(write_rotated_model(folder, 0, file("twice"), false), "rotated already");
        fs::create_directory(file("other"));
        QVERIFY(write_text_file(file("other") / "mine.txt", "x", false));
        QVERIFY(!write_rotated_model(sample_folder(), 0, file("other"), true));
        QVERIFY(fs::exists(file("other") / "mine.txt"));

        const auto open_with = [&](const char* key, Json value) {
            Json json = *Json::read(folder / k_rotation_file);
            json.set(key, std::move(value));
            QVERIFY(write_text_file(folder / k_rotation_file, json.dump(), true));
            const auto model = Model::open(folder);
            QVERIFY(!model.has_value());
            QVERIFY(model.error().where.find(folder.string()) != std::string::npos
                    || model.error().remedy.find("rotate again") != std::string::npos);
            QVERIFY(write_rotated_model(sample_folder(), 0, folder, true));
        };
        open_with("format", "something");
        open_with("version", 7);
        open_with("kind", "quarot-9");
        open_with("seed", "minus one");
        open_with("seed", 3);
        open_with("checkpoint", Json());
        Json gone;
        gone.set("path", "/no/such/model");
        gone.set("hash", "0");
        Json changed;
        changed.set("path", sample_folder().string());
        changed.set("hash", "0");
        open_with("checkpoint", changed);
        Json json = *Json::read(folder / k_rotation_file);
        json.set("checkpoint", gone);
        QVERIFY(write_text_file(folder / k_rotation_file, json.dump(), true));
        QVERIFY(!Model::open(folder).has_value());
        QVERIFY(write_text_file(folder / k_rotation_file, "{", true));
        QVERIFY(!Model::open(folder).has_value());
    }

    void rounding_of_activations_reaches_q_alone()
    {
        const auto model = opened(sample_folder());
        const Matrix exact = logits_of(model);
        const auto off = [&](const Matrix& other) {
            return static_cast<double>((other - exact).norm() / exact.norm());
        };
        const auto rounded = [&](int bits) {
            return off(logits_of(model, *with_quantized_activations(checkpoint_weights(model), {bits, 1.0})));
        };
        QVERIFY(rounded(8) > 1e-6);
        QVERIFY(rounded(8) < 0.05);
        QVERIFY(rounded(4) > 4.0 * rounded(8));
        QCOMPARE(rounded(16), 0.0);
        QVERIFY(off(logits_of(model, AllInFactors(checkpoint_weights(model)))) < 1e-5);
    }
};

QTEST_GUILESS_MAIN(TestRotation)
#include "test_rotation.moc"
