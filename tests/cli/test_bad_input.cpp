// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every kind of bad input ends in a sentence that names the file and what is wrong with it, in the exit
// status of the command line's contract, and with nothing half-written.
#include "core/base/json.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "tests/support/command.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <sys/mount.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>

using namespace rankscope;
using rankscope::test::CommandResult;
using rankscope::test::run_cli;
namespace fs = std::filesystem;

using Spoil = std::function<void(const fs::path& checkpoint)>;
Q_DECLARE_METATYPE(Spoil)

namespace {

std::string read_file(const fs::path& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const fs::path& path, const std::string& content)
{
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

/// Changes the header of model.safetensors; the data stays where the new header's length puts it.
void edit_header(const fs::path& checkpoint, const std::function<void(Json::Object&)>& edit)
{
    const fs::path path = checkpoint / "model.safetensors";
    const std::string bytes = read_file(path);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    auto header = Json::parse(std::string_view(bytes).substr(8, length));
    QVERIFY(header);
    edit(*header->object_if());
    std::string text = header->dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    length = text.size();
    std::string result(8, '\0');
    std::memcpy(result.data(), &length, sizeof length);
    std::uint64_t old_length = 0;
    std::memcpy(&old_length, bytes.data(), sizeof old_length);
    write_file(path, result + text + bytes.substr(8 + old_length));
}

void edit_config(const fs::path& checkpoint, std::string_view key, Json value)
{
    auto config = Json::read(checkpoint / "config.json");
    QVERIFY(config);
    config->set(key, std::move(value));
    write_file(checkpoint / "config.json", config->dump(2));
}

constexpr char k_tensor[] = "model.layers.1.mlp.up_proj.weight";

} // namespace

class TestBadInput : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void checkpoints_data();
    void checkpoints();
    void unknown_architecture();
    void texts_data();
    void texts();
    void plans_data();
    void plans();
    void damaged_results_data();
    void damaged_results();
    void rank_and_group_data();
    void rank_and_group();
    void read_only_places_data();
    void read_only_places();
    void file_size_limit_data();
    void file_size_limit();
    void full_disk_data();
    void full_disk();

private:
    QString place(const QString& name) const { return folder_.filePath(name); }
    /// Runs a command, checks status and words, and that `out/` is as empty as before.
    void refused(const QStringList& arguments, int status, const QStringList& words, std::uint64_t limit = 0);
    /// One command of each kind that writes something, all into below `out`.
    void writers_data(bool only_large);

    QTemporaryDir folder_;
    const QString sample_ = QString::fromStdString(test::sample_folder().string());
    QString out_;
};

void TestBadInput::refused(const QStringList& arguments, int status, const QStringList& words,
                           std::uint64_t limit)
{
    const CommandResult result = run_cli(arguments, limit);
    QVERIFY2(result.status == status, result.errors + " [status " + QByteArray::number(result.status) + "]");
    for (const QString& word : words)
        QVERIFY2(result.errors.contains(word.toUtf8()), result.errors + " [lacks " + word.toUtf8() + "]");
    QVERIFY(result.output.isEmpty());
    QVERIFY2(fs::is_empty(out_.toStdString()), "something was left half-written");
}

void TestBadInput::initTestCase()
{
    out_ = place("out");
    fs::create_directory(out_.toStdString());
    const auto succeed = [](const QStringList& arguments) {
        const CommandResult result = run_cli(arguments);
        if (result.status != 0)
            qFatal("%s", result.errors.constData());
    };
    succeed({"calibrate", sample_, "--text", sample_ + "/calibration.txt", "--samples", "4", "--length", "32",
             "--out", place("cal")});
    succeed({"plan", sample_, "--method", "gptq", "--bits", "3", "--out", place("plan.json")});
    succeed({"compress", sample_, "--plan", place("plan.json"), "--calibration", place("cal"), "--out",
             place("run")});
}

