// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/method.h"
#include "tests/support/command.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QTemporaryDir>
#include <QtTest>

#include <map>

using namespace rankscope;
using namespace rankscope::test;

/// `rankscope-cli sweep`: all methods × {2, 3, 4} bits × ranks {0, 8, 64} on one layer.
class TestSweep : public QObject {
    Q_OBJECT

    static constexpr char k_layer[] = "model.layers.0.self_attn.q_proj";

    QTemporaryDir folder_;
    QString sample_ = QString::fromStdString(sample_folder().string());

    QString calibration()
    {
        const QString folder = folder_.filePath("calibration");
        if (!QFileInfo::exists(folder))
            small_calibration(folder.toStdString());
        return folder;
    }

private slots:
    void one_table_of_everything()
    {
        const CommandResult result =
            run_cli({"sweep", sample_, "--layer", k_layer, "--calibration", calibration(), "--set",
                     "steps=20", "--set", "iterations=2", "--set", "group=32", "--json"});
        QVERIFY2(result.status == 0, result.errors.constData());
        const QJsonArray trials = QJsonDocument::fromJson(result.output).object()["trials"].toArray();
        std::map<std::string, int> of_method;
        std::map<QString, double> error; // "method bits rank"
        for (const QJsonValue& value : trials) {
            const QJsonObject trial = value.toObject();
            const QString id = trial["method"].toString();
            ++of_method[id.toStdString()];
            if (trial.contains("refused")) {
                QVERIFY(trial["refused"].toString().size() > 20); // a sentence, not a code
                continue;
            }
            const QString key =
                QStringLiteral("%1 %2 %3").arg(id).arg(trial["bits"].toInt(-1)).arg(trial["rank"].toInt(-1));
            error[key] = trial["relative_activation_error"].toDouble(-1.0);
            QVERIFY2(error[key] >= 0.0 && error[key] < 2.0, qPrintable(key));
            QVERIFY2(trial["bits_per_weight"].toDouble(-1.0) >= 0.0, qPrintable(key));
            QVERIFY2(trial["seconds"].toDouble(-1.0) >= 0.0, qPrintable(key));
        }
        for (const Method* method : methods()) {
            const MethodInfo& info = method->info();
            const int expected = (info.find("bits") ? 3 : 1) * (info.find("rank") ? 3 : 1);
            QVERIFY2(of_method[info.id] == expected, info.id.c_str());
        }
        // More bits, more rank, or the right metric: less error.
        QVERIFY(error.at("rtn 4 -1") < error.at("rtn 3 -1") && error.at("rtn 3 -1") < error.at("rtn 2 -1"));
        QVERIFY(error.at("qera_exact 3 8") < error.at("qera_exact 3 0"));
        QVERIFY(error.at("qera_exact 3 8") <= error.at("qera_approx 3 8") * (1.0 + 1e-6));
        QVERIFY(error.at("qera_exact 3 8") <= error.at("svd_residual 3 8") * (1.0 + 1e-6));
        QVERIFY(error.at("lrq 3 -1") <= error.at("rtn 3 -1")
                && error.at("flexround 3 -1") <= error.at("rtn 3 -1"));
        QVERIFY(error.at("svd_llm -1 8") <= error.at("asvd -1 8") * (1.0 + 1e-6));
    }

    void without_calibration_the_others_say_why()
    {
        const CommandResult result =
            run_cli({"sweep", sample_, "--layer", k_layer, "--method", "rtn,gptq", "--bits", "3", "--csv"});
        QVERIFY2(result.status == 0, result.errors.constData());
        const QList<QByteArray> lines = result.output.trimmed().split('\n');
        QCOMPARE(lines.size(), 3);
        QVERIFY(lines[1].startsWith("rtn,3,"));
        QVERIFY(lines[2].startsWith("gptq,3,") && lines[2].contains("moments"));
    }

    void wrong_names_are_refused()
    {
        QCOMPARE(run_cli({"sweep", sample_, "--layer", "model.layers.9.nothing"}).status, 2);
        QCOMPARE(run_cli({"sweep", sample_, "--layer", k_layer, "--method", "none"}).status, 2);
        QCOMPARE(run_cli({"sweep", sample_, "--layer", k_layer, "--bits", "1"}).status, 2);
        QCOMPARE(run_cli({"sweep", sample_, "--layer", k_layer, "--set", "steps"}).status, 2);
    }
};

QTEST_GUILESS_MAIN(TestSweep)
#include "test_sweep.moc"
