// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/command.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include <signal.h>

#include <cmath>
#include <fstream>

using namespace rankscope;
using rankscope::test::CommandResult;
using rankscope::test::document;
using rankscope::test::run_cli;
namespace fs = std::filesystem;

class TestCli : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void help_of_everything_data();
    void help_of_everything();
    void version();
    void usage_errors_data();
    void usage_errors();
    void global_options_before_and_after();
    void info();
    void info_of_a_bare_file();
    void tokenize_and_back();
    void logits_file();
    void calibration_document();
    void statistics();
    void spectrum_tables();
    void methods_document();
    void plan_document();
    void plan_for_a_budget();
    void compression_document();
    void progress_is_plain_lines();
    void perplexity_of_checkpoint_and_run();
    void questions_with_choices();
    void comparison();
    void export_formats_data();
    void export_formats();
    void devices();
    void missing_device();
    void interrupted_data();
    void interrupted();
    void demonstration();

private:
    QString place(const QString& name) const { return folder_.filePath(name); }

    QTemporaryDir folder_;
    const QString sample_ = QString::fromStdString(test::sample_folder().string());
    const QString text_ = sample_ + "/evaluation.txt";
};

void TestCli::initTestCase()
{
    QVERIFY2(fs::exists(test::cli_program()), "rankscope-cli is not built");
    CommandResult result = run_cli({"calibrate", sample_, "--text", sample_ + "/calibration.txt", "--samples",
                                    "8", "--length", "64", "--out", place("cal")});
    QVERIFY2(result.status == 0, result.errors);
    result = run_cli({"plan", sample_, "--calibration", place("cal"), "--method", "odlri", "--bits", "2",
                      "--group", "64", "--rank", "8", "--set", "*.down_proj:iterations=3", "--out",
                      place("plan.json")});
    QVERIFY2(result.status == 0, result.errors);
    result = run_cli({"compress", sample_, "--plan", place("plan.json"), "--calibration", place("cal"),
                      "--out", place("run")});
    QVERIFY2(result.status == 0, result.errors);
}

void TestCli::help_of_everything_data()
{
    QTest::addColumn<QString>("command");
    for (const char* command : {"", "info", "tokenize", "logits", "calibrate", "stats", "methods", "plan",
                                "compress", "project", "evaluate", "compare", "export", "decompose", "smooth", "sweep",
                                "devices", "demo"})
        QTest::newRow(*command ? command : "program") << QString(command);
}

void TestCli::help_of_everything()
{
    QFETCH(QString, command);
    const CommandResult result =
        run_cli(command.isEmpty() ? QStringList{"--help"} : QStringList{command, "--help"});
    QCOMPARE(result.status, 0);
    QVERIFY(result.output.contains("Usage"));
    QVERIFY(result.errors.isEmpty());
}

void TestCli::version()
{
    const CommandResult result = run_cli({"--version"});
    QCOMPARE(result.status, 0);
    QVERIFY(result.output.startsWith("rankscope-cli "));
}

