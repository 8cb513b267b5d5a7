// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/model/model.h"
#include "tests/support/command.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonObject>
#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include <signal.h>

#include <algorithm>
#include <fstream>
#include <sstream>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

/// A Llama of zeros that takes no room on the drive: a header, and a hole where the weights would stand.
struct HollowModel {
    Index hidden = 512;
    Index intermediate = 1024;
    Index blocks = 40;
    Index vocabulary = 0;

    std::uint64_t write(const fs::path& folder) const;
};

std::uint64_t HollowModel::write(const fs::path& folder) const
{
    fs::create_directories(folder);
    for (const auto& entry : fs::directory_iterator(sample_folder())) {
        const std::string name = entry.path().filename().string();
        if (name.find("tokenizer") != std::string::npos || name == "special_tokens_map.json")
            fs::copy(entry.path(), folder / name);
    }
    auto config = *Json::read(sample_folder() / "config.json");
    config.set("hidden_size", std::int64_t{hidden});
    config.set("intermediate_size", std::int64_t{intermediate});
    config.set("num_hidden_layers", std::int64_t{blocks});
    config.set("num_attention_heads", 8);
    config.set("num_key_value_heads", 8);
    config.set("head_dim", std::int64_t{hidden / 8});
    config.set("vocab_size", std::int64_t{vocabulary});
    config.set("tie_word_embeddings", true);
    if (!write_text_file(folder / "config.json", config.dump(), true))
        qFatal("cannot write the config");
    Json header;
    std::uint64_t offset = 0;
    const auto add = [&](const std::string& name, std::vector<Index> shape) {
        std::uint64_t bytes = 4;
        Json sizes = Json::Array{};
        for (const Index size : shape) {
            bytes *= static_cast<std::uint64_t>(size);
            sizes.push_back(std::int64_t{size});
        }
        Json offsets = Json::Array{};
        offsets.push_back(offset);
        offsets.push_back(offset + bytes);
        offset += bytes;
        Json entry;
        entry.set("dtype", "F32");
        entry.set("shape", std::move(sizes));
        entry.set("data_offsets", std::move(offsets));
        header.set(name, std::move(entry));
    };
    add("model.embed_tokens.weight", {vocabulary, hidden});
    add("model.norm.weight", {hidden});
    for (Index block = 0; block < blocks; ++block) {
        const std::string prefix = "model.layers." + std::to_string(block) + ".";
        for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
            add(prefix + "self_attn." + name + ".weight", {hidden, hidden});
        add(prefix + "mlp.gate_proj.weight", {intermediate, hidden});
        add(prefix + "mlp.up_proj.weight", {intermediate, hidden});
        add(prefix + "mlp.down_proj.weight", {hidden, intermediate});
        add(prefix + "input_layernorm.weight", {hidden});
        add(prefix + "post_attention_layernorm.weight", {hidden});
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    std::ofstream file(folder / "model.safetensors", std::ios::binary);
    const auto length = static_cast<std::uint64_t>(text.size());
    for (int i = 0; i < 8; ++i)
        file.put(static_cast<char>(length >> (8 * i) & 0xFF));
    file << text;
    file.close();
    fs::resize_file(folder / "model.safetensors", 8 + length + offset);
    return 8 + length + offset;
}

} // namespace

class TestCalibrate : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void a_model_larger_than_the_budget_stays_within_it();
    void killed_passes_resume_to_the_same_bytes();
    void an_interrupt_saves_what_is_finished();
    void a_full_drive_is_said_and_overcome();
    void collects_covariances_and_thresholds();
    void statistics_say_what_the_pass_saw();
    void tables_of_every_figure();

private:
    QString place(const char* name) const { return folder_->filePath(name); }
    QStringList command(const char* out, const QStringList& more = {}, int samples = 48) const
    {
        return QStringList{"calibrate", sample_, "--text", text_,     "--samples", QString::number(samples),
                           "--length",  "64",    "--out",  place(out)}
               + more;
    }
    std::map<std::string, std::string> contents(const char* name) const
    {
        return folder_contents(place(name).toStdString());
    }

    std::unique_ptr<QTemporaryDir> folder_;
    QString sample_ = QString::fromStdString(sample_folder().string());
    QString text_ = QString::fromStdString((sample_folder() / "calibration.txt").string());
};

