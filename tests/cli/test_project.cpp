// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/random.h"
#include "core/run/project.h"
#include "tests/support/command.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QJsonArray>
#include <QJsonObject>
#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

/// The project file: made, read, carried out, moved, and damaged.
class TestProject : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void written_and_read();
    void same_bytes_for_any_number_of_threads_data();
    void same_bytes_for_any_number_of_threads();
    void runs_are_recorded();
    void moves_with_its_checkpoint();
    void what_changed_is_refused();
    void newer_ones_are_only_read();
    void damaged_data();
    void damaged();
    void random_damage();

private:
    QString place(const QString& name) const { return folder_.filePath(name); }
    fs::path path(const QString& name) const { return place(name).toStdString(); }
    QStringList making(const QString& file) const
    {
        return {
            "project",       file,         "--checkpoint", place("model"),    "--plan",   place("plan.json"),
            "--calibration", place("cal"), "--text",       place("text.txt"), "--budget", "3bpw"};
    }

    QTemporaryDir folder_;
    std::string content_; ///< of a project without runs
};

void TestProject::initTestCase()
{
    fs::copy(sample_folder(), path("model"), fs::copy_options::recursive);
    fs::copy_file(sample_folder() / "calibration.txt", path("text.txt"));
    QCOMPARE(run_cli({"calibrate", place("model"), "--text", place("text.txt"), "--samples", "8", "--length",
                      "64", "--out", place("cal")})
                 .status,
             0);
    QCOMPARE(
        run_cli({"plan", place("model"), "--method", "gptq", "--bits", "3", "--group", "64", "--calibration",
                 place("cal"), "--seed", "18446744073709551615", "--out", place("plan.json")})
            .status,
        0);
    const CommandResult made = run_cli(making(place("a.rankscope.json")));
    QVERIFY2(made.status == 0, made.errors.constData());
    content_ = *read_text_file(path("a.rankscope.json"));
}

void TestProject::written_and_read()
{
    const auto project = Project::read(path("a.rankscope.json"));
    VERIFY_OK(project);
    QCOMPARE(project->plan.seed, std::numeric_limits<std::uint64_t>::max());
    QCOMPARE(project->plan.rows.size(), std::size_t{35});
    QCOMPARE(project->calibration->samples, Index{8});
    QCOMPARE(project->budget, std::string("3bpw"));
    QCOMPARE(project->checkpoint, path("model"));
    VERIFY_OK(project->write(path("b.rankscope.json"), false));
    QVERIFY(*read_text_file(path("b.rankscope.json")) == content_);
    QVERIFY(!project->write(path("b.rankscope.json"), false)); // never unasked
    QVERIFY(!project->write(path("b.json"), false));           // nor under a name that hides its folder
    QVERIFY(QString::fromStdString(content_).contains("\"path\": \"model\"")); // relative
    QCOMPARE(run_cli(making(place("a.rankscope.json"))).status, 3);
    QCOMPARE(run_cli({"project", place("none.rankscope.json")}).status, 3);
    QCOMPARE(run_cli({"project", place("x.rankscope.json"), "--plan", place("plan.json")}).status, 2);
}

void TestProject::same_bytes_for_any_number_of_threads_data()
{
    QTest::addColumn<int>("threads");
    for (const int threads : {1, 2, 5})
        QTest::addRow("%d threads", threads) << threads;
}

void TestProject::same_bytes_for_any_number_of_threads()
{
    QFETCH(int, threads);
    const QString name = QString("threads%1").arg(threads);
    QVERIFY(write_text_file(path(name + ".rankscope.json"), content_, true));
    const CommandResult run = run_cli({"project", place(name + ".rankscope.json"), "--run", "--threads",
                                       QString::number(threads), "--backend", "cpu"});
    QVERIFY2(run.status == 0, run.errors.constData());
    const auto layers = folder_contents(path(name + ".rankscope") / "runs" / "001" / "layers");
    QCOMPARE(layers.size(), std::size_t{35});
    QCOMPARE(run_cli({"compress", place("model"), "--plan", place("plan.json"), "--calibration", place("cal"),
                      "--out", place(name), "--backend", "cpu"})
                 .status,
             0);
    QVERIFY(layers == folder_contents(path(name) / "layers")); // as without a project
}

void TestProject::runs_are_recorded()
{
    const auto project = Project::read(path("threads2.rankscope.json"));
    VERIFY_OK(project);
    QCOMPARE(project->runs.size(), std::size_t{1});
    QCOMPARE(project->runs.front().backend, std::string("cpu"));
    QCOMPARE(project->runs.front().threads, std::int64_t{2});
    QCOMPARE(project->runs.front().plan_hash, project->plan_hash());
    // A run that was stopped is gone on with; its number is the next one all the same.
    const fs::path second = path("threads2.rankscope") / "runs" / "002";
    fs::copy(path("threads2.rankscope") / "runs" / "001", second, fs::copy_options::recursive);
    fs::remove(second / "layers" / "model.layers.2.mlp.up_proj.safetensors");
    const QJsonObject shown =
        document({"project", place("threads2.rankscope.json"), "--run", "--backend", "cpu"});
    QCOMPARE(shown["runs"].toArray().size(), 2);
    QVERIFY(shown["runs"].toArray()[1].toObject()["current_plan"].toBool());
    QVERIFY(folder_contents(second / "layers")
            == folder_contents(path("threads2.rankscope") / "runs" / "001" / "layers"));
}