void TestCli::usage_errors_data()
{
    QTest::addColumn<QStringList>("arguments");
    QTest::addColumn<QString>("named");
    QTest::newRow("no subcommand") << QStringList{} << "subcommand";
    QTest::newRow("unknown subcommand") << QStringList{"compres"} << "compres";
    QTest::newRow("unknown option") << QStringList{"info", sample_, "--tensor-list"} << "--tensor-list";
    QTest::newRow("missing path") << QStringList{"info"} << "PATH";
    QTest::newRow("missing method") << QStringList{"plan", sample_} << "--method";
    QTest::newRow("no number") << QStringList{"info", sample_, "--threads", "two"} << "--threads";
    QTest::newRow("negative threads") << QStringList{"info", sample_, "--threads", "-1"} << "--threads";
    QTest::newRow("size") << QStringList{"evaluate", sample_, "--text", text_, "--memory", "lots"}
                          << "--memory";
    QTest::newRow("quiet and verbose") << QStringList{"info", sample_, "--quiet", "--verbose"} << "--quiet";
    QTest::newRow("two texts") << QStringList{"tokenize", sample_, "--text", "a", "--decode", "1"}
                               << "--text";
    QTest::newRow("no text") << QStringList{"logits", sample_} << "--text";
    QTest::newRow("unknown method") << QStringList{"plan", sample_, "--method", "magic"} << "magic";
    QTest::newRow("unknown backend") << QStringList{"logits", sample_, "--text", "a", "--backend", "abacus"}
                                     << "abacus";
    QTest::newRow("unknown protocol")
        << QStringList{"evaluate", sample_, "--text", text_, "--protocol", "mine"} << "mine";
    QTest::newRow("unknown format") << QStringList{"export", place("run"), "--format",
                                                   "floppy", "--out",      place("never")}
                                    << "floppy";
    QTest::newRow("bad setting") << QStringList{"plan", sample_, "--method", "rtn", "--set", "*:bits"}
                                 << "bits";
    QTest::newRow("no such layer") << QStringList{"stats", sample_, "--layers", "nothing*"} << "nothing*";
    QTest::newRow("rank beyond the matrix")
        << QStringList{"plan", sample_, "--method", "odlri", "--rank", "33", "--out", place("never")}
        << "model.layers.0.self_attn.k_proj";
    QTest::newRow("group below -1") << QStringList{"plan",    sample_, "--method", "rtn",
                                                   "--group", "-2",    "--out",    place("never")}
                                    << "group";
    QTest::newRow("group no number") << QStringList{"plan", sample_, "--method", "rtn", "--group", "many"}
                                     << "--group";
    QTest::newRow("method without calibration")
        << QStringList{"compress", sample_, "--plan", place("plan.json"), "--out", place("never")}
        << "calibrat";
    QTest::newRow("resume and force")
        << QStringList{"compress", sample_,        "--plan",   place("plan.json"),
                       "--out",    place("never"), "--resume", "--force"}
        << "--resume";
}

void TestCli::usage_errors()
{
    QFETCH(QStringList, arguments);
    QFETCH(QString, named);
    const CommandResult result = run_cli(arguments);
    QVERIFY2(result.status == 2, result.errors);
    QVERIFY2(result.errors.contains(named.toUtf8()), result.errors);
    QVERIFY(result.output.isEmpty());
    QVERIFY(!fs::exists(place("never").toStdString()));
    const CommandResult json = run_cli(arguments + QStringList{"--json"});
    QCOMPARE(json.status, result.status);
    const QJsonObject error = QJsonDocument::fromJson(json.output).object()["error"].toObject();
    QCOMPARE(error["exit_status"].toInt(), result.status);
    QVERIFY(!error["message"].toString().isEmpty());
}

void TestCli::global_options_before_and_after()
{
    const CommandResult before = run_cli({"--json", "--threads", "1", "info", sample_});
    const CommandResult after = run_cli({"info", sample_, "--threads", "1", "--json"});
    QCOMPARE(before.status, 0);
    QCOMPARE(before.output, after.output);
    QVERIFY(!before.output.isEmpty());
}

void TestCli::info()
{
    const QJsonObject json = document({"info", sample_, "--tensors"});
    QCOMPARE(json["architecture"].toString(), "llama");
    QCOMPARE(json["hidden"].toInt(), 64);
    QCOMPARE(json["layers"].toArray().size(), 35);
    QCOMPARE(json["tensor_list"].toArray().size(), json["tensors"].toInt());
    const QJsonObject down = json["layers"].toArray()[6].toObject();
    QCOMPARE(down["name"].toString(), "model.layers.0.mlp.down_proj");
    QCOMPARE(down["role"].toString(), "down");
    QCOMPARE(down["in"].toInt(), 172);
    const CommandResult text = run_cli({"info", sample_});
    QCOMPARE(text.status, 0);
    QVERIFY(text.output.contains("Llama") && text.output.contains("model.layers.4.mlp.down_proj"));
}

void TestCli::info_of_a_bare_file()
{
    fs::create_directory(place("bare").toStdString());
    fs::copy(test::sample_folder() / "model.safetensors", place("bare/alone.safetensors").toStdString());
    const QJsonObject json = document({"info", place("bare/alone.safetensors")});
    QVERIFY(json["architecture"].isNull());
    QVERIFY(json["tensors"].toInt() > 35);
}

