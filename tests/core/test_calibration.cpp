// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/base/thread_pool.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <algorithm>
#include <cmath>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

QString text_of(const Status& status)
{
    return status ? QString("success") : QString::fromStdString(status.error().sentence());
}

bool mentions(const Error& error, std::initializer_list<const char*> words)
{
    const std::string sentence = error.sentence();
    return std::all_of(words.begin(), words.end(),
                       [&](const char* word) { return sentence.find(word) != std::string::npos; });
}

CalibrationOptions small_options()
{
    CalibrationOptions options;
    options.samples = 6;
    options.length = 64;
    return options;
}

} // namespace

class TestCalibration : public QObject {
    Q_OBJECT

private slots:
    void init();
    void equals_reference_activations();
    void moments_and_statistics_agree();
    void shared_inputs_share_a_group();
    void neither_budget_nor_threads_change_bytes();
    void hidden_states_live_in_file_or_memory();
    void full_drive_is_said_before_the_pass();
    void uses_the_first_windows_with_their_prefix();
    void short_text_gives_fewer_samples();
    void refuses_texts_data();
    void refuses_texts();
    void refuses_bad_options();
    void refuses_too_small_a_budget();
    void refuses_activations_that_overflow();
    void refuses_tokens_beyond_the_vocabulary();
    void existing_folders_are_safe();
    void unwritable_place_is_an_error();
    void refuses_damaged_stores_data();
    void refuses_damaged_stores();
    void belongs_to_one_checkpoint();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    fs::path text_file(const std::string& content) const
    {
        const fs::path path = file("text.txt");
        if (!write_text_file(path, content, true))
            qFatal("cannot write the text");
        return path;
    }
    Status calibrate_sample(const fs::path& out, const CalibrationOptions& options,
                            Monitor& monitor = silent_monitor())
    {
        return calibrate(model_, test::sample_folder() / "calibration.txt", out, options, *backend_, monitor);
    }

    std::unique_ptr<QTemporaryDir> folder_;
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestCalibration::init() { folder_ = std::make_unique<QTemporaryDir>(); }

void TestCalibration::equals_reference_activations()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    CalibrationOptions options;
    options.samples = 16;
    options.length = 256;
    const Status made = calibrate(model_, *shared / "data" / "tinystories" / "generated-stories260k.txt",
                                  file("cal"), options, *backend_, silent_monitor());
    QVERIFY2(made, qPrintable(text_of(made)));
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(store);
    const auto reference =
        CheckpointReader::open(*shared / "golden" / "activations" / "stories260k.safetensors");
    QVERIFY(reference);
    QCOMPARE((*store)->source().tokens, std::uint64_t{4096});
    QCOMPARE((*store)->groups().size(), std::size_t{20});
    for (const std::string& group : (*store)->groups()) {
        const auto moments = (*store)->moments(group);
        const auto statistics = (*store)->statistics(group);
        QVERIFY(moments && statistics);
        QCOMPARE(moments->tokens, std::uint64_t{4096});
        const auto expected = [&](const char* what) { return (*reference)->read(group + what); };
        const auto gram = expected(".gram");
        QVERIFY2(gram, group.c_str());
        const MatrixD wanted = gram->cast<double>();
        QVERIFY2((moments->hessian - wanted).norm() <= 2e-5 * wanted.norm(), group.c_str());
        const auto near = [&](const char* what, const VectorD& ours, double tolerance) {
            const auto theirs = expected(what);
            const VectorD reference_values =
                theirs ? VectorD(theirs->row(0).transpose().cast<double>()) : VectorD();
            return reference_values.size() == ours.size()
                   && (ours - reference_values).cwiseAbs().maxCoeff()
                          <= tolerance * reference_values.cwiseAbs().maxCoeff();
        };
        QVERIFY2(near(".absmax", moments->max_abs, 5e-5), group.c_str());
        QVERIFY2(near(".mean", statistics->mean(), 5e-5), group.c_str());
        QVERIFY2(near(".sqmean", statistics->rms().cwiseAbs2(), 5e-5), group.c_str());
        QVERIFY2(near(".kurtosis", VectorD::Constant(1, statistics->tensor_kurtosis()), 1e-4), group.c_str());
    }
}

