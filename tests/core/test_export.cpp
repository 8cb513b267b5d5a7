// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/base/random.h"
#include "core/export/detail/bit_packing.h"
#include "core/export/detail/qlr_layer.h"
#include "core/export/exporter.h"
#include "core/tensor/half.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <set>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

QString text_of(const Status& status)
{
    return status ? QString("success") : QString::fromStdString(status.error().sentence());
}

std::vector<std::byte> bytes_of(const CheckpointReader& reader, const std::string& tensor)
{
    const auto view = reader.view(tensor);
    return view ? std::vector<std::byte>(view->bytes.begin(), view->bytes.end()) : std::vector<std::byte>{};
}

/// Puts the process under a limit on the size of files, so that a write fails in the middle as on a full
/// drive.
class FileSizeLimit {
public:
    explicit FileSizeLimit(rlim_t bytes)
    {
        getrlimit(RLIMIT_FSIZE, &before_);
        handler_ = std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{bytes, before_.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit()
    {
        setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }

private:
    rlimit before_{};
    void (*handler_)(int) = nullptr;
};

/// A drive of a few pages, where the system allows one.
class TinyDrive {
public:
    TinyDrive(fs::path folder, const char* size) : folder_(std::move(folder))
    {
        fs::create_directories(folder_);
        mounted_ = mount("tmpfs", folder_.c_str(), "tmpfs", 0, size) == 0;
    }
    TinyDrive(const TinyDrive&) = delete;
    TinyDrive& operator=(const TinyDrive&) = delete;
    ~TinyDrive()
    {
        if (mounted_)
            umount(folder_.c_str());
    }
    bool mounted() const { return mounted_; }
    const fs::path& folder() const { return folder_; }

private:
    fs::path folder_;
    bool mounted_ = false;
};

QuantizedMatrix random_codes(Index rows, Index cols, int bits, Index group, bool symmetric)
{
    const RandomStream random(3, "codes");
    QuantizedMatrix q;
    q.grid.bits = bits;
    q.grid.group = group;
    q.grid.symmetric = symmetric;
    const Index groups = q.grid.groups(cols);
    const Index width = q.grid.group_width(cols);
    q.codes.resize(rows, cols);
    q.scales.resize(rows, groups);
    q.zeros = Matrix::Zero(rows, groups);
    for (Index i = 0; i < q.scales.size(); ++i) {
        q.scales.data()[i] =
            0.01f + 0.001f * static_cast<float>(random.uniform(static_cast<std::uint64_t>(i)));
        if (!symmetric)
            q.zeros.data()[i] = static_cast<float>(random.below(static_cast<std::uint64_t>(i), 1U << bits));
    }
    for (Index row = 0; row < rows; ++row) {
        for (Index col = 0; col < cols; ++col) {
            const auto value = random.below(static_cast<std::uint64_t>(row * cols + col + 10000), 1U << bits);
            const int zero = symmetric ? 1 << (bits - 1) : static_cast<int>(q.zeros(row, col / width));
            q.codes(row, col) = static_cast<std::int16_t>(static_cast<int>(value) - zero);
        }
    }
    return q;
}

} // namespace

class TestExport : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void init();
    void registry_knows_its_formats();
    void packed_bits_lie_where_the_format_says();
    void packing_round_trips_every_width();
    void layers_round_trip_data();
    void layers_round_trip();
    void small_scales_stay_float();
    void refuses_layers_that_do_not_fit();
    void writes_what_the_run_holds_data();
    void writes_what_the_run_holds();
    void dense_weights_are_bit_exact();
    void other_tensors_and_files_are_copied();
    void packed_export_is_small();
    void keeps_the_stored_type();
    void keeps_shards();
    void refuses_values_beyond_the_type();
    void refuses_an_unfinished_run();
    void refuses_a_changed_checkpoint();
    void check_finds_a_flipped_bit_data();
    void check_finds_a_flipped_bit();
    void existing_folders_are_safe_data() { formats(); }
    void existing_folders_are_safe();
    void cancelled_leaves_nothing_data() { formats(); }
    void cancelled_leaves_nothing();
    void unwritable_place_is_an_error_data() { formats(); }
    void unwritable_place_is_an_error();
    void failing_write_leaves_nothing_data() { formats(); }
    void failing_write_leaves_nothing();
    void full_drive_is_said_before_the_first_byte_data() { formats(); }
    void full_drive_is_said_before_the_first_byte();

private:
    static void formats()
    {
        QTest::addColumn<QString>("format");
        for (const Exporter* exporter : exporters())
            QTest::newRow(exporter->info().id.c_str()) << QString::fromStdString(exporter->info().id);
    }
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write(const Exporter& exporter, const fs::path& out, bool replace = false,
                 Monitor& monitor = silent_monitor()) const
    {
        return exporter.write(*run_, *model_, out, {replace}, monitor);
    }