void TestCli::tokenize_and_back()
{
    const QString text = "Once upon a time, Tim's <s> café.\n";
    const QJsonArray plain = document({"tokenize", sample_, "--text", text})["ids"].toArray();
    const QJsonArray with_bos = document({"tokenize", sample_, "--text", text, "--bos"})["ids"].toArray();
    QVERIFY(plain.size() > 5);
    QCOMPARE(with_bos.size(), plain.size() + 1);
    QCOMPARE(with_bos[0].toInt(), 1);
    std::ofstream(place("words.txt").toStdString()) << text.toStdString();
    QCOMPARE(document({"tokenize", sample_, "--file", place("words.txt")})["ids"].toArray(), plain);
    QStringList ids;
    for (const auto& id : document({"tokenize", sample_, "--text", "Once upon a time"})["ids"].toArray())
        ids << QString::number(id.toInt());
    QCOMPARE(document({"tokenize", sample_, "--decode", ids.join(",")})["text"].toString(),
             "Once upon a time");
    QCOMPARE(run_cli({"tokenize", sample_, "--decode", "1,x"}).status, 3);
    QCOMPARE(run_cli({"tokenize", sample_, "--decode", "99999"}).status, 3);
    // A folder with only a tokenizer is enough.
    fs::create_directory(place("tokenizer only").toStdString());
    fs::copy(test::sample_folder() / "tokenizer.json", place("tokenizer only/tokenizer.json").toStdString());
    QCOMPARE(document({"tokenize", place("tokenizer only"), "--text", text})["ids"].toArray(), plain);
}

void TestCli::logits_file()
{
    const QJsonObject json =
        document({"logits", sample_, "--text", "Once upon a time", "--out", place("l.safetensors")});
    QCOMPARE(json["tokens"].toInt(), 5); // BOS and four
    const auto reader = CheckpointReader::open(place("l.safetensors").toStdString());
    QVERIFY(reader);
    const auto from_text = (*reader)->read("logits");
    QVERIFY(from_text);
    QCOMPARE(from_text->rows(), 5);
    QCOMPARE(from_text->cols(), 512);
    std::ofstream(place("ids.json").toStdString()) << R"({"ids": [1, 403, 407, 261, 378]})";
    document({"logits", sample_, "--ids", place("ids.json"), "--out", place("i.safetensors")});
    const auto other = CheckpointReader::open(place("i.safetensors").toStdString());
    QVERIFY(other);
    const auto from_ids = (*other)->read("logits");
    QVERIFY(from_ids && *from_ids == *from_text);
    QCOMPARE(run_cli({"logits", sample_, "--text", "a", "--out", place("l.safetensors")}).status,
             3); // exists
    QCOMPARE(run_cli({"logits", sample_, "--text", "a", "--out", place("l.safetensors"), "--force"}).status,
             0);
    QCOMPARE(run_cli({"logits", place("run"), "--text", "Once upon"}).status,
             0); // a run in place of a checkpoint
}

void TestCli::calibration_document()
{
    const QJsonObject json = document({"calibrate", sample_, "--text", sample_ + "/calibration.txt",
                                       "--samples", "2", "--length", "32", "--out", place("cal2")});
    QCOMPARE(json["tokens"].toInt(), 64);
    QCOMPARE(json["groups"].toInt(), 20); // qkv, o, gate/up, down in five blocks
    QVERIFY(json["process"].toObject()["peak_resident_bytes"].toDouble() > 1e6);
    QCOMPARE(json["process"].toObject()["backend"].toString().isEmpty(), false);
    QCOMPARE(run_cli({"calibrate", sample_, "--text", text_, "--out", place("cal2")}).status, 3); // exists
}

void TestCli::statistics()
{
    const QJsonArray layers =
        document({"stats", sample_, "--calibration", place("cal"), "--layers", "*.0.mlp.*"})["layers"]
            .toArray();
    QCOMPARE(layers.size(), 3);
    const QJsonObject down = layers[2].toObject();
    QCOMPARE(down["layer"].toString(), "model.layers.0.mlp.down_proj");
    QVERIFY(down["max_abs"].toDouble() > down["rms"].toDouble());
    QVERIFY(down["kurtosis"].toDouble() > 1.0);
    QCOMPARE(down["activations"].toObject()["tokens"].toInt(), 512);
    QVERIFY(!down.contains("spectrum"));
    const CommandResult text = run_cli({"stats", sample_});
    QCOMPARE(text.status, 0);
    QCOMPARE(text.output.count('\n'), 37); // a title, the names of the columns, 35 layers
}