void TestCalibration::moments_and_statistics_agree()
{
    QVERIFY(calibrate_sample(file("cal"), small_options()));
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(store);
    for (const std::string& group : (*store)->groups()) {
        const auto moments = (*store)->moments(group);
        const auto statistics = (*store)->statistics(group);
        QVERIFY(moments && statistics);
        QCOMPARE(moments->tokens, statistics->tokens());
        QVERIFY(moments->hessian == moments->hessian.transpose());
        const VectorD diagonal = moments->hessian.diagonal();
        QVERIFY((diagonal - statistics->rms().cwiseAbs2()).cwiseAbs().maxCoeff()
                <= 1e-5 * diagonal.maxCoeff());
        QVERIFY(moments->max_abs == statistics->max_abs());
        QVERIFY(moments->mean_abs == statistics->mean_abs());
        QVERIFY((moments->mean_abs.array() <= statistics->rms().array() * (1.0 + 1e-12)).all());
    }
    QVERIFY(!(*store)->moments("model.layers.0.self_attn.k_proj")); // shares q_proj's
    QVERIFY(!(*store)->statistics("nothing"));
}

void TestCalibration::shared_inputs_share_a_group()
{
    QVERIFY(calibrate_sample(file("cal"), small_options()));
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(store);
    for (const LinearLayer& layer : model_->linears()) {
        const auto moments = (*store)->moments(layer.input_group);
        QVERIFY2(moments, layer.name.c_str());
        QCOMPARE(moments->channels(), layer.in);
    }
}

void TestCalibration::neither_budget_nor_threads_change_bytes()
{
    CalibrationOptions options = small_options();
    QVERIFY(calibrate_sample(file("plain"), options));
    const auto plain = test::folder_contents(file("plain"));
    QCOMPARE(plain.size(), std::size_t{6});
    // The least budget with which it works: for a block and its moments, not for the hidden states beside
    // them.
    const std::uint64_t resident = resident_bytes();
    for (std::uint64_t budget = resident; budget < resident + (64U << 20); budget += 32 << 10) {
        options.memory_budget_bytes = budget;
        if (calibrate_sample(file("scratch"), options))
            break;
    }
    QVERIFY(fs::exists(file("scratch")));
    QVERIFY(test::folder_contents(file("scratch")) == plain);
    const int before = thread_count();
    set_thread_count(before == 1 ? 2 : 1);
    options.memory_budget_bytes = 0;
    const Status again = calibrate_sample(file("threads"), options);
    set_thread_count(before);
    QVERIFY2(again, qPrintable(text_of(again)));
    QVERIFY(test::folder_contents(file("threads")) == plain);
}

void TestCalibration::hidden_states_live_in_file_or_memory()
{
    const fs::path folder = file("scratch");
    fs::create_directories(folder);
    auto memory = make_hidden_states(1000, 33, 0, 0, folder);
    auto mapped = make_hidden_states(1000, 33, 100, 1000, folder);
    QVERIFY(memory && mapped);
    QVERIFY(!memory->in_file());
    QVERIFY(mapped->in_file());
    QVERIFY(fs::is_empty(folder)); // nobody sees the file
    for (HiddenStates* states : {&*memory, &*mapped}) {
        for (Index row = 0; row < 1000; ++row)
            states->rows(row, 1).setConstant(static_cast<float>(row));
        states->release(0, 400);
        states->release(400, 600);
        for (Index row = 0; row < 1000; ++row)
            QCOMPARE(states->rows(row, 1)(0, 32), static_cast<float>(row));
    }
    HiddenStates moved = std::move(*mapped);
    QCOMPARE(moved.rows(999, 1)(0, 0), 999.0f);
    const auto nowhere = HiddenStates::in_scratch_file(10, 10, file("missing"));
    QVERIFY(!nowhere);
    QCOMPARE(nowhere.error().kind, ErrorKind::Io);
}

void TestCalibration::full_drive_is_said_before_the_pass()
{
    // More than any drive has, so the reservation itself must fail, and nothing may be left mapped.
    const auto states = HiddenStates::in_scratch_file(Index{1} << 40, 1 << 12, folder_->path().toStdString());
    QVERIFY(!states);
    QVERIFY2(states.error().kind == ErrorKind::NoSpace || states.error().kind == ErrorKind::Io,
             states.error().sentence().c_str());
    QVERIFY(fs::is_empty(folder_->path().toStdString()));
}