    std::shared_ptr<const Model> model_ = test::sample_model();
    std::shared_ptr<const Run>
        run_; ///< all layers, 3 bits, groups of 64 (the last one of 172 is shorter), rank 4
    QTemporaryDir run_folder_;
    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExport::initTestCase()
{
    const Given given = {{"bits", std::int64_t{3}}, {"group", std::int64_t{64}}, {"rank", std::int64_t{4}}};
    const auto run = test::make_sample_run(model_, run_folder_.path().toStdString(), "svd_residual", given);
    QVERIFY2(run, qPrintable(run ? QString() : QString::fromStdString(run.error().sentence())));
    run_ = *run;
    QVERIFY(run_->complete());
}

void TestExport::init() { folder_ = std::make_unique<QTemporaryDir>(); }

void TestExport::registry_knows_its_formats()
{
    std::set<std::string> ids;
    for (const Exporter* exporter : exporters()) {
        QVERIFY(ids.insert(exporter->info().id).second);
        QVERIFY(!exporter->info().title.empty() && !exporter->info().summary.empty());
        QCOMPARE(*require_exporter(exporter->info().id), exporter);
    }
    QVERIFY(ids.contains("hf") && ids.contains("hf-qlr"));
    const auto unknown = require_exporter("onnx");
    QVERIFY(!unknown);
    QCOMPARE(unknown.error().kind, ErrorKind::Usage);
    QVERIFY(unknown.error().sentence().find("hf-qlr") != std::string::npos);
}

void TestExport::packed_bits_lie_where_the_format_says()
{
    // 3 bits: value 10 straddles the first two words (bits 30, 31 and 0).
    std::vector<std::uint16_t> values(11, 0);
    values[0] = 5;
    values[1] = 3;
    values[10] = 7;
    const auto bytes = pack_rows(values, 1, 11, 3);
    QCOMPARE(bytes.size(), std::size_t{8});
    std::uint32_t words[2] = {};
    std::memcpy(words, bytes.data(), 8);
    QCOMPARE(words[0], 5U | 3U << 3 | 3U << 30);
    QCOMPARE(words[1], 1U);
    QCOMPARE(packed_words(32, 4), std::int64_t{4});
    QCOMPARE(packed_words(33, 4), std::int64_t{5});
    // Every row starts at a word.
    const auto rows = pack_rows(std::vector<std::uint16_t>{1, 2, 3}, 3, 1, 2);
    QCOMPARE(rows.size(), std::size_t{12});
    QCOMPARE(std::to_integer<int>(rows[4]), 2);
}

void TestExport::packing_round_trips_every_width()
{
    const RandomStream random(1, "packing");
    for (int bits = 1; bits <= 16; ++bits) {
        for (const Index cols : {1, 7, 31, 32, 33, 172}) {
            std::vector<std::uint16_t> values(static_cast<std::size_t>(3 * cols));
            for (std::size_t i = 0; i < values.size(); ++i)
                values[i] = static_cast<std::uint16_t>(random.below(i, std::uint64_t{1} << bits));
            const auto bytes = pack_rows(values, 3, cols, bits);
            QCOMPARE(bytes.size(), static_cast<std::size_t>(3 * 4 * packed_words(cols, bits)));
            QCOMPARE(unpack_rows(bytes, 3, cols, bits), values);
        }
    }
}

void TestExport::layers_round_trip_data()
{
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<int>("rank");
    QTest::newRow("2 bits, ragged groups") << 2 << 64 << false << 3;
    QTest::newRow("3 bits symmetric") << 3 << 32 << true << 0;
    QTest::newRow("8 bits, per row") << 8 << 0 << false << 1;
    QTest::newRow("5 bits, whole matrix") << 5 << -1 << true << 2;
    QTest::newRow("rank only") << 0 << 0 << false << 5;
}

void TestExport::layers_round_trip()
{
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(bool, symmetric);
    QFETCH(int, rank);
    LinearLayer layer;
    layer.name = "layer";
    layer.out = 13;
    layer.in = 172;
    Decomposition decomposition;
    if (bits > 0)
        decomposition.quantized = random_codes(layer.out, layer.in, bits, group, symmetric);
    const RandomStream random(2, "factors");
    decomposition.low_rank.left = Matrix::NullaryExpr(layer.out, rank, [&](Index i, Index j) {
        return static_cast<float>(random.normal(static_cast<std::uint64_t>(i * 10 + j)));
    });
    decomposition.low_rank.right = Matrix::NullaryExpr(rank, layer.in, [&](Index i, Index j) {
        return static_cast<float>(random.normal(static_cast<std::uint64_t>(i * 1000 + j + 5000)));
    });
    const auto packed = pack_layer(decomposition, layer);
    QVERIFY2(packed, qPrintable(packed ? QString() : QString::fromStdString(packed.error().sentence())));
    for (const char* suffix : {k_qlr_scales, k_qlr_left, k_qlr_right}) {
        if (const auto found = packed->tensors.find(suffix); found != packed->tensors.end())
            QCOMPARE(found->second.dtype, DType::F16);
    }
    const auto rebuilt = unpack_layer(*packed);
    QVERIFY(rebuilt);
    const Decomposition expected = rounded_to_stored(decomposition, *packed);
    QVERIFY(rebuilt->quantized.codes == decomposition.quantized.codes);
    QVERIFY(rebuilt->quantized.scales == expected.quantized.scales);
    QVERIFY(bits == 0 || rebuilt->quantized.zeros == decomposition.quantized.zeros);
    if (rank > 0) {
        QVERIFY(rebuilt->low_rank.left == expected.low_rank.left);
        QVERIFY(rebuilt->low_rank.right == expected.low_rank.right);
    }
    if (bits + rank > 0) {
        const Matrix whole = decomposition.reconstruct();
        QVERIFY((rebuilt->reconstruct() - whole).norm() <= 2e-3f * whole.norm());
    }
}

void TestExport::small_scales_stay_float()
{
    LinearLayer layer;
    layer.out = 4;
    layer.in = 8;
    Decomposition decomposition;
    decomposition.quantized = random_codes(4, 8, 4, 4, true);
    decomposition.quantized.scales.setConstant(3.3e-7f);        // F16 would keep two bits of it
    decomposition.low_rank.left = Matrix::Constant(4, 1, 1e5f); // beyond F16
    decomposition.low_rank.right = Matrix::Constant(1, 8, 1e-3f);
    const auto packed = pack_layer(decomposition, layer);
    QVERIFY(packed);
    QCOMPARE(packed->tensors.at(k_qlr_scales).dtype, DType::F32);
    QCOMPARE(packed->tensors.at(k_qlr_left).dtype, DType::F32);
    QCOMPARE(packed->tensors.at(k_qlr_right).dtype, DType::F16);
    const auto rebuilt = unpack_layer(*packed);
    QVERIFY(rebuilt && rebuilt->quantized.scales == decomposition.quantized.scales);
}

void TestExport::refuses_layers_that_do_not_fit()
{
    LinearLayer layer;
    layer.out = 4;
    layer.in = 8;
    Decomposition good;
    good.quantized = random_codes(4, 8, 4, 4, false);
    QVERIFY(pack_layer(good, layer));
    Decomposition bad = good;
    bad.quantized.codes(2, 3) = 100; // outside 4 bits
    QVERIFY(!pack_layer(bad, layer));
    bad = good;
    bad.quantized.zeros(0, 0) = 17.0f;
    QVERIFY(!pack_layer(bad, layer));
    bad = good;
    bad.quantized.scales(1, 1) = std::nanf("");
    QVERIFY(!pack_layer(bad, layer));
    bad = good;
    bad.quantized.scales.conservativeResize(4, 1);
    QVERIFY(!pack_layer(bad, layer));
    layer.in = 9;
    QVERIFY(!pack_layer(good, layer));

    layer.in = 8;
    auto packed = pack_layer(good, layer);
    QVERIFY(packed);
    PackedLayer damaged = *packed;
    damaged.tensors.erase(k_qlr_zeros);
    QVERIFY(!unpack_layer(damaged));
    damaged = *packed;
    damaged.tensors[k_qlr_codes].shape = {4, 2};
    QVERIFY(!unpack_layer(damaged));
    damaged = *packed;
    damaged.rank = 1;
    QVERIFY(!unpack_layer(damaged));
}

void TestExport::writes_what_the_run_holds_data() { formats(); }

void TestExport::writes_what_the_run_holds()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(exporter.accepts(*run_, *model_));
    test::TestMonitor monitor;
    const Status written = write(exporter, file("out"), false, monitor);
    QVERIFY2(written, qPrintable(text_of(written)));
    QVERIFY(monitor.reports() > 40 && monitor.within_total());
    const Status checked = exporter.check(*run_, *model_, file("out"), silent_monitor());
    QVERIFY2(checked, qPrintable(text_of(checked)));
    // The estimate is an upper bound that is not far off.
    std::uint64_t size = 0;
    for (const auto& [name, content] : test::folder_contents(file("out")))
        size += content.size();
    const auto estimate = exporter.estimate_bytes(*run_, *model_);
    QVERIFY(estimate);
    QVERIFY2(*estimate >= size && *estimate < size + (2 << 20),
             qPrintable(QString("%1 for %2").arg(*estimate).arg(size)));
    // The same run gives the same bytes.
    QVERIFY(write(exporter, file("again")));
    QVERIFY(test::folder_contents(file("again")) == test::folder_contents(file("out")));
}

