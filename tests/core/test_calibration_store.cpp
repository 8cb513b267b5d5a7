// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/calibration/calibration_store.h"
#include "core/calibration/streaming_pass.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

constexpr Index k_samples = 12;
constexpr Index k_length = 64;

CalibrationOptions options_of_test()
{
    CalibrationOptions options;
    options.samples = k_samples;
    options.length = k_length;
    options.thresholds = {2.0};
    return options;
}

/// Every input and output of a block as the pass sees them.
struct Seen {
    std::map<std::string, Matrix> inputs;
    std::map<int, Matrix> outputs;
};

void append(Matrix& all, const Matrix& part)
{
    all.conservativeResize(all.rows() + part.rows(), part.cols());
    all.bottomRows(part.rows()) = part;
}

Seen forward(const std::shared_ptr<const Model>& model, Backend& backend)
{
    const auto text = tokenize_file(*model, test::sample_folder() / "calibration.txt");
    const auto windows =
        prefixed_windows(*text, k_length, k_length - static_cast<Index>(text->prefix.size()), k_samples);
    auto states = HiddenStates::in_memory(k_samples * k_length, model->config().hidden);
    Seen seen;
    PassEvents events;
    events.input = [&](int, Index, const std::string& group, const Buffer& x,
                       std::span<const Index>) -> Status {
        append(seen.inputs[group], backend.download(x));
        return {};
    };
    events.output = [&](int block, Index, const Buffer& hidden) -> Status {
        append(seen.outputs[block], backend.download(hidden));
        return {};
    };
    const auto weights = checkpoint_weights(model);
    const Status done = stream_blocks(*model, *weights, *windows, *states, events, backend, silent_monitor());
    if (!done)
        qFatal("%s", done.error().sentence().c_str());
    return seen;
}

bool near(const VectorD& a, const VectorD& b, double tolerance)
{
    return a.size() == b.size()
           && (a - b).cwiseAbs().maxCoeff() <= tolerance * std::max(1e-30, b.cwiseAbs().maxCoeff());
}

} // namespace

class TestCalibrationStore : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void first_and_later_tokens_make_all();
    void samples_are_the_tokens_themselves();
    void samples_are_the_same_tokens_everywhere();
    void block_outputs_name_their_strongest_entries();
    void massive_activations_are_found_where_planted();
    void thresholds_are_stored();
    void older_versions_are_read();
    void changed_bytes_are_refused();
    void touched_files_are_hashed_and_accepted();
    void a_copy_elsewhere_is_accepted();
    void changed_embedding_is_refused_at_once();

private:
    fs::path file(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }
    std::shared_ptr<const CalibrationStore> store() const
    {
        const auto store = CalibrationStore::open(file("cal"));
        return store ? *store : nullptr;
    }
    /// The sample's files under another name, writable.
    fs::path copy(const char* name) const
    {
        fs::copy(test::sample_folder(), file(name), fs::copy_options::recursive);
        for (const auto& entry : fs::recursive_directory_iterator(file(name)))
            fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
        return file(name);
    }
    static void flip_byte(const fs::path& folder, const Model& model, const std::string& tensor);

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    Seen seen_;
};

void TestCalibrationStore::initTestCase()
{
    const Status made = calibrate(model_, test::sample_folder() / "calibration.txt", file("cal"),
                                  options_of_test(), *backend_, silent_monitor());
    QVERIFY2(made, made ? "" : made.error().sentence().c_str());
    seen_ = forward(model_, *backend_);
}

void TestCalibrationStore::first_and_later_tokens_make_all()
{
    const auto opened = store();
    for (const std::string& group : opened->groups()) {
        const auto all = store()->statistics(group);
        const auto first = store()->statistics(group, TokenKind::First);
        const auto later = store()->statistics(group, TokenKind::Later);
        QVERIFY(all && first && later);
        QCOMPARE(first->tokens(), std::uint64_t{k_samples});
        QCOMPARE(later->tokens(), std::uint64_t{k_samples * (k_length - 1)});
        ActivationStatistics merged = *first;
        merged.merge(*later);
        QCOMPARE(merged.to_rows(), all->to_rows());
        QCOMPARE(merged.histogram(), all->histogram());
        const Matrix& x = seen_.inputs[group];
        Matrix firsts(k_samples, x.cols());
        for (Index window = 0; window < k_samples; ++window)
            firsts.row(window) = x.row(window * k_length);
        ActivationStatistics direct(x.cols(), {2.0});
        direct.add(firsts);
        QVERIFY(near(first->rms(), direct.rms(), 1e-12));
        QVERIFY(near(first->channel_kurtosis(), direct.channel_kurtosis(), 1e-9));
        QCOMPARE(first->max_abs(), direct.max_abs());
    }
    // BOS alone in front of every window: its inputs hardly differ, those of later tokens do.
    const auto first = store()->statistics("model.layers.0.self_attn.q_proj", TokenKind::First);
    QVERIFY(first);
    QVERIFY(near(first->maximum(), first->minimum(), 1e-6));
}