void TestCalibration::uses_the_first_windows_with_their_prefix()
{
    TokenizedText text{"t", "h", {1}, {}};
    for (TokenId id = 10; id < 33; ++id)
        text.tokens.push_back(id);
    const auto windows =
        prefixed_windows(text, 6, 5, 0); // 23 tokens: four windows of five, three tokens left over
    QVERIFY(windows);
    QCOMPARE(windows->count(), Index{4});
    const std::vector<TokenId> third(windows->window(2).begin(), windows->window(2).end());
    QCOMPARE(third, (std::vector<TokenId>{1, 20, 21, 22, 23, 24}));
    QCOMPARE(prefixed_windows(text, 6, 5, 3)->count(), Index{3});
    const auto stream = continuous_windows(text, 6, 6); // 24 tokens with the prefix
    QVERIFY(stream);
    QCOMPARE(stream->count(), Index{4});
    QCOMPARE(stream->window(0)[0], TokenId{1});
    QCOMPARE(stream->window(1)[0], TokenId{15});
    QCOMPARE(continuous_windows(text, 6, 3)->count(), Index{7});
    text.prefix.clear();
    QCOMPARE(prefixed_windows(text, 6, 6, 0)->count(), Index{3});
    QVERIFY(!prefixed_windows(text, 24, 24, 0));
    QVERIFY(!continuous_windows(text, 6, 0));
}

void TestCalibration::short_text_gives_fewer_samples()
{
    CalibrationOptions options = small_options();
    options.samples = 100000;
    test::TestMonitor monitor;
    const fs::path text = test::sample_folder() / "evaluation.txt";
    const Status made = calibrate(model_, text, file("cal"), options, *backend_, monitor);
    QVERIFY2(made, qPrintable(text_of(made)));
    QCOMPARE(monitor.warnings().size(), std::size_t{1});
    QVERIFY(monitor.within_total());
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(store);
    QVERIFY((*store)->source().samples > 10 && (*store)->source().samples < 100);
    QCOMPARE((*store)->source().text_file, std::string("evaluation.txt"));
    const auto content = read_text_file(text);
    QCOMPARE((*store)->source().text_hash, sha256_hex(*content));
}

void TestCalibration::refuses_texts_data()
{
    QTest::addColumn<QByteArray>("content");
    QTest::addColumn<QStringList>("words");
    QTest::newRow("empty") << QByteArray() << QStringList{"text.txt", "empty"};
    QTest::newRow("too short") << QByteArray("Once upon a time")
                               << QStringList{"text.txt", "too short", "63"};
    QTest::newRow("invalid UTF-8") << QByteArray("Once upon\xff a time").repeated(40)
                                   << QStringList{"text.txt", "9"};
    QTest::newRow("cut UTF-8") << QByteArray("caf\xc3") << QStringList{"text.txt", "3"};
    QTest::newRow("overlong UTF-8") << QByteArray("ab\xc0\x80 cd") << QStringList{"text.txt", "2"};
}

void TestCalibration::refuses_texts()
{
    QFETCH(QByteArray, content);
    QFETCH(QStringList, words);
    const fs::path text = text_file(content.toStdString());
    const Status made = calibrate(model_, text, file("cal"), small_options(), *backend_, silent_monitor());
    QVERIFY(!made);
    QCOMPARE(made.error().kind, ErrorKind::BadInput);
    for (const QString& word : words)
        QVERIFY2(text_of(made).contains(word), qPrintable(text_of(made)));
    QVERIFY(!fs::exists(file("cal")));
    const Status missing =
        calibrate(model_, file("nothing.txt"), file("cal"), small_options(), *backend_, silent_monitor());
    QVERIFY(!missing);
    QCOMPARE(missing.error().kind, ErrorKind::Io);
}

void TestCalibration::refuses_bad_options()
{
    for (const Index length : {Index{-1}, Index{1}, Index{513}}) {
        CalibrationOptions options = small_options();
        options.length = length;
        const Status made = calibrate_sample(file("cal"), options);
        QVERIFY(!made);
        QCOMPARE(made.error().kind, ErrorKind::Usage);
    }
    CalibrationOptions options = small_options();
    options.samples = 0;
    QVERIFY(!calibrate_sample(file("cal"), options));
    QVERIFY(!fs::exists(file("cal")));
}