void TestCli::spectrum_tables()
{
    const QJsonArray layers = document({"stats", sample_, "--calibration", place("cal"), "--layers",
                                        "*.1.*.k_proj", "--spectrum", "--csv", place("tables")})["layers"]
                                  .toArray();
    const QJsonObject spectrum = layers[0].toObject()["spectrum"].toObject();
    QCOMPARE(spectrum["weight"].toArray().size(), 32);
    QCOMPARE(spectrum["weighted_residual"].toArray().size(), 32);
    for (const char* table : {"layers.csv", "channels/model.layers.1.self_attn.k_proj.csv",
                              "spectrum/model.layers.1.self_attn.k_proj.csv"})
        QVERIFY2(fs::exists(fs::path(place("tables").toStdString()) / table), table);
    std::ifstream channels(place("tables").toStdString() + "/channels/model.layers.1.self_attn.k_proj.csv");
    std::string line;
    int lines = 0;
    while (std::getline(channels, line))
        ++lines;
    QCOMPARE(lines, 65); // header and one row an input channel
}

void TestCli::methods_document()
{
    const QJsonArray methods = document({"methods"})["methods"].toArray();
    QSet<QString> ids;
    for (const auto& method : methods) {
        const QJsonObject object = method.toObject();
        ids << object["id"].toString();
        for (const auto& parameter : object["parameters"].toArray())
            QVERIFY(!parameter.toObject()["help"].toString().isEmpty());
    }
    for (const char* id : {"rtn", "gptq", "svd_residual", "caldera", "odlri"})
        QVERIFY2(ids.contains(id), id);
}

void TestCli::plan_document()
{
    const QJsonObject json = document({"plan", sample_, "--method", "rtn", "--bits", "4", "--group", "0",
                                       "--rank", "8", "--layers", "*.mlp.*", "--set", "*.down_proj:bits=8"});
    const QJsonArray rows = json["plan"].toObject()["rows"].toArray();
    QCOMPARE(rows.size(), 35);
    QCOMPARE(rows[0].toObject()["include"].toBool(), false);
    QCOMPARE(rows[6].toObject()["parameters"].toObject()["bits"].toInt(), 8);
    QVERIFY(json["planned_bytes"].toInt() < json["original_bytes"].toInt());
    QVERIFY(json["out"].isNull());
    QCOMPARE(run_cli({"plan", sample_, "--method", "rtn", "--out", place("plan.json")}).status, 3); // exists
    QVERIFY(run_cli({"plan", sample_, "--method", "odlri"}).output.contains("bits per weight"));
}