void TestCalibrationStore::samples_are_the_tokens_themselves()
{
    const auto opened = store();
    for (const std::string& group : opened->groups()) {
        const auto sample = store()->sample(group);
        QVERIFY(sample);
        QCOMPARE(sample->tokens.size(), std::size_t{512});
        QVERIFY(std::is_sorted(sample->tokens.begin(), sample->tokens.end()));
        const Matrix& x = seen_.inputs[group];
        for (std::size_t i = 0; i < sample->tokens.size(); ++i) {
            const auto wanted = x.row(sample->tokens[i]);
            const auto kept = sample->values.row(static_cast<Index>(i));
            QVERIFY(((kept - wanted).cwiseAbs().array() <= wanted.cwiseAbs().array() * 5e-4F + 1e-7F).all());
        }
    }
}

void TestCalibrationStore::samples_are_the_same_tokens_everywhere()
{
    const auto wanted = store()->sample(store()->groups().front())->tokens;
    QVERIFY(std::adjacent_find(wanted.begin(), wanted.end()) == wanted.end());
    QVERIFY(wanted.front() >= 0 && wanted.back() < k_samples * k_length);
    const auto opened = store();
    for (const std::string& group : opened->groups())
        QCOMPARE(store()->sample(group)->tokens, wanted);
    CalibrationOptions options = options_of_test();
    options.seed = 1;
    QVERIFY(calibrate(model_, test::sample_folder() / "calibration.txt", file("seeded"), options, *backend_,
                      silent_monitor()));
    const auto seeded = CalibrationStore::open(file("seeded"));
    QVERIFY(seeded);
    QVERIFY((*seeded)->sample((*seeded)->groups().front())->tokens != wanted);
    QCOMPARE((*seeded)->id(), store()->id()); // moments do not depend on it
}

void TestCalibrationStore::block_outputs_name_their_strongest_entries()
{
    for (const auto& [block, hidden] : seen_.outputs) {
        const auto output = store()->block_output(block);
        QVERIFY(output);
        QCOMPARE(output->statistics.max_abs().maxCoeff(), static_cast<double>(hidden.cwiseAbs().maxCoeff()));
        std::vector<float> sizes(hidden.data(), hidden.data() + hidden.size());
        std::sort(sizes.begin(), sizes.end(), [](float a, float b) { return std::abs(a) > std::abs(b); });
        QCOMPARE(output->strongest.size(), std::size_t{32});
        for (std::size_t i = 0; i < output->strongest.size(); ++i) {
            const StrongEntry& entry = output->strongest[i];
            QCOMPARE(std::abs(entry.value), static_cast<double>(std::abs(sizes[i])));
            QCOMPARE(static_cast<double>(hidden(entry.window * k_length + entry.position, entry.channel)),
                     entry.value);
        }
        QVERIFY(output->massive().empty()); // a tiny model has none
    }
    QVERIFY(!store()->block_output(5));
    QVERIFY(!store()->block_output(-1));
}

void TestCalibrationStore::massive_activations_are_found_where_planted()
{
    // An enormous weight in one row of block 1's output projection writes into one channel of the residual
    // stream.
    QVERIFY(test::copy_sample(file("massive"), [](std::string_view name, Matrix& values) {
        if (name == "model.layers.1.mlp.down_proj.weight")
            values.row(17) *= 1e5F;
    }));
    const auto model = Model::open(file("massive"));
    QVERIFY(model);
    QVERIFY(calibrate(*model, test::sample_folder() / "calibration.txt", file("massive-cal"),
                      options_of_test(), *backend_, silent_monitor()));
    const auto calibrated = CalibrationStore::open(file("massive-cal"));
    QVERIFY(calibrated);
    QVERIFY((*calibrated)->block_output(0)->massive().empty());
    const auto massive = (*calibrated)->block_output(1)->massive();
    QVERIFY(!massive.empty());
    for (const StrongEntry& entry : massive)
        QCOMPARE(entry.channel, Index{17});
}

void TestCalibrationStore::thresholds_are_stored()
{
    QCOMPARE(store()->thresholds(), (std::vector<double>{6.0, 2.0}));
    const std::string group = store()->groups().front();
    const VectorD counts =
        (seen_.inputs[group].cwiseAbs().array() >= 2.0F).cast<double>().colwise().sum().transpose();
    QCOMPARE(store()->statistics(group)->threshold_counts(1), counts);
}