void TestBadInput::checkpoints_data()
{
    QTest::addColumn<Spoil>("spoil");
    QTest::addColumn<QStringList>("words");
    const auto row = [](const char* name, Spoil spoil, QStringList words) {
        QTest::newRow(name) << spoil << words;
    };
    row("truncated file",
        [](const fs::path& folder) {
            fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") - 1000);
        },
        {"model.safetensors"});
    row("cut inside the header",
        [](const fs::path& folder) { fs::resize_file(folder / "model.safetensors", 500); },
        {"model.safetensors", "header"});
    row("empty file", [](const fs::path& folder) { fs::resize_file(folder / "model.safetensors", 0); },
        {"model.safetensors"});
    row("header longer than the file",
        [](const fs::path& folder) {
            std::string bytes = read_file(folder / "model.safetensors");
            const std::uint64_t length = 90'000'000;
            std::memcpy(bytes.data(), &length, sizeof length);
            write_file(folder / "model.safetensors", bytes);
        },
        {"model.safetensors", "header"});
    row("header that is no JSON",
        [](const fs::path& folder) {
            std::string bytes = read_file(folder / "model.safetensors");
            bytes[8] = '[';
            write_file(folder / "model.safetensors", bytes);
        },
        {"model.safetensors"});
    row("overlapping offsets",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) {
                header[k_tensor].set("data_offsets",
                                     header["model.layers.0.mlp.up_proj.weight"]["data_offsets"]);
            });
        },
        {"model.safetensors", "up_proj"});
    row("offsets beyond the end",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) {
                header[k_tensor].set("data_offsets", Json(Json::Array{std::int64_t{1} << 40,
                                                                      (std::int64_t{1} << 40) + 44032}));
            });
        },
        {"model.safetensors", k_tensor});
    row("offsets that do not fit the shape",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) {
                header[k_tensor].set("shape", Json(Json::Array{172, 65}));
            });
        },
        {"model.safetensors", k_tensor});
    row("unknown dtype",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) { header[k_tensor].set("dtype", "F33"); });
        },
        {"model.safetensors", k_tensor, "F33"});
    row("integers for weights",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) { header[k_tensor].set("dtype", "I32"); });
        },
        {k_tensor, "I32"});
    row("missing tensor",
        [](const fs::path& folder) {
            edit_header(folder, [](Json::Object& header) {
                header["model.layers.1.mlp.upward_proj.weight"] = header[k_tensor];
                header.erase(k_tensor);
            });
        },
        {"up"});
    row("missing shard",
        [](const fs::path& folder) {
            fs::rename(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors");
            const auto reader = CheckpointReader::open(folder / "model-00001-of-00002.safetensors");
            Json map;
            for (const TensorInfo& tensor : (*reader)->tensors())
                map.set(tensor.name, tensor.name == k_tensor ? "model-00002-of-00002.safetensors"
                                                             : "model-00001-of-00002.safetensors");
            Json index;
            index.set("weight_map", std::move(map));
            write_file(folder / "model.safetensors.index.json", index.dump());
        },
        {"model-00002-of-00002.safetensors"});
    row("configuration and tensors disagree",
        [](const fs::path& folder) { edit_config(folder, "intermediate_size", 180); }, {"mlp"});
    row("configuration that is no JSON",
        [](const fs::path& folder) { write_file(folder / "config.json", "{"); }, {"config.json"});
    row("no configuration", [](const fs::path& folder) { fs::remove(folder / "config.json"); },
        {"config.json"});
    row("NaN in a weight",
        [](const fs::path& folder) {
            test::copy_sample_with(folder, k_tensor, std::numeric_limits<float>::quiet_NaN());
        },
        {k_tensor});
    row("infinity in a weight",
        [](const fs::path& folder) {
            test::copy_sample_with(folder, k_tensor, std::numeric_limits<float>::infinity());
        },
        {k_tensor});
}

void TestBadInput::checkpoints()
{
    QFETCH(Spoil, spoil);
    QFETCH(QStringList, words);
    QTemporaryDir copy;
    const fs::path checkpoint = fs::path(copy.path().toStdString()) / "model";
    fs::copy(test::sample_folder(), checkpoint, fs::copy_options::recursive);
    spoil(checkpoint);
    const QString path = QString::fromStdString(checkpoint.string());
    refused({"stats", path, "--csv", out_ + "/tables"}, 3, words);
    refused({"calibrate", path, "--text", sample_ + "/calibration.txt", "--samples", "2", "--length", "32",
             "--out", out_ + "/cal"},
            3, words);
    refused({"evaluate", path, "--text", sample_ + "/evaluation.txt"}, 3, words);
    refused({"logits", path, "--text", "Once", "--out", out_ + "/logits.safetensors"}, 3, words);
}

void TestBadInput::unknown_architecture()
{
    QTemporaryDir copy;
    const fs::path checkpoint = fs::path(copy.path().toStdString()) / "model";
    fs::copy(test::sample_folder(), checkpoint, fs::copy_options::recursive);
    edit_config(checkpoint, "model_type", "perceptron");
    const QString path = QString::fromStdString(checkpoint.string());
    const CommandResult info = run_cli({"info", path});
    QVERIFY2(info.status == 0 && info.output.contains("\"perceptron\" is not known")
                 && info.output.contains("no text can flow through it"),
             info.output + info.errors);
    const CommandResult stats = run_cli({"stats", path});
    QVERIFY2(stats.status == 0 && stats.output.contains("mlp.up_proj"), stats.output + stats.errors);
    const QStringList words = {"perceptron", "llama"};
    refused({"calibrate", path, "--text", sample_ + "/calibration.txt", "--out", out_ + "/cal"}, 3, words);
    refused({"evaluate", path, "--text", sample_ + "/evaluation.txt"}, 3, words);
    refused({"logits", path, "--text", "Once", "--out", out_ + "/logits.safetensors"}, 3, words);
}