void TestCalibrate::a_model_larger_than_the_budget_stays_within_it()
{
    HollowModel hollow;
    hollow.vocabulary = sample_model()->config().vocabulary;
    const std::uint64_t bytes = hollow.write(place("hollow").toStdString());
    constexpr std::uint64_t k_budget = 192 << 20;
    QVERIFY2(bytes > 2 * k_budget, qPrintable(QString::number(bytes)));
    const QJsonObject done =
        document({"calibrate", place("hollow"), "--text", text_, "--samples", "4", "--length", "64",
                  "--memory", "192MiB", "--threads", "2", "--out", place("cal")});
    const double peak = done["process"]["peak_resident_bytes"].toDouble();
    qInfo("model %.1f MB, budget %.1f MB, peak %.1f MB", static_cast<double>(bytes) / 1e6,
          static_cast<double>(k_budget) / 1e6, peak / 1e6);
    QVERIFY(peak > 0.0);
    QVERIFY2(peak <= static_cast<double>(k_budget), qPrintable(QString::number(peak)));
    // Too little is said before the work starts.
    const CommandResult refused =
        run_cli({"calibrate", place("hollow"), "--text", text_, "--memory", "20MiB", "--out", place("none")});
    QCOMPARE(refused.status, 4);
    QVERIFY(refused.errors.contains("--memory"));
}

void TestCalibrate::killed_passes_resume_to_the_same_bytes()
{
    QCOMPARE(run_cli(command("whole")).status, 0);
    const auto whole = contents("whole");
    int kills = 0;
    bool resumed_from_a_block = false;
    // Later and later, until the pass is through before the signal comes.
    for (int delay_ms = 40; delay_ms < 60'000; delay_ms += delay_ms / 4) {
        QProcess process;
        process.start(QString::fromStdString(cli_program().string()), command("cal", {"--resume"}));
        QVERIFY(process.waitForStarted());
        if (process.waitForFinished(delay_ms)) {
            QCOMPARE(process.exitCode(), 0);
            break;
        }
        ::kill(static_cast<pid_t>(process.processId()), SIGKILL);
        process.waitForFinished();
        ++kills;
        if (QFile::exists(place("cal") + "/calibration.json"))
            break; // between the renaming and the end of the process: whole, as is compared below
        resumed_from_a_block |= QFile::exists(place("cal.unfinished/pass.json"));
        if (QDir(place("cal.unfinished")).exists()) { // what a kill in the middle of a file leaves
            const QString half = place("cal.unfinished/block-0001.safetensors.part-1");
            QVERIFY(write_text_file(half.toStdString(), "half", true).has_value());
        }
    }
    QVERIFY(kills > 0);
    QVERIFY(contents("cal") == whole);
    QVERIFY(!QFile::exists(place("cal.unfinished")));
    qInfo("killed %d times%s", kills, resumed_from_a_block ? ", resumed from a finished block" : "");
}