void TestCalibration::refuses_too_small_a_budget()
{
    CalibrationOptions options = small_options();
    options.memory_budget_bytes = 1000;
    const Status made = calibrate_sample(file("cal"), options);
    QVERIFY(!made);
    QCOMPARE(made.error().kind, ErrorKind::NoSpace);
    QVERIFY2(mentions(made.error(), {"--memory", "1.00 kB"}), qPrintable(text_of(made)));
    QVERIFY(fs::is_empty(folder_->path().toStdString()));
}

void TestCalibration::refuses_activations_that_overflow()
{
    const Status copied = test::copy_sample(file("model"), [](std::string_view name, Matrix& values) {
        if (name == "model.layers.2.mlp.up_proj.weight" || name == "model.layers.2.mlp.gate_proj.weight")
            values *= 1e25f;
    });
    QVERIFY2(copied, qPrintable(text_of(copied)));
    const auto model = Model::open(file("model"));
    QVERIFY(model);
    const Status made = calibrate(*model, test::sample_folder() / "calibration.txt", file("cal"),
                                  small_options(), *backend_, silent_monitor());
    QVERIFY(!made);
    QCOMPARE(made.error().kind, ErrorKind::BadInput);
    QVERIFY2(mentions(made.error(), {"block 2", "model.layers.2.mlp.down_proj", "window 0", "token 0"}),
             qPrintable(text_of(made)));
    QVERIFY(!fs::exists(file("cal")));
}

void TestCalibration::refuses_tokens_beyond_the_vocabulary()
{
    // The tokenizer of a model with 512 tokens beside one that knows 300.
    constexpr Index k_known = 300;
    fs::create_directories(file("model"));
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
        fs::copy_file(test::sample_folder() / name, file("model") / name);
    auto config = read_text_file(test::sample_folder() / "config.json");
    QVERIFY(config);
    const std::string entry = "\"vocab_size\": 512";
    QVERIFY(config->find(entry) != std::string::npos);
    config->replace(config->find(entry), entry.size(), "\"vocab_size\": " + std::to_string(k_known));
    QVERIFY(write_text_file(file("model") / "config.json", *config, false));
    std::vector<TensorSource> tensors;
    for (const TensorInfo& tensor : model_->checkpoint().tensors()) {
        Matrix values = *model_->checkpoint().read(tensor.name);
        Shape shape = tensor.shape;
        if (tensor.name == "model.embed_tokens.weight") {
            values.conservativeResize(k_known, values.cols());
            shape.front() = k_known;
        }
        tensors.push_back(tensor_source(tensor.name, values, DType::F32));
        tensors.back().shape = shape;
    }
    QVERIFY(write_safetensors(file("model") / "model.safetensors", std::move(tensors), {}, false));
    const auto model = Model::open(file("model"));
    QVERIFY2(model, model ? "" : model.error().sentence().c_str());
    const Status made = calibrate(*model, test::sample_folder() / "calibration.txt", file("cal"),
                                  small_options(), *backend_, silent_monitor());
    QVERIFY(!made);
    QCOMPARE(made.error().kind, ErrorKind::BadInput);
    QVERIFY2(mentions(made.error(), {"has the id", "from 0 to 299", "tokenizer"}), qPrintable(text_of(made)));
    QVERIFY(!fs::exists(file("cal")) && !fs::exists(file("cal.unfinished")));
}

void TestCalibration::existing_folders_are_safe()
{
    QVERIFY(calibrate_sample(file("cal"), small_options()));
    const auto before = test::folder_contents(file("cal"));
    const Status again = calibrate_sample(file("cal"), small_options());
    QVERIFY(!again);
    QVERIFY2(mentions(again.error(), {"--force"}), qPrintable(text_of(again)));
    QVERIFY(test::folder_contents(file("cal")) == before);

    CalibrationOptions options = small_options();
    options.replace = true;
    options.samples = 3;
    QVERIFY(calibrate_sample(file("cal"), options));
    QVERIFY(test::folder_contents(file("cal")) != before);
    QCOMPARE((*CalibrationStore::open(file("cal")))->source().samples, Index{3});

    // Whatever --force says, somebody else's folder stays.
    fs::create_directories(file("home"));
    QVERIFY(write_text_file(file("home") / "thesis.txt", "years of work", false));
    const Status foreign = calibrate_sample(file("home"), options);
    QVERIFY(!foreign);
    QCOMPARE(foreign.error().kind, ErrorKind::BadInput);
    QVERIFY(fs::exists(file("home") / "thesis.txt"));
    QVERIFY(!calibrate_sample(file("home") / "thesis.txt", options));
    QVERIFY(fs::is_regular_file(file("home") / "thesis.txt"));
}