void TestCli::plan_for_a_budget()
{
    const QStringList arguments{"plan",          sample_,
                                "--calibration", place("cal"),
                                "--method",      "qera_exact",
                                "--group",       "32",
                                "--rank-step",   "4",
                                "--set",         "*.0.*.q_proj:rank=5,bits=4",
                                "--set",         "*.1.*.k_proj:locked=true,rank=7",
                                "--curves",      place("curves.json")};
    const QJsonObject json = document(arguments + QStringList{"--budget", "6bpw"});
    const QJsonObject budget = json["budget"].toObject();
    QCOMPARE(budget["proven"].toBool(), true);
    QVERIFY(budget["lower_bound"].toDouble() <= budget["error"].toDouble());
    QVERIFY(json["bits_per_weight"].toDouble() <= 6.0 && json["bits_per_weight"].toDouble() > 5.9);
    QCOMPARE(budget["used_bytes"].toInt(), json["planned_bytes"].toInt());
    QCOMPARE(budget["rows"].toArray().size(), 35);
    for (const QJsonValue& value : json["plan"].toObject()["rows"].toArray()) {
        const QJsonObject row = value.toObject();
        const QString layer = row["layer"].toString();
        const int rank = row["parameters"].toObject()["rank"].toInt();
        const int bits = row["parameters"].toObject()["bits"].toInt();
        if (layer == "model.layers.0.self_attn.q_proj")
            QVERIFY(rank == 5 && bits == 4);
        else if (layer == "model.layers.1.self_attn.k_proj")
            QVERIFY(rank == 7 && bits == 4); // the method's default bits, locked
        else
            QVERIFY(rank % 4 == 0 && bits >= 2 && bits <= 4);
    }
    // The predicted errors are those that the run then has.
    QCOMPARE(run_cli(arguments + QStringList{"--budget", "6bpw", "--out", place("budget.json")}).status, 0);
    const QJsonObject run = document({"compress", sample_, "--plan", place("budget.json"), "--calibration",
                                      place("cal"), "--out", place("budget_run")});
    const QJsonArray layers = run["layers"].toArray();
    for (int i = 0; i < layers.size(); ++i) {
        const double error = layers[i].toObject()["relative_activation_error"].toDouble();
        const QJsonObject predicted = budget["rows"].toArray()[i].toObject();
        QCOMPARE(predicted["layer"].toString(), layers[i].toObject()["layer"].toString());
        QVERIFY(std::abs(predicted["relative_activation_error"].toDouble() - error) < 1e-4 * error + 1e-6);
    }
    const CommandResult small = run_cli(arguments + QStringList{"--budget", "1bpw"});
    QCOMPARE(small.status, 2);
    QVERIFY(small.errors.contains("Give at least"));
    QCOMPARE(run_cli({"plan", sample_, "--method", "rtn", "--rank-step", "2"}).status, 2);
    QCOMPARE(run_cli({"plan", sample_, "--method", "rtn", "--bits", "2", "--bits-options", "2,3", "--budget",
                      "3bpw"})
                 .status,
             2);
    QCOMPARE(run_cli({"plan", sample_, "--method", "rtn", "--budget", "plenty"}).status, 2);
    QCOMPARE(run_cli({"plan", sample_, "--method", "rtn", "--budget", "5bpw", "--curves", place("plan.json")})
                 .status,
             3); // no curves
}

void TestCli::compression_document()
{
    const QJsonObject json = document({"compress", sample_, "--plan", place("plan.json"), "--calibration",
                                       place("cal"), "--out", place("run"), "--resume"});
    QCOMPARE(json["layers"].toArray().size(), 35);
    QCOMPARE(json["layers_done"].toInt(), 35);
    QCOMPARE(json["methods"].toString(), "odlri");
    QVERIFY(json["bits_per_weight"].toDouble() > 2.0);
    QVERIFY(json["process"].toObject().contains("threads"));
    QCOMPARE(run_cli({"compress", sample_, "--plan", place("plan.json"), "--calibration", place("cal"),
                      "--out", place("run")})
                 .status,
             3);
    const CommandResult memory = run_cli({"compress", sample_, "--plan", place("plan.json"), "--calibration",
                                          place("cal"), "--out", place("never"), "--memory", "50kB"});
    QCOMPARE(memory.status, 4);
    QVERIFY(!fs::exists(place("never").toStdString()));
}

void TestCli::progress_is_plain_lines()
{
    const QStringList command = {"compress",      sample_,      "--plan", place("plan.json"),
                                 "--calibration", place("cal"), "--out"};
    const CommandResult loud = run_cli(command + QStringList{place("loud"), "--verbose"});
    QCOMPARE(loud.status, 0);
    QVERIFY(loud.errors.contains("layer "));
    QVERIFY(loud.errors.contains("of memory at most"));
    QVERIFY(!loud.errors.contains('\r')); // no terminal here
    const CommandResult quiet = run_cli(command + QStringList{place("quiet"), "--quiet"});
    QCOMPARE(quiet.status, 0);
    QVERIFY2(quiet.errors.isEmpty(), quiet.errors);
}