void TestBadInput::texts_data()
{
    QTest::addColumn<QByteArray>("content");
    QTest::addColumn<QStringList>("words");
    QTest::newRow("empty") << QByteArray() << QStringList{"text.txt", "empty"};
    QTest::newRow("too short") << QByteArray("Once upon a time.") << QStringList{"text.txt", "token"};
    QTest::newRow("not UTF-8") << QByteArray("Once upon a \xff time ").repeated(200)
                               << QStringList{"text.txt", "12"};
}

void TestBadInput::texts()
{
    QFETCH(QByteArray, content);
    QFETCH(QStringList, words);
    write_file(place("text.txt").toStdString(), content.toStdString());
    refused({"calibrate", sample_, "--text", place("text.txt"), "--out", out_ + "/cal"}, 3, words);
    refused({"evaluate", sample_, "--text", place("text.txt")}, 3, words);
    refused({"evaluate", place("run"), "--text", place("text.txt")}, 3, words);
    refused({"evaluate", sample_, "--text", place("no such file")}, 3, {"no such file"});
}

void TestBadInput::plans_data()
{
    QTest::addColumn<QString>("from");
    QTest::addColumn<QString>("to");
    QTest::addColumn<QStringList>("words");
    QTest::newRow("unknown method") << "\"gptq\""
                                    << "\"gptk\"" << QStringList{"plan.json", "row 1", "gptk"};
    QTest::newRow("unknown parameter") << "\"bits\""
                                       << "\"beats\"" << QStringList{"plan.json", "row 1", "beats"};
    QTest::newRow("illegal value") << "\"bits\": 3"
                                   << "\"bits\": 77" << QStringList{"plan.json", "row 1", "77"};
    QTest::newRow("two rows") << "layers.0.self_attn.k_proj"
                              << "layers.0.self_attn.q_proj" << QStringList{"plan.json", "row 2", "q_proj"};
    QTest::newRow("no JSON") << "{"
                             << "" << QStringList{"bad plan.json"};
    QTest::newRow("another checkpoint") << "\"checkpoint_hash\": \""
                                        << "\"checkpoint_hash\": \"00" << QStringList{"checkpoint"};
    QTest::newRow("another calibration") << "\"calibration_id\": \""
                                         << "\"calibration_id\": \"00" << QStringList{"calibration"};
}

void TestBadInput::plans()
{
    QFETCH(QString, from);
    QFETCH(QString, to);
    QFETCH(QStringList, words);
    QString text = QString::fromStdString(read_file(place("plan.json").toStdString()));
    QVERIFY(text.contains(from));
    text.replace(from, to);
    write_file(place("bad plan.json").toStdString(), text.toStdString());
    refused({"compress", sample_, "--plan", place("bad plan.json"), "--calibration", place("cal"), "--out",
             out_ + "/run"},
            3, words);
}

void TestBadInput::damaged_results_data()
{
    QTest::addColumn<Spoil>("spoil");
    QTest::addColumn<QStringList>("words");
    const auto row = [](const char* name, Spoil spoil, QStringList words) {
        QTest::newRow(name) << spoil << words;
    };
    row("run without manifest", [](const fs::path& run) { fs::remove(run / "run.json"); }, {"run"});
    row("damaged index", [](const fs::path& run) { write_file(run / "index.sqlite", "no database"); },
        {"index.sqlite"});
    row("missing layer",
        [](const fs::path& run) { fs::remove(run / "layers/model.layers.2.mlp.up_proj.safetensors"); },
        {"model.layers.2.mlp.up_proj"});
    row("truncated layer",
        [](const fs::path& run) {
            fs::resize_file(run / "layers/model.layers.2.mlp.up_proj.safetensors", 700);
        },
        {"model.layers.2.mlp.up_proj"});
    row("checkpoint gone",
        [](const fs::path& run) {
            std::string text = read_file(run / "run.json");
            text.replace(text.find(test::sample_folder().string()), test::sample_folder().string().size(),
                         "/nowhere");
            write_file(run / "run.json", text);
        },
        {"/nowhere"});
}

void TestBadInput::damaged_results()
{
    QFETCH(Spoil, spoil);
    QFETCH(QStringList, words);
    QTemporaryDir copy;
    const fs::path run = fs::path(copy.path().toStdString()) / "run";
    fs::copy(place("run").toStdString(), run, fs::copy_options::recursive);
    spoil(run);
    const QString path = QString::fromStdString(run.string());
    refused({"export", path, "--format", "hf", "--out", out_ + "/hf"}, 3, words);
    refused({"evaluate", path, "--text", sample_ + "/evaluation.txt", "--no-original"}, 3,
            words.mid(0, words[0] == "run" ? 0 : 1));
}