void TestCalibration::unwritable_place_is_an_error()
{
    const fs::path below_a_file = text_file("x") / "cal";
    const Status below = calibrate_sample(below_a_file, small_options());
    QVERIFY(!below);
    QCOMPARE(below.error().kind, ErrorKind::Io);
    QVERIFY2(mentions(below.error(), {"text.txt"}), qPrintable(text_of(below)));
    const Status proc = calibrate_sample("/proc/rankscope-calibration", small_options());
    QVERIFY(!proc);
    QCOMPARE(proc.error().kind, ErrorKind::Io);
}

void TestCalibration::refuses_damaged_stores_data()
{
    QTest::addColumn<QString>("damage");
    QTest::addColumn<QStringList>("words");
    QTest::newRow("other version") << "version" << QStringList{"calibration.json", "version 3", "1 to 2"};
    QTest::newRow("other format") << "format" << QStringList{"calibration.json", "format"};
    QTest::newRow("no source") << "source" << QStringList{"calibration.json", "text_hash"};
    QTest::newRow("no blocks") << "blocks" << QStringList{"calibration.json", "blocks"};
    QTest::newRow("no JSON") << "json" << QStringList{"calibration.json"};
    QTest::newRow("truncated block") << "truncate" << QStringList{"block-0002.safetensors"};
    QTest::newRow("missing block") << "remove" << QStringList{"block-0002.safetensors"};
    QTest::newRow("block of other groups") << "swap" << QStringList{"block-0002.safetensors", "missing"};
    QTest::newRow("no calibration") << "empty" << QStringList{"no calibration"};
}

void TestCalibration::refuses_damaged_stores()
{
    QFETCH(QString, damage);
    QFETCH(QStringList, words);
    QVERIFY(calibrate_sample(file("cal"), small_options()));
    const fs::path index = file("cal") / "calibration.json";
    const fs::path block = file("cal") / "block-0002.safetensors";
    auto json = Json::read(index);
    QVERIFY(json);
    if (damage == "version")
        json->set("version", 3);
    else if (damage == "format")
        json->set("format", "something");
    else if (damage == "source")
        json->set("text_hash", Json());
    else if (damage == "blocks")
        json->set("blocks", 5);
    QVERIFY(write_text_file(index, damage == "json" ? "{\"format\":" : json->dump(), true));
    if (damage == "truncate")
        fs::resize_file(block, fs::file_size(block) - 8);
    else if (damage == "remove")
        fs::remove(block);
    else if (damage == "swap")
        fs::copy_file(file("cal") / "block-0001.safetensors", block, fs::copy_options::overwrite_existing);
    else if (damage == "empty")
        fs::remove(index);
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(!store);
    const QString sentence = QString::fromStdString(store.error().sentence());
    QVERIFY2(store.error().kind == ErrorKind::BadInput || store.error().kind == ErrorKind::Io,
             qPrintable(sentence));
    for (const QString& word : words)
        QVERIFY2(sentence.contains(word), qPrintable(sentence));
}

void TestCalibration::belongs_to_one_checkpoint()
{
    QVERIFY(calibrate_sample(file("cal"), small_options()));
    const auto store = CalibrationStore::open(file("cal"));
    QVERIFY(store);
    QVERIFY((*store)->check(*model_));
    QVERIFY(test::copy_sample(
        file("half"), [](std::string_view, Matrix&) {}, DType::BF16));
    const auto other = Model::open(file("half"));
    QVERIFY(other);
    const Status refused = (*store)->check(**other);
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);

    QVERIFY(calibrate_sample(file("same"), small_options()));
    QCOMPARE((*CalibrationStore::open(file("same")))->id(), (*store)->id());
    CalibrationOptions options = small_options();
    options.samples = 5;
    QVERIFY(calibrate_sample(file("fewer"), options));
    QVERIFY((*CalibrationStore::open(file("fewer")))->id() != (*store)->id());
}

QTEST_GUILESS_MAIN(TestCalibration)
#include "test_calibration.moc"
