// SPDX-License-Identifier: GPL-3.0-or-later
// Four bits for weights and activations on the sample: rotate, calibrate, plan, compress, evaluate.
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/command.h"
#include "tests/support/numbers.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonObject>
#include <QTemporaryDir>
#include <QtTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

class TestW4A4 : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    const QString sample_ = QString::fromStdString(sample_folder().string());

    QString place(const QString& name) const { return folder_.filePath(name); }
    void must(const QStringList& arguments)
    {
        const CommandResult result = run_cli(arguments);
        if (result.status != 0)
            qFatal("%s", result.errors.constData());
    }
    void verify_refused(const QStringList& arguments, int status, const char* part)
    {
        const CommandResult result = run_cli(arguments);
        QCOMPARE(result.status, status);
        QVERIFY2(result.errors.contains(part), result.errors.constData());
    }
    QString run_of(const QString& name, const QStringList& plan)
    {
        const QString file = place(name + ".json");
        must(QStringList{"plan", place("rotated"), "--calibration", place("cal"), "--out", file} + plan);
        must({"compress", place("rotated"), "--plan", file, "--calibration", place("cal"), "--out",
              place(name)});
        return place(name);
    }
    QJsonObject evaluated(const QString& path, const QStringList& more = {})
    {
        return document(QStringList{"evaluate", path, "--text", sample_ + "/evaluation.txt", "--length",
                                    "256", "--no-original", "--json"}
                        + more);
    }