void TestBadInput::rank_and_group_data()
{
    QTest::addColumn<QStringList>("options");
    QTest::addColumn<QStringList>("words");
    QTest::newRow("rank beyond the matrix")
        << QStringList{"--method", "svd_residual", "--rank", "40"}
        << QStringList{"model.layers.0.self_attn.k_proj", "40", "32 × 64"};
    QTest::newRow("rank of one layer") << QStringList{"--method", "odlri", "--set", "*.2.*.v_proj:rank=33"}
                                       << QStringList{"model.layers.2.self_attn.v_proj", "33"};
    QTest::newRow("more outlier channels than inputs")
        << QStringList{"--method", "odlri", "--set", "*:k=100"}
        << QStringList{"model.layers.0.self_attn.q_proj", "100"};
    QTest::newRow("negative rank") << QStringList{"--method", "odlri", "--rank", "-1"} << QStringList{"rank"};
    QTest::newRow("bad group") << QStringList{"--method", "rtn", "--group", "-7"}
                               << QStringList{"group", "-7"};
    QTest::newRow("bad bits") << QStringList{"--method", "rtn", "--bits", "1"} << QStringList{"bits"};
}

void TestBadInput::rank_and_group()
{
    QFETCH(QStringList, options);
    QFETCH(QStringList, words);
    refused(QStringList{"plan", sample_, "--out", out_ + "/plan.json"} + options, 2, words);
}

void TestBadInput::writers_data(bool only_large)
{
    QTest::addColumn<QStringList>("command");
    QTest::newRow("calibrate") << QStringList{"calibrate", sample_, "--text",   sample_ + "/calibration.txt",
                                              "--samples", "2",     "--length", "32",
                                              "--out"};
    QTest::newRow("compress") << QStringList{"compress",      sample_,      "--plan", place("plan.json"),
                                             "--calibration", place("cal"), "--out"};
    QTest::newRow("export hf") << QStringList{"export", place("run"), "--format", "hf", "--out"};
    QTest::newRow("export hf-qlr") << QStringList{"export", place("run"), "--format", "hf-qlr", "--out"};
    QTest::newRow("stats") << QStringList{"stats", sample_, "--spectrum", "--csv"};
    if (only_large)
        return;
    QTest::newRow("plan") << QStringList{"plan", sample_, "--method", "rtn", "--out"};
    QTest::newRow("logits") << QStringList{"logits", sample_, "--text", "Once", "--out"};
    QTest::newRow("demo") << QStringList{"demo", "--out"};
}

void TestBadInput::read_only_places_data() { writers_data(false); }

void TestBadInput::read_only_places()
{
    // Tests run as root, too, whom permissions do not stop: below a file, and in /proc, nobody can write.
    QFETCH(QStringList, command);
    write_file(place("a file").toStdString(), "x");
    refused(command + QStringList{place("a file") + "/result"}, 3, {"a file"});
    refused(command + QStringList{"/proc/rankscope/result"}, 3, {"/proc/rankscope"});
}

void TestBadInput::file_size_limit_data() { writers_data(true); }

void TestBadInput::file_size_limit()
{
    QFETCH(QStringList, command);
    // The demonstration of a drive that gives up in the middle of a file, without a drive.
    const bool run = command[0] == "compress";
    const QString target = (run ? place("limited") : out_) + "/result";
    refused(command + QStringList{target}, 4, {"result"}, 2000);
    if (run) // a run keeps what was finished; nothing of it is half-written
        for (const auto& [name, content] : test::folder_contents(place("limited").toStdString()))
            QVERIFY2(name.find(".part-") == std::string::npos, name.c_str());
}

void TestBadInput::full_disk_data() { writers_data(true); }

void TestBadInput::full_disk()
{
    QFETCH(QStringList, command);
    QTemporaryDir mount_point;
    const std::string disk = mount_point.path().toStdString();
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=64k") != 0)
        QSKIP("a small drive can only be mounted as root");
    const CommandResult result = run_cli(command + QStringList{mount_point.path() + "/result"});
    const bool empty = fs::is_empty(disk);
    umount(disk.c_str());
    QVERIFY2(result.status == 4, result.errors + " [status " + QByteArray::number(result.status) + "]");
    QVERIFY2(result.errors.contains(mount_point.path().toUtf8()), result.errors);
    QVERIFY2(empty, "something was left half-written");
}

QTEST_GUILESS_MAIN(TestBadInput)
#include "test_bad_input.moc"
