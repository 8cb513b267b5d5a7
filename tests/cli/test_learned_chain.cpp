// SPDX-License-Identifier: GPL-3.0-or-later
// W8A8 with keys and values of 8 bits as a user makes it: smooth, learn by blocks with static ranges,
// evaluate so.
#include "tests/support/command.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonObject>
#include <QTemporaryDir>
#include <QtTest>

#include <cmath>

using namespace rankscope::test;

class TestLearnedChain : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    const QString sample_ = QString::fromStdString(sample_folder().string());
    const QString text_ = sample_ + "/calibration.txt";

    QString place(const QString& name) const { return folder_.filePath(name); }
    QJsonObject must(const QStringList& arguments)
    {
        const QJsonObject json = document(arguments + QStringList{"--json"});
        if (json.isEmpty())
            qFatal("%s failed", qPrintable(arguments.join(' ')));
        return json;
    }
    QStringList evaluation(const QString& path) const
    {
        return {"evaluate", path, "--text", sample_ + "/evaluation.txt", "--length", "128", "--no-original"};
    }

private slots:
    void from_smoothing_to_rounded_activations()
    {
        must({"calibrate", sample_, "--text", text_, "--samples", "16", "--length", "128", "--out",
              place("cal")});
        must({"smooth", sample_, "--calibration", place("cal"), "--out", place("smoothed")});
        const QJsonObject plan =
            must({"plan", place("smoothed"), "--method", "lrq", "--bits", "8", "--set",
                  "*:objective=block,simulate=a8kv8-static,steps=4", "--out", place("plan.json")});
        QCOMPARE(plan["chains"].toObject()["smooth → lrq by blocks"].toInt(), 35);
        const QJsonObject run = must({"compress", place("smoothed"), "--plan", place("plan.json"), "--text",
                                      text_, "--samples", "16", "--length", "64", "--out", place("run")});
        const QJsonArray blocks = run["learned_blocks"].toArray();
        QCOMPARE(blocks.size(), 5);
        for (const auto& value : blocks) {
            const QJsonObject block = value.toObject();
            QVERIFY(block["learned"].toDouble() <= block["nearest"].toDouble());
            QVERIFY(block["learned_held_out"].isDouble());
        }
        const double plain = must(evaluation(place("run")))["perplexity"].toDouble();
        const QJsonObject rounded =
            must(evaluation(place("run")) + QStringList{"--simulate", "a8kv8-static"});
        QCOMPARE(rounded["simulate"].toString(), QString("a8kv8-static"));
        QVERIFY(rounded["perplexity"].toDouble() != plain);
        QVERIFY(std::abs(rounded["perplexity"].toDouble() / plain - 1.0) < 0.1);
    }

    void what_was_learned_with_is_said()
    {
        const CommandResult silent = run_cli(evaluation(place("run")));
        QCOMPARE(silent.status, 0);
        QVERIFY2(silent.errors.contains("--simulate a8kv8-static"), silent.errors.constData());
        const CommandResult twice =
            run_cli(evaluation(place("run")) + QStringList{"--simulate", "a8kv8", "--activation-bits", "4"});
        QCOMPARE(twice.status, 2);
        const CommandResult no_text =
            run_cli(evaluation(sample_) + QStringList{"--simulate", "a8kv8-static"});
        QCOMPARE(no_text.status, 2);
        QVERIFY2(no_text.errors.contains("--ranges-text"), no_text.errors.constData());
    }
};

QTEST_GUILESS_MAIN(TestLearnedChain)
#include "test_learned_chain.moc"