void TestCli::perplexity_of_checkpoint_and_run()
{
    const QJsonObject checkpoint = document({"evaluate", sample_, "--text", text_, "--length", "128"});
    QCOMPARE(checkpoint["protocol"].toString(), "gptq");
    QCOMPARE(checkpoint["length"].toInt(), 128);
    const double before = checkpoint["perplexity"].toDouble();
    QVERIFY(before > 2.0 && before < 10.0);
    const QJsonObject run = document({"evaluate", place("run"), "--text", text_, "--length", "128"});
    QCOMPARE(run["original"].toObject()["perplexity"].toDouble(), before);
    const QJsonObject divergence = run["divergence"].toObject();
    QVERIFY(divergence["mean_kl"].toDouble() > 0.0
            && divergence["kl_99"].toDouble() > divergence["mean_kl"].toDouble());
    QVERIFY(divergence["same_top"].toDouble() > 0.3 && divergence["same_top"].toDouble() < 1.0);
    QVERIFY(run["perplexity"].toDouble() > before);
    QCOMPARE(run["run"].toObject()["layers_done"].toInt(), 35);
    const QJsonObject alone =
        document({"evaluate", place("run"), "--text", text_, "--length", "128", "--no-original"});
    QVERIFY(alone["original"].isNull());
    QCOMPARE(alone["perplexity"].toDouble(), run["perplexity"].toDouble());
    const QJsonObject windows = document({"evaluate", sample_, "--text", text_, "--protocol", "windows",
                                          "--length", "128", "--max-tokens", "500"});
    QCOMPARE(windows["protocol"].toString(), "windows");
    const CommandResult text = run_cli({"evaluate", place("run"), "--text", text_});
    QVERIFY(text.output.contains("original") && text.output.contains("compressed")
            && text.output.contains("gptq protocol"));
}

void TestCli::questions_with_choices()
{
    QFile file(place("little.jsonl"));
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write("{\"context\": \"Once upon a\", \"choices\": [\"elephant\", \"time\"], \"gold\": 1}\n");
    file.close();
    const QStringList command = {"evaluate", place("run"), "--tasks", place("little.jsonl")};
    const QJsonArray tasks =
        document(command + QStringList{"--predictions", place("predictions.jsonl")})["tasks"].toArray();
    QCOMPARE(tasks.size(), 2); // the original and the run
    for (const auto& task : tasks) {
        QCOMPARE(task.toObject()["questions"].toInt(), 1);
        QCOMPARE(task.toObject()["acc"].toObject()["value"].toDouble(), 1.0);
    }
    QFile predictions(place("predictions.jsonl"));
    QVERIFY(predictions.open(QIODevice::ReadOnly));
    QCOMPARE(predictions.readAll().count('\n'), 2);
    QVERIFY(run_cli(command).output.contains("acc_norm"));
    QCOMPARE(run_cli(command + QStringList{"--predictions", place("predictions.jsonl")}).status, 3);
    QCOMPARE(run_cli({"evaluate", place("run")}).status, 2);
}

void TestCli::comparison()
{
    const QJsonArray runs = document({"compare", place("run"), place("loud")})["runs"].toArray();
    QCOMPARE(runs.size(), 2);
    QCOMPARE(runs[0].toObject()["bits_per_weight"], runs[1].toObject()["bits_per_weight"]);
    const QJsonArray checkpoints =
        document({"compare", sample_, sample_, "--text", text_})["checkpoints"].toArray();
    QCOMPARE(checkpoints.size(), 2);
    const QJsonObject same = checkpoints[1].toObject();
    QCOMPARE(same["relative_error"].toDouble(), 0.0);
    QCOMPARE(same["bits_per_weight"].toDouble(), 32.0);
    QCOMPARE(same["layers"].toArray().size(), 35);
    QCOMPARE(same["perplexity"].toObject()["perplexity"].toDouble(),
             checkpoints[0].toObject()["perplexity"].toObject()["perplexity"].toDouble());
    QVERIFY(run_cli({"compare", sample_, sample_}).output.contains("model.layers.0.mlp.down_proj"));
    QCOMPARE(run_cli({"compare", sample_}).status, 2);               // nothing to compare with
    QCOMPARE(run_cli({"compare", place("run"), sample_}).status, 2); // a run and a checkpoint
    QCOMPARE(run_cli({"compare", place("run"), place("nowhere")}).status, 3);
}

void TestCli::export_formats_data()
{
    QTest::addColumn<QString>("format");
    QTest::newRow("hf") << "hf";
    QTest::newRow("hf-qlr") << "hf-qlr";
    QTest::newRow("peft") << "peft";
    QTest::newRow("gguf") << "gguf";
    QTest::newRow("gguf-lora") << "gguf-lora";
}