void TestCalibrationStore::older_versions_are_read()
{
    // What version 1 held, written as it was: eight rows of statistics, no further kinds of tokens.
    const fs::path old = file("old");
    fs::create_directories(old);
    auto json = Json::read(file("cal") / "calibration.json");
    QVERIFY(json);
    Json index;
    for (const char* key :
         {"format", "checkpoint_hash", "text_file", "text_hash", "tokens", "samples", "length", "blocks"})
        index.set(key, (*json)[key]);
    index.set("version", 1);
    QVERIFY(write_text_file(old / "calibration.json", index.dump(), false));
    for (const Json& block : *(*json)["blocks"].array_if()) {
        const auto reader = CheckpointReader::open(file("cal") / block["file"].string());
        QVERIFY(reader);
        std::vector<TensorSource> sources;
        for (const Json& group : *block["groups"].array_if()) {
            for (const char* suffix :
                 {".hessian", ".mean_abs", ".max_abs", ".statistics", ".histogram", ".counts"}) {
                const std::string name = group.string() + suffix;
                auto view = *(*reader)->view(name);
                if (name.ends_with(".statistics"))
                    view.shape[0] = 8;
                const std::size_t bytes = static_cast<std::size_t>(element_count(view.shape)) * 8;
                sources.push_back(tensor_source(
                    name, view.dtype, view.shape,
                    {view.bytes.begin(), view.bytes.begin() + static_cast<std::ptrdiff_t>(bytes)}));
            }
        }
        QVERIFY(write_safetensors(old / block["file"].string(), std::move(sources), {}, false));
    }
    const auto opened = CalibrationStore::open(old);
    QVERIFY2(opened, opened ? "" : opened.error().sentence().c_str());
    QCOMPARE((*opened)->id(), store()->id());
    const std::string group = store()->groups().front();
    QCOMPARE((*opened)->moments(group)->hessian, store()->moments(group)->hessian);
    QCOMPARE((*opened)->statistics(group)->rms(), store()->statistics(group)->rms());
    for (const auto& refused : {(*opened)->statistics(group, TokenKind::First)}) {
        QVERIFY(!refused);
        QVERIFY(refused.error().sentence().find("older version") != std::string::npos);
    }
    QVERIFY(!(*opened)->sample(group));
    QVERIFY(!(*opened)->block_output(0));
    QVERIFY((*opened)->check(*model_));
    QVERIFY((*opened)->check_layer(*model_, model_->linears().front()));
}

void TestCalibrationStore::flip_byte(const fs::path& folder, const Model& model, const std::string& tensor)
{
    const TensorInfo* info = model.checkpoint().find(tensor);
    if (!info)
        qFatal("no tensor %s", tensor.c_str());
    std::fstream stream(folder / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    stream.seekg(static_cast<std::streamoff>(info->offset));
    const char byte = static_cast<char>(stream.get());
    stream.seekp(static_cast<std::streamoff>(info->offset));
    stream.put(static_cast<char>(byte ^ 1));
}

void TestCalibrationStore::changed_bytes_are_refused()
{
    const fs::path folder = copy("changed");
    flip_byte(folder, *model_, "model.layers.2.mlp.up_proj.weight");
    const auto model = Model::open(folder);
    QVERIFY(model);
    const auto calibration = store();
    QVERIFY(calibration->check(**model)); // headers are the same
    int refused = 0;
    for (const LinearLayer& layer : (*model)->linears()) {
        const auto moments = layer_moments(*calibration, **model, layer);
        if (moments)
            continue;
        ++refused;
        QCOMPARE(layer.name, std::string("model.layers.2.mlp.up_proj"));
        QCOMPARE(moments.error().kind, ErrorKind::BadInput);
        QVERIFY(moments.error().sentence().find("model.layers.2.mlp.up_proj.weight") != std::string::npos);
    }
    QCOMPARE(refused, 1);
    // A norm concerns every layer of its block.
    flip_byte(folder, *model_, "model.layers.3.input_layernorm.weight");
    const auto again = Model::open(folder);
    for (const LinearLayer& layer : (*again)->linears())
        QCOMPARE(bool(store()->check_layer(**again, layer)),
                 layer.block != 3 && layer.name != "model.layers.2.mlp.up_proj");
}

void TestCalibrationStore::touched_files_are_hashed_and_accepted()
{
    const fs::path folder = copy("touched");
    fs::last_write_time(folder / "model.safetensors",
                        fs::file_time_type::clock::now() - std::chrono::hours(48));
    const auto model = Model::open(folder);
    QVERIFY(model);
    const auto calibration = store();
    QVERIFY(calibration->check(**model));
    for (const LinearLayer& layer : (*model)->linears())
        QVERIFY(layer_moments(*calibration, **model, layer));
}

void TestCalibrationStore::a_copy_elsewhere_is_accepted()
{
    const auto model = Model::open(copy("elsewhere"));
    QVERIFY(model);
    QVERIFY(store()->check(**model));
    QVERIFY(store()->check_layer(**model, (*model)->linears().back()));
}

void TestCalibrationStore::changed_embedding_is_refused_at_once()
{
    const fs::path folder = copy("embedding");
    flip_byte(folder, *model_, "model.embed_tokens.weight");
    const auto model = Model::open(folder);
    QVERIFY(model);
    const Status refused = store()->check(**model);
    QVERIFY(!refused);
    QVERIFY(refused.error().sentence().find("model.embed_tokens.weight") != std::string::npos);
}

QTEST_GUILESS_MAIN(TestCalibrationStore)
#include "test_calibration_store.moc"