void TestProject::moves_with_its_checkpoint()
{
    fs::create_directory(path("elsewhere"));
    fs::copy(path("model"), path("elsewhere") / "model", fs::copy_options::recursive);
    QVERIFY(write_text_file(path("elsewhere") / "a.rankscope.json", content_, true));
    const auto project = Project::read(path("elsewhere") / "a.rankscope.json");
    VERIFY_OK(project);
    VERIFY_OK(project->model());
    const auto text = project->check_text(); // it stayed behind
    QVERIFY(!text);
    QVERIFY2(text.error().sentence().find("text.txt") != std::string::npos, text.error().sentence().c_str());
}

void TestProject::what_changed_is_refused()
{
    const auto project = Project::read(path("elsewhere") / "a.rankscope.json");
    VERIFY_OK(project);
    QVERIFY(write_text_file(path("elsewhere") / "text.txt", "Another text altogether.", true));
    QVERIFY(!project->check_text());
    fs::resize_file(path("elsewhere") / "model" / "model.safetensors",
                    fs::file_size(path("model") / "model.safetensors") - 4);
    QVERIFY(!project->model());
    fs::remove_all(path("elsewhere") / "model");
    const auto gone = project->model();
    QVERIFY(!gone);
    QVERIFY(gone.error().sentence().find("checkpoint") != std::string::npos);
    QCOMPARE(run_cli({"project", place("elsewhere/a.rankscope.json")}).status, 0); // it can still be read
    QCOMPARE(run_cli({"project", place("elsewhere/a.rankscope.json"), "--run"}).status, 3);
}

void TestProject::newer_ones_are_only_read()
{
    QString newer = QString::fromStdString(content_);
    newer.replace("\"schema\": 1", "\"schema\": 2");
    QVERIFY(write_text_file(path("newer.rankscope.json"), newer.toStdString(), true));
    const auto project = Project::read(path("newer.rankscope.json"));
    VERIFY_OK(project);
    const auto written = project->write(path("newer.rankscope.json"), true);
    QVERIFY(!written);
    QVERIFY(written.error().sentence().find("newer program") != std::string::npos);
    QVERIFY(*read_text_file(path("newer.rankscope.json")) == newer.toStdString());
}

void TestProject::damaged_data()
{
    QTest::addColumn<QByteArray>("from");
    QTest::addColumn<QByteArray>("to");
    QTest::newRow("format") << QByteArray("rankscope.project") << QByteArray("rankscope.run");
    QTest::newRow("schema") << QByteArray("\"schema\": 1") << QByteArray("\"schema\": 0");
    QTest::newRow("schema text") << QByteArray("\"schema\": 1") << QByteArray("\"schema\": \"1\"");
    QTest::newRow("no path") << QByteArray("\"path\": \"model\"") << QByteArray("\"path\": \"\"");
    QTest::newRow("a path that is a list") << QByteArray("\"path\": \"model\"") << QByteArray("\"path\": []");
    QTest::newRow("samples") << QByteArray("\"samples\": 8") << QByteArray("\"samples\": -8");
    QTest::newRow("length") << QByteArray("\"length\": 64") << QByteArray("\"length\": 1e300");
    QTest::newRow("activation bits") << QByteArray("\"activation_bits\": 16")
                                     << QByteArray("\"activation_bits\": 99");
    QTest::newRow("clip") << QByteArray("\"activation_clip\": 0.9") << QByteArray("\"activation_clip\": -1");
    QTest::newRow("runs") << QByteArray("\"runs\": []") << QByteArray("\"runs\": {}");
    QTest::newRow("a run out of the folder")
        << QByteArray("\"runs\": []")
        << QByteArray("\"runs\": [{\"name\": \"../../x\", \"threads\": 1, \"seconds\": 1}]");
    QTest::newRow("seed") << QByteArray("\"seed\": \"0\"")
                          << QByteArray("\"seed\": \"99999999999999999999\"");
    QTest::newRow("text hash") << QByteArray("\"text_hash\": \"") << QByteArray("\"text_hash\": \"!");
    QTest::newRow("rows") << QByteArray("\"rows\": [") << QByteArray("\"rows\": [7,");
}

void TestProject::damaged()
{
    QFETCH(QByteArray, from);
    QFETCH(QByteArray, to);
    QByteArray content = QByteArray::fromStdString(content_);
    QVERIFY2(content.contains(from), from.constData());
    content.replace(content.indexOf(from), from.size(), to);
    QVERIFY(write_text_file(path("damaged.rankscope.json"), content.toStdString(), true));
    const auto project = Project::read(path("damaged.rankscope.json"));
    QVERIFY(!project);
    QCOMPARE(project.error().kind, ErrorKind::BadInput);
    QVERIFY2(project.error().sentence().find("damaged.rankscope.json") != std::string::npos,
             project.error().sentence().c_str());
}

void TestProject::random_damage()
{
    const RandomStream random(9, "project");
    for (std::uint64_t i = 0; i < 400; ++i) {
        std::string content = content_;
        const std::size_t at = random.below(3 * i, content.size());
        if (i % 2 == 0)
            content.resize(at);
        else
            content[at] = static_cast<char>(random.below(3 * i + 1, 256));
        QVERIFY(write_text_file(path("random.rankscope.json"), content, true));
        const auto project = Project::read(path("random.rankscope.json")); // an answer, whatever it is
        QVERIFY(project || !project.error().message.empty());
        if (i % 2 == 0 && at + 2 < content_.size())
            QVERIFY(!project);
    }
}

QTEST_GUILESS_MAIN(TestProject)
#include "test_project.moc"