void TestCli::export_formats()
{
    QFETCH(QString, format);
    const QString out = place("exported " + format);
    const QJsonObject json = document({"export", place("run"), "--format", format, "--out", out, "--check"});
    QCOMPARE(json["checked"].toBool(), true);
    QVERIFY(fs::exists(out.toStdString() + (format.startsWith("gguf") ? "/rankscope.json" : "/config.json")));
    QCOMPARE(run_cli({"export", place("run"), "--format", format, "--out", out}).status, 3);
    QCOMPARE(run_cli({"export", place("run"), "--format", format, "--out", out, "--force"}).status, 0);
    if (format == "hf") { // a checkpoint like any other, with the run's perplexity
        const double exported =
            document({"evaluate", out, "--text", text_, "--length", "128"})["perplexity"].toDouble();
        const double run = document({"evaluate", place("run"), "--text", text_, "--length", "128",
                                     "--no-original"})["perplexity"]
                               .toDouble();
        QVERIFY2(std::abs(exported / run - 1.0) < 1e-3, qPrintable(QString("%1 %2").arg(exported).arg(run)));
    }
}

void TestCli::devices()
{
    const QJsonArray list = document({"devices"})["devices"].toArray();
    QVERIFY(!list.isEmpty());
    QCOMPARE(list[0].toObject()["id"].toString(), "cpu");
    QVERIFY(run_cli({"devices"}).output.contains("cpu"));
}

void TestCli::missing_device()
{
    const CommandResult result =
        run_cli({"logits", sample_, "--text", "a", "--backend", "vulkan:99", "--out", place("never")});
    QCOMPARE(result.status, 5);
    QVERIFY2(result.errors.contains("99") || result.errors.contains("Vulkan"), result.errors);
    QVERIFY(!fs::exists(place("never").toStdString()));
}

void TestCli::interrupted_data()
{
    QTest::addColumn<int>("signal");
    QTest::newRow("SIGINT") << SIGINT;
    QTest::newRow("SIGTERM") << SIGTERM;
}

void TestCli::interrupted()
{
    QFETCH(int, signal);
    const QString plan = place(QString("slow%1.json").arg(signal));
    const QString out = place(QString("interrupted%1").arg(signal));
    const CommandResult planned =
        run_cli({"plan", sample_, "--calibration", place("cal"), "--method", "odlri", "--bits", "2", "--rank",
                 "16", "--set", "*:iterations=60,early_stop=false", "--out", plan});
    QVERIFY2(planned.status == 0, planned.errors);
    const QStringList command = {"compress",      sample_,      "--plan", plan,
                                 "--calibration", place("cal"), "--out",  out};
    QProcess process;
    process.start(QString::fromStdString(test::cli_program().string()), command);
    QVERIFY(process.waitForStarted());
    const fs::path layers = fs::path(out.toStdString()) / "layers";
    std::error_code problem;
    QTRY_VERIFY_WITH_TIMEOUT(fs::exists(layers, problem) && !fs::is_empty(layers, problem), 60'000);
    kill(static_cast<pid_t>(process.processId()), signal);
    QVERIFY(process.waitForFinished(60'000));
    QCOMPARE(process.exitStatus(), QProcess::NormalExit);
    QCOMPARE(process.exitCode(), 130);
    QVERIFY(process.readAllStandardError().contains("--resume"));
    const auto saved = test::folder_contents(layers).size();
    QVERIFY(saved >= 1 && saved < 35);
    for (const auto& [name, content] : test::folder_contents(out.toStdString()))
        QVERIFY2(name.find(".part-") == std::string::npos, name.c_str());
    QCOMPARE(document(command + QStringList{"--resume"})["layers_done"].toInt(), 35);
}

void TestCli::demonstration()
{
    const QJsonObject json = document({"demo", "--out", place("demo")});
    const QJsonArray methods = json["methods"].toArray();
    QCOMPARE(methods.size(), 5);
    double last = 1.0;
    for (const auto& method : methods) { // each of the five is better than the one before
        const double error = method.toObject()["mean_relative_activation_error"].toDouble();
        QVERIFY2(error > 0.0 && error < last, qPrintable(method.toObject()["method"].toString()));
        last = error;
    }
    QVERIFY(json["odlri_not_better_than_caldera"].isArray());
    QVERIFY(fs::exists(place("demo/exported/model.safetensors").toStdString()));
    QCOMPARE(run_cli({"demo", "--out", place("demo")}).status, 3);
}

QTEST_GUILESS_MAIN(TestCli)
#include "test_cli.moc"