private slots:
    void initTestCase()
    {
        must({"rotate", sample_, "--out", place("rotated")});
        must({"calibrate", place("rotated"), "--text", sample_ + "/calibration.txt", "--samples", "32",
              "--length", "256", "--quantized-activations", "4", "--out", place("cal")});
    }

    void a_rotated_model_is_the_model()
    {
        const double before = evaluated(sample_)["perplexity"].toDouble();
        const QJsonObject after = evaluated(place("rotated"));
        QVERIFY(before > 1.0);
        QVERIFY(std::abs(after["perplexity"].toDouble() / before - 1.0) < 1e-4);
        QVERIFY(after["rotated"].toBool());
        QVERIFY(after["activations"].toArray().isEmpty());
        verify_refused({"rotate", sample_, "--out", place("rotated")}, 3, "exists");
        must({"rotate", sample_, "--out", place("rotated2"), "--seed", "7"});
        must({"rotate", sample_, "--out", place("rotated2"), "--force"});
    }

    void correction_closes_the_gap()
    {
        const double full = evaluated(place("rotated"))["perplexity"].toDouble();
        const QString plain = run_of("gptq", {"--method", "gptq", "--bits", "4", "--group", "0", "--set",
                                              "*:symmetric=true,sym_rule=restricted,clip_search=shrink"});
        const double weights_only = evaluated(plain)["perplexity"].toDouble();
        const double without = evaluated(plain, {"--activation-bits", "4"})["perplexity"].toDouble();
        QVERIFY(weights_only < without);

        const QJsonObject tenth = evaluated(run_of("lrc10", {"--method", "lrc", "--rank", "10%"}));
        const QJsonObject third = evaluated(run_of("lrc30", {"--method", "lrc", "--rank", "30%"}));
        QCOMPARE(tenth["activations"].toArray().size(), 1);
        QCOMPARE(tenth["activations"].toArray()[0].toObject()["bits"].toInt(), 4);
        QCOMPARE(tenth["activations"].toArray()[0].toObject()["layers"].toInt(), 35);
        const double gap_10 = (without - tenth["perplexity"].toDouble()) / (without - full);
        const double gap_30 = (without - third["perplexity"].toDouble()) / (without - full);
        const QString seen = QString("full %1, without %2, 10 %: %3 of the gap, 30 %: %4")
                                 .arg(full)
                                 .arg(without)
                                 .arg(gap_10)
                                 .arg(gap_30);
        QVERIFY2(gap_10 > 0.2, qPrintable(seen));
        QVERIFY2(gap_30 > gap_10, qPrintable(seen));
        // The run's own rounding is what makes the difference to unrounded activations.
        QVERIFY(evaluated(place("lrc10"), {"--activation-bits", "16"})["perplexity"].toDouble()
                != tenth["perplexity"].toDouble());
    }

    void ranks_may_be_shares()
    {
        const QJsonObject plan =
            document({"plan", place("rotated"), "--method", "lrc", "--calibration", place("cal"), "--rank",
                      "10%", "--set", "*.down_proj:rank=50%", "--json"});
        const QJsonArray rows = plan["plan"].toObject()["rows"].toArray();
        QVERIFY(!rows.isEmpty());
        for (const auto& row : rows) { // the sample: hidden 64, kv 32, inner 172
            const QString layer = row.toObject()["layer"].toString();
            const int rank = row.toObject()["parameters"].toObject()["rank"].toInt();
            QCOMPARE(rank, layer.endsWith("down_proj")                            ? 32
                           : layer.endsWith("k_proj") || layer.endsWith("v_proj") ? 3
                                                                                  : 6);
        }
        verify_refused({"plan", sample_, "--method", "odlri", "--rank", "110%"}, 2, "110%");
        verify_refused({"plan", sample_, "--method", "odlri", "--rank", "x%"}, 2, "x%");
    }

    void says_what_the_calibration_lacks()
    {
        must({"calibrate", place("rotated"), "--text", sample_ + "/calibration.txt", "--samples", "4",
              "--length", "64", "--out", place("cal_plain")});
        verify_refused({"plan", place("rotated"), "--method", "lrc", "--calibration", place("cal_plain")}, 2,
                       "--quantized-activations 4");
        verify_refused({"plan", place("rotated"), "--method", "lrc", "--calibration", place("cal"), "--set",
                        "*:activation_bits=8"},
                       2, "8 bits");
        must({"plan", place("rotated"), "--method", "lrc", "--out", place("any.json")});
        verify_refused({"compress", place("rotated"), "--plan", place("any.json"), "--calibration",
                        place("cal_plain"), "--out", place("none")},
                       2, "--quantized-activations 4");
        verify_refused({"plan", sample_, "--method", "lrc", "--calibration", place("cal")}, 3, "checkpoint");
        verify_refused({"evaluate", sample_, "--text", sample_ + "/evaluation.txt", "--activation-bits", "9"},
                       2, "activation-bits");
    }

    void no_export_of_a_rotated_model()
    {
        const QString run = run_of("rtn", {"--method", "rtn", "--bits", "4"});
        for (const char* format : {"hf", "hf-qlr", "peft"})
            verify_refused({"export", run, "--format", format, "--out", place("exported")}, 3,
                           "rotated model");
    }

    void decompose_forms_the_covariances()
    {
        const std::string file = place("in.safetensors").toStdString();
        const Matrix weight = random_floats(24, 40, 1);
        const Matrix tokens = random_floats(40, 300, 2);
        QVERIFY(write_safetensors(file, {tensor_source("W", weight), tensor_source("X", tokens)}, {}, true));
        const QStringList common{"decompose", "--input", place("in.safetensors"), "--method", "lrc", "--json",
                                 "--force",   "--out",   place("out.safetensors")};
        const QJsonObject none = document(common + QStringList{"--rank", "0"});
        const QJsonObject some = document(common + QStringList{"--rank", "25%"});
        QCOMPARE(some["rank"].toInt(), 6);
        QCOMPARE(some["activation_bits"].toInt(), 4);
        QVERIFY(some["relative_activation_error"].toDouble() < none["relative_activation_error"].toDouble());
        // From moments instead of tokens: the same.
        const MatrixD x = tokens.cast<double>();
        const MatrixD h = x * x.transpose() / 300.0;
        QVERIFY(write_safetensors(
            file, {tensor_source("W", weight), tensor_source("H", Matrix(h.cast<float>()))}, {}, true));
        verify_refused(common + QStringList{"--rank", "4"}, 2, "covariances");
    }
};

QTEST_GUILESS_MAIN(TestW4A4)
#include "test_w4a4.moc"