void TestExport::dense_weights_are_bit_exact()
{
    QVERIFY(write(**require_exporter("hf"), file("out")));
    const auto reader = CheckpointReader::open(file("out"));
    QVERIFY(reader);
    for (const LinearLayer& layer : model_->linears()) {
        const auto decomposition = run_->decomposition(layer.name);
        QVERIFY(decomposition);
        const auto stored = (*reader)->read(layer.weight());
        QVERIFY(stored);
        QVERIFY2(*stored == decomposition->reconstruct(), layer.name.c_str());
        QVERIFY(*stored != *model_->checkpoint().read(layer.weight()));
    }
    QCOMPARE((*reader)->metadata()["format"].string(), std::string("pt"));
    const auto report = Json::read(file("out") / "rankscope.json");
    QVERIFY(report);
    const Json& layer = (*report)["layers"]["model.layers.3.mlp.down_proj"];
    QCOMPARE(layer["method"].string(), std::string("svd_residual"));
    QCOMPARE(layer["parameters"]["bits"].integer(), std::int64_t{3});
    QVERIFY(layer["relative_activation_error"].number() > 0.0);
    QVERIFY(layer["bits_per_weight"].number() > 3.0);
}

void TestExport::other_tensors_and_files_are_copied()
{
    // A plan that leaves two layers as they are.
    auto plan = uniform_plan(*model_, "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{32}}}, 0);
    QVERIFY(plan);
    QVERIFY(apply_setting(*plan, "model.layers.1.mlp.*:include=false"));
    const auto backend = make_cpu_backend();
    const Status done = Run::execute(model_, *plan, nullptr, file("run"), {}, *backend, silent_monitor());
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto run = Run::open(file("run"));
    QVERIFY(run);
    for (const Exporter* exporter : exporters()) {
        const fs::path out = file(exporter->info().id.c_str());
        QVERIFY(exporter->write(**run, *model_, out, {}, silent_monitor()));
        QVERIFY(exporter->check(**run, *model_, out, silent_monitor()));
        const auto reader = CheckpointReader::open(exporter->info().id == "hf" ? out / "model.safetensors"
                                                                               : out / "qlr.safetensors");
        QVERIFY(reader);
        for (const char* name : {"model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight",
                                 "model.embed_tokens.weight", "model.norm.weight"})
            QVERIFY2(bytes_of(**reader, name) == bytes_of(model_->checkpoint(), name), name);
        for (const char* name :
             {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
            QVERIFY(*read_text_file(out / name) == *read_text_file(test::sample_folder() / name));
    }
}

void TestExport::packed_export_is_small()
{
    QVERIFY(write(**require_exporter("hf-qlr"), file("out")));
    const auto schema = Json::read(file("out") / "rankscope_qlr.json");
    QVERIFY(schema);
    double stored = 0.0;
    double planned = 0.0;
    double padding = 0.0;
    for (const LayerResult& result : run_->results()) {
        const LinearLayer* layer = model_->find_linear(result.layer);
        stored += (*schema)["layers"][result.layer]["stored_bytes"].number();
        planned += result.bits_per_weight * static_cast<double>(layer->out * layer->in) / 8.0;
        padding += 8.0 * static_cast<double>(layer->out); // codes and zero points of a row end at a word
    }
    QVERIFY(planned > 0.0);
    QVERIFY2(stored < planned + padding, qPrintable(QString("%1 for %2").arg(stored).arg(planned)));
    QVERIFY(!fs::exists(file("out") / "model.safetensors")); // transformers must not load it by mistake
    QVERIFY(read_text_file(file("out") / "load_qlr.py")->find("def load(") != std::string::npos);
}

void TestExport::keeps_the_stored_type()
{
    for (const DType dtype : {DType::BF16, DType::F16}) {
        const std::string type(name(dtype));
        const fs::path checkpoint = file(type.c_str());
        QVERIFY(test::copy_sample(
            checkpoint, [](std::string_view, Matrix&) {}, dtype));
        const auto model = Model::open(checkpoint);
        QVERIFY(model);
        const auto plan =
            uniform_plan(**model, "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{64}}}, 0);
        const auto backend = make_cpu_backend();
        QVERIFY(plan
                && Run::execute(*model, *plan, nullptr, file("run"), {false, true, 0}, *backend,
                                silent_monitor()));
        const auto run = Run::open(file("run"));
        QVERIFY(run);
        for (const Exporter* exporter : exporters()) {
            const fs::path out = file((type + exporter->info().id).c_str());
            const Status written = exporter->write(**run, **model, out, {}, silent_monitor());
            QVERIFY2(written, qPrintable(text_of(written)));
            QVERIFY(exporter->check(**run, **model, out, silent_monitor()));
        }
        const auto reader = CheckpointReader::open(file((type + "hf").c_str()));
        QVERIFY(reader);
        for (const TensorInfo& info : (*reader)->tensors())
            QCOMPARE(info.dtype, dtype);
    }
}

void TestExport::keeps_shards()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto model = Model::open(*shared / "models" / "tiny-arch" / "llama-gqa-untied-sharded");
    QVERIFY(model);
    const auto plan =
        uniform_plan(**model, "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{32}}}, 0);
    const auto backend = make_cpu_backend();
    QVERIFY(plan && Run::execute(*model, *plan, nullptr, file("run"), {}, *backend, silent_monitor()));
    const auto run = Run::open(file("run"));
    QVERIFY(run);
    for (const Exporter* exporter : exporters()) {
        const fs::path out = file(exporter->info().id.c_str());
        const Status written = exporter->write(**run, **model, out, {}, silent_monitor());
        QVERIFY2(written, qPrintable(text_of(written)));
        QVERIFY(exporter->check(**run, **model, out, silent_monitor()));
    }
    const auto reader = CheckpointReader::open(file("hf"));
    QVERIFY(reader);
    QCOMPARE((*reader)->files().size(), (*model)->checkpoint().files().size());
    for (const TensorInfo& info : (*model)->checkpoint().tensors()) {
        const TensorInfo* exported = (*reader)->find(info.name);
        QVERIFY(exported);
        QCOMPARE((*reader)->files()[static_cast<std::size_t>(exported->file)].filename(),
                 (*model)->checkpoint().files()[static_cast<std::size_t>(info.file)].filename());
    }
}

void TestExport::refuses_values_beyond_the_type()
{
    // Two symmetric bits of the full rule reach 4/3 of the largest weight: 4/3 · 6e4 is beyond F16.
    QVERIFY(test::copy_sample(
        file("model"),
        [](std::string_view name, Matrix& values) {
            if (name == "model.layers.0.mlp.up_proj.weight")
                values(0, 0) = -6e4f;
        },
        DType::F16));
    const auto model = Model::open(file("model"));
    QVERIFY(model);
    const auto plan = uniform_plan(**model, "rtn",
                                   {{"bits", std::int64_t{2}},
                                    {"group", std::int64_t{64}},
                                    {"symmetric", true},
                                    {"clip_search", std::string("none")}},
                                   0);
    const auto backend = make_cpu_backend();
    QVERIFY(plan && Run::execute(*model, *plan, nullptr, file("run"), {}, *backend, silent_monitor()));
    const auto run = Run::open(file("run"));
    QVERIFY(run);
    const Status written =
        (*require_exporter("hf"))->write(**run, **model, file("out"), {}, silent_monitor());
    QVERIFY(!written);
    QCOMPARE(written.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(written).contains("model.layers.0.mlp.up_proj") && text_of(written).contains("F16"),
             qPrintable(text_of(written)));
    QVERIFY(!fs::exists(file("out")));
}

void TestExport::refuses_an_unfinished_run()
{
    const auto plan =
        uniform_plan(*model_, "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{64}}}, 0);
    const auto backend = make_cpu_backend();
    test::TestMonitor monitor(3);
    QVERIFY(plan && !Run::execute(model_, *plan, nullptr, file("run"), {}, *backend, monitor));
    const auto run = Run::open(file("run"));
    QVERIFY(run);
    QVERIFY(!(*run)->complete());
    for (const Exporter* exporter : exporters()) {
        const Status written = exporter->write(**run, *model_, file("out"), {}, silent_monitor());
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::BadInput);
        QVERIFY2(text_of(written).contains("not complete") && text_of(written).contains("--resume"),
                 qPrintable(text_of(written)));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExport::refuses_a_changed_checkpoint()
{
    QVERIFY(test::copy_sample(
        file("other"), [](std::string_view, Matrix&) {}, DType::BF16));
    const auto other = Model::open(file("other"));
    QVERIFY(other);
    for (const Exporter* exporter : exporters()) {
        const Status written = exporter->write(*run_, **other, file("out"), {}, silent_monitor());
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::BadInput);
        QVERIFY2(text_of(written).contains("changed"), qPrintable(text_of(written)));
        QVERIFY(!exporter->accepts(*run_, **other));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExport::check_finds_a_flipped_bit_data()
{
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("tensor");
    QTest::newRow("dense weight") << "hf"
                                  << "model.layers.2.self_attn.v_proj.weight";
    QTest::newRow("copied tensor") << "hf"
                                   << "model.norm.weight";
    QTest::newRow("codes") << "hf-qlr"
                           << "model.layers.2.self_attn.v_proj.qlr_codes";
    QTest::newRow("scales") << "hf-qlr"
                            << "model.layers.2.self_attn.v_proj.qlr_scales";
    QTest::newRow("zero points") << "hf-qlr"
                                 << "model.layers.2.self_attn.v_proj.qlr_zeros";
    QTest::newRow("left") << "hf-qlr"
                          << "model.layers.2.self_attn.v_proj.qlr_left";
    QTest::newRow("right") << "hf-qlr"
                           << "model.layers.2.self_attn.v_proj.qlr_right";
    QTest::newRow("copied beside packed") << "hf-qlr"
                                          << "model.embed_tokens.weight";
}

void TestExport::check_finds_a_flipped_bit()
{
    QFETCH(QString, format);
    QFETCH(QString, tensor);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(write(exporter, file("out")));
    const fs::path weights = file("out") / (format == "hf" ? "model.safetensors" : "qlr.safetensors");
    {
        const auto reader = CheckpointReader::open(weights);
        QVERIFY(reader);
        const TensorInfo* info = (*reader)->find(tensor.toStdString());
        QVERIFY(info);
        std::fstream stream(weights, std::ios::in | std::ios::out | std::ios::binary);
        stream.seekg(static_cast<std::streamoff>(info->offset));
        const char flipped = static_cast<char>(stream.get() ^ 1);
        stream.seekp(static_cast<std::streamoff>(info->offset));
        stream.put(flipped);
    }
    const Status checked = exporter.check(*run_, *model_, file("out"), silent_monitor());
    QVERIFY(!checked);
    QCOMPARE(checked.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(checked).contains(tensor.section(".qlr_", 0, 0)), qPrintable(text_of(checked)));
}

void TestExport::existing_folders_are_safe()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(write(exporter, file("out")));
    const auto before = test::folder_contents(file("out"));
    const Status again = write(exporter, file("out"));
    QVERIFY(!again);
    QCOMPARE(again.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(again).contains("--force"), qPrintable(text_of(again)));
    QVERIFY(test::folder_contents(file("out")) == before);
    QVERIFY(write_text_file(file("out") / "config.json", "{}", true));
    QVERIFY(write(exporter, file("out"), true));
    QVERIFY(test::folder_contents(file("out")) == before);
    // --force never takes somebody else's folder, the checkpoint's own least of all.
    fs::copy(test::sample_folder(), file("checkpoint"));
    QVERIFY(!write(exporter, file("checkpoint"), true));
    QVERIFY(fs::exists(file("checkpoint") / "calibration.txt"));
}

void TestExport::cancelled_leaves_nothing()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    test::TestMonitor whole;
    QVERIFY(write(exporter, file("whole"), false, whole));
    fs::remove_all(file("whole"));
    for (const std::int64_t after :
         {std::int64_t{0}, whole.reports() / 3, whole.reports() / 2, whole.reports() - 2}) {
        test::TestMonitor monitor(after);
        const Status written = write(exporter, file("out"), false, monitor);
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::Cancelled);
        QVERIFY(fs::is_empty(folder_->path().toStdString()));
    }
    QVERIFY(write(exporter, file("out")));
    test::TestMonitor monitor(5);
    QCOMPARE(exporter.check(*run_, *model_, file("out"), monitor).error().kind, ErrorKind::Cancelled);
}

void TestExport::unwritable_place_is_an_error()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(write_text_file(file("file"), "x", false));
    for (const fs::path& place : {file("file") / "out", fs::path("/proc/rankscope-export")}) {
        const Status written = write(exporter, place);
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::Io);
        QVERIFY2(text_of(written).contains(QString::fromStdString(place.parent_path().string())),
                 qPrintable(text_of(written)));
    }
    QCOMPARE(*read_text_file(file("file")), std::string("x"));
}

void TestExport::failing_write_leaves_nothing()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    Status written;
    {
        const FileSizeLimit limit(100000);
        written = write(exporter, file("out"));
    }
    QVERIFY(!written);
    QVERIFY2(written.error().kind == ErrorKind::Io || written.error().kind == ErrorKind::NoSpace,
             qPrintable(text_of(written)));
    QVERIFY2(text_of(written).contains("safetensors"), qPrintable(text_of(written)));
    QVERIFY(fs::is_empty(folder_->path().toStdString()));
}

void TestExport::full_drive_is_said_before_the_first_byte()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    const TinyDrive drive(file("drive"), "size=64k");
    if (!drive.mounted())
        QSKIP("this user may not mount a small drive");
    const Status written = write(exporter, drive.folder() / "out");
    QVERIFY(!written);
    QCOMPARE(written.error().kind, ErrorKind::NoSpace);
    QVERIFY2(text_of(written).contains("MB"), qPrintable(text_of(written)));
    QVERIFY(fs::is_empty(drive.folder()));
}

QTEST_GUILESS_MAIN(TestExport)
#include "test_export.moc"