void TestCalibrate::an_interrupt_saves_what_is_finished()
{
    QProcess process;
    process.start(QString::fromStdString(cli_program().string()), command("cal", {}, 400));
    QVERIFY(process.waitForStarted());
    QTRY_VERIFY_WITH_TIMEOUT(
        QFile::exists(place("cal.unfinished/pass.json")) || process.state() == QProcess::NotRunning, 60'000);
    process.terminate(); // SIGTERM
    QVERIFY(process.waitForFinished(60'000));
    if (process.exitCode() == 0)
        QSKIP("the pass was through before the signal came");
    QCOMPARE(process.exitCode(), 130);
    QVERIFY(process.readAllStandardError().contains("--resume"));
    const CommandResult refused = run_cli(command("cal", {}, 400));
    QCOMPARE(refused.status, 3);
    QVERIFY(refused.errors.contains("--resume"));
    QCOMPARE(run_cli(command("cal", {"--resume"}, 400)).status, 0);
}

void TestCalibrate::a_full_drive_is_said_and_overcome()
{
    QCOMPARE(run_cli(command("whole")).status, 0);
    std::uint64_t largest = 0;
    for (const auto& [name, content] : contents("whole"))
        largest = std::max<std::uint64_t>(largest, content.size());
    // Room for the hidden states, but not for a block's file.
    const CommandResult full = run_cli(command("cal"), largest - 1);
    QCOMPARE(full.status, 4);
    QVERIFY2(full.errors.contains("block-"), full.errors);
    QVERIFY(!QFile::exists(place("cal")));
    // Not even that.
    const CommandResult none = run_cli(command("other"), 64 << 10);
    QCOMPARE(none.status, 4);
    QVERIFY2(none.errors.contains("hidden"), none.errors);
    QVERIFY(!QFile::exists(place("other")) && !QFile::exists(place("other.unfinished")));
    QCOMPARE(run_cli(command("cal", {"--resume"})).status, 0);
    QVERIFY(contents("cal") == contents("whole"));
}

void TestCalibrate::collects_covariances_and_thresholds()
{
    const QJsonObject done =
        document(command("cal", {"--quantized-activations", "4", "--threshold", "3", "--threshold", "1.5"}));
    QCOMPARE(done["activation_bits"].toInt(), 4);
    const QJsonObject stats =
        document({"stats", sample_, "--calibration", place("cal"), "--layers", "*.0.*q_proj"});
    const QJsonArray thresholds = stats["layers"][0]["activations"]["thresholds"].toArray();
    QCOMPARE(thresholds.size(), 3);
    QCOMPARE(thresholds[2].toObject()["threshold"].toDouble(), 1.5);
    QVERIFY(thresholds[2].toObject()["channels"].toInt() >= thresholds[1].toObject()["channels"].toInt());
    QCOMPARE(run_cli(command("none", {"--quantized-activations", "9"})).status, 2);
    QCOMPARE(run_cli(command("none", {"--threshold", "-1"})).status, 2);
}

void TestCalibrate::statistics_say_what_the_pass_saw()
{
    QCOMPARE(run_cli(command("cal")).status, 0);
    const QJsonObject stats = document(
        {"stats", sample_, "--calibration", place("cal"), "--layers", "*.1.*", "--spectrum-rank", "8"});
    QCOMPARE(stats["layers"].toArray().size(), 7);
    for (const QJsonValue& value : stats["layers"].toArray()) {
        const QJsonObject activations = value["activations"].toObject();
        QCOMPARE(activations["tokens"].toInt(), activations["first_tokens"]["tokens"].toInt()
                                                    + activations["later_tokens"]["tokens"].toInt());
        QCOMPARE(activations["first_tokens"]["tokens"].toInt(), 48);
        const double off_diagonal = activations["off_diagonal_share"].toDouble(-1.0);
        QVERIFY(off_diagonal >= 0.0 && off_diagonal < 1.0);
        QVERIFY(activations["mean_token_crest"].toDouble() >= 1.0);
        QVERIFY(value["quantization_gain_db"].toDouble() > 10.0); // 4 bits
        QVERIFY(value["incoherence"].toDouble() >= 1.0);
        QCOMPARE(value["leading_singular_values"].toArray().size(), 8);
    }
    const QJsonObject block = stats["blocks"][0].toObject();
    QCOMPARE(block["block"].toInt(), 1);
    QCOMPARE(block["strongest"].toArray().size(), 32);
    QVERIFY(stats["persistent_outlier_channels"].isArray());
    const CommandResult text =
        run_cli({"stats", sample_, "--calibration", place("cal"), "--layers", "*.1.*"});
    QVERIFY(text.output.contains("block output"));
    QVERIFY(text.output.contains("off-diagonal"));
    QCOMPARE(text.output.count("model.layers.1.self_attn.q_proj"), 2); // a weight, and an input that three share
    QCOMPARE(text.output.count("model.layers.1.self_attn.k_proj"), 1);
    QVERIFY(text.output.contains("q k v"));
    QVERIFY(text.output.contains("in a quarter of these inputs: "));
}

void TestCalibrate::tables_of_every_figure()
{
    QCOMPARE(run_cli(command("cal")).status, 0);
    QCOMPARE(run_cli({"stats", sample_, "--calibration", place("cal"), "--layers", "*.0.mlp.down_proj",
                      "--spectrum", "--csv", place("tables")})
                 .status,
             0);
    const auto tables = contents("tables");
    for (const char* kind : {"channels", "inputs", "histogram", "correlation", "spectrum"}) {
        const auto found = tables.find(std::string(kind) + "/model.layers.0.mlp.down_proj.csv");
        QVERIFY2(found != tables.end(), kind);
        QVERIFY(std::count(found->second.begin(), found->second.end(), '\n') > 8);
    }
    QVERIFY(tables.contains("layers.csv") && tables.contains("inputs.csv")
            && tables.contains("blocks.csv"));
    // Every entry is counted once.
    std::istringstream histogram(tables.at("histogram/model.layers.0.mlp.down_proj.csv"));
    std::string line;
    std::getline(histogram, line);
    std::uint64_t entries = 0;
    while (std::getline(histogram, line))
        entries += std::stoull(line.substr(line.rfind(',') + 1));
    const auto layer = sample_model()->find_linear("model.layers.0.mlp.down_proj");
    QCOMPARE(entries, std::uint64_t{48 * 64} * static_cast<std::uint64_t>(layer->in));
}

QTEST_GUILESS_MAIN(TestCalibrate)
#include "test_calibrate.moc"
