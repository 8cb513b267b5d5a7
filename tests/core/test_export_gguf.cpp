// SPDX-License-Identifier: GPL-3.0-or-later
//
// GGUF: blocks by the reader's rules, names and metadata against files that llama.cpp was seen to load, and
// every family read back by our reader, which was held to the converter's files.
#include "core/base/json.h"
#include "core/export/detail/gguf_blocks.h"
#include "core/model/gguf_form.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <numeric>
#include <set>

using namespace rankscope;
using test::random_codes;
using test::text_of;
namespace fs = std::filesystem;

namespace {

test::Given plan(std::int64_t bits, std::int64_t group, bool symmetric, std::int64_t rank)
{
    return {{"bits", bits}, {"group", group}, {"symmetric", symmetric}, {"rank", rank}};
}

} // namespace

class TestExportGguf : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void blocks_decode_to_what_was_meant_data();
    void blocks_decode_to_what_was_meant();
    void what_no_block_holds_data();
    void what_no_block_holds();
    void spelling_is_that_of_files_that_llama_cpp_loads();
    void families_read_back_data();
    void families_read_back();
    void adapters_have_their_own_ranks();
    void stacked_experts_are_filled_up();
    void single_file_keeps_factors_in_the_weights();
    void what_llama_cpp_does_otherwise_is_said();
    void quantized_checkpoints_need_force();
    void refusals_data();
    void refusals();
    void check_finds_a_flipped_bit();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write_and_check(const char* format, const Run& run, const Model& model) const
    {
        return test::write_and_check(**require_exporter(format), run, model, file("out"));
    }
    static std::shared_ptr<const Model> shared_model(const char* name)
    {
        const auto shared = test::shared_folder();
        const auto model =
            shared ? Model::open(*shared / "models" / name) : Result<std::shared_ptr<const Model>>(nullptr);
        return model ? *model : nullptr;
    }

    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExportGguf::blocks_decode_to_what_was_meant_data()
{
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<QString>("format");
    QTest::newRow("4 bits") << 4 << 32 << true << "Q4_0";
    QTest::newRow("3 bits, wide groups") << 3 << 96 << true << "Q4_0";
    QTest::newRow("2 bits with zero points") << 2 << 64 << false << "Q4_0";
    QTest::newRow("3 bits with zero points") << 3 << 32 << false << "Q4_0";
    QTest::newRow("4 bits with zero points") << 4 << 32 << false << "Q4_1";
    QTest::newRow("4 bits by row") << 4 << 0 << false << "Q4_1";
    QTest::newRow("5 bits") << 5 << 64 << true << "Q5_0";
    QTest::newRow("5 bits with zero points") << 5 << 64 << false << "Q5_1";
    QTest::newRow("6 bits with zero points") << 6 << 32 << false << "Q8_0";
    QTest::newRow("8 bits by row") << 8 << 0 << true << "Q8_0";
}

void TestExportGguf::blocks_decode_to_what_was_meant()
{
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(bool, symmetric);
    QFETCH(QString, format);
    const Index rows = 6;
    const Index cols = 192;
    const QuantizedMatrix q = random_codes(rows, cols, bits, group, symmetric);
    const auto block = exact_block(q);
    QVERIFY(block);
    const BlockLayout& layout = *block_layout(static_cast<std::uint32_t>(*block));
    QCOMPARE(QString::fromUtf8(layout.name.data(), static_cast<int>(layout.name.size())), format);
    std::vector<Index> order(rows);
    std::iota(order.rbegin(), order.rend(), Index{0});
    const std::vector<std::byte> bytes = encode_blocks(q, *block, order);
    QCOMPARE(bytes.size(), static_cast<std::size_t>(rows * cols) / layout.elements * layout.bytes);
    Matrix decoded(rows, cols);
    decode_blocks(*block, bytes.data(), static_cast<std::size_t>(rows * cols) / layout.elements,
                  decoded.data());
    const Matrix meant = stored_values(q, *block);
    for (Index row = 0; row < rows; ++row)
        QVERIFY(decoded.row(row) == meant.row(rows - 1 - row));
    // What storing costs: the rounding of scales and least values to F16.
    QVERIFY((meant - q.dequantize()).norm() < 2e-3F * q.dequantize().norm());
}

void TestExportGguf::what_no_block_holds_data()
{
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<int>("cols");
    QTest::addColumn<double>("scale");
    QTest::newRow("row that no block fits") << 4 << 4 << 172 << 0.01;
    QTest::newRow("group that crosses a block") << 4 << 16 << 64 << 0.01;
    QTest::newRow("8 bits with zero points") << 8 << 32 << 64 << 0.01;
    QTest::newRow("scale below F16") << 4 << 32 << 64 << 3.3e-7;
}

void TestExportGguf::what_no_block_holds()
{
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(int, cols);
    QFETCH(double, scale);
    QuantizedMatrix q = random_codes(8, cols, bits, group, false);
    q.scales.setConstant(static_cast<float>(scale));
    QVERIFY(!exact_block(q));
}

void TestExportGguf::spelling_is_that_of_files_that_llama_cpp_loads()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    for (const char* name : {"stories260k", "babyllama-105"}) {
        const auto model = shared_model(name);
        QVERIFY(model);
        const auto example =
            CheckpointReader::open(*shared / "golden" / "exports" / name / "gguf" / "base-q4_0.gguf");
        QVERIFY(example);
        const auto form = GgufForm::of(*model);
        const auto vocabulary = gguf_vocabulary(*model);
        QVERIFY(form && vocabulary);
        QCOMPARE(form->tensors.size(), (*example)->tensors().size());
        for (const GgufTensor& tensor : form->tensors) {
            const TensorInfo* info = (*example)->find(tensor.name);
            QVERIFY2(info && info->shape == tensor.shape, tensor.name.c_str());
        }
        const std::set<std::string> of_the_file = {"general.file_type", "general.name",
                                                   "tokenizer.ggml.scores"};
        for (const auto& [key, expected] : *(*example)->metadata().object_if()) {
            if (of_the_file.contains(key))
                continue;
            const auto own = form->metadata.find(key);
            const auto vocabulary_own = vocabulary->find(key);
            const Json* value = own != form->metadata.end()           ? &own->second.value
                                : vocabulary_own != vocabulary->end() ? &vocabulary_own->second.value
                                                                      : nullptr;
            QVERIFY2(value, key.c_str());
            const bool equal = expected.is_number() && !expected.is_integer() ? qFuzzyCompare(
                                   static_cast<float>(value->number()), static_cast<float>(expected.number()))
                                                                              : *value == expected;
            QVERIFY2(
                equal,
                (key + ": " + value->dump().substr(0, 200) + " " + expected.dump().substr(0, 200)).c_str());
        }
        // Scores order pairs as the model's own do: every merge has the place that its score says.
        const auto& theirs = *(*example)->metadata()["tokenizer.ggml.scores"].array_if();
        const auto& ours = *vocabulary->at("tokenizer.ggml.scores").value.array_if();
        const auto& types = *vocabulary->at("tokenizer.ggml.token_type").value.array_if();
        std::vector<std::size_t> normal;
        for (std::size_t i = 0; i < types.size(); ++i) {
            if (types[i].integer() == 1 && ours[i].number() > ours[types.size() - 1].number())
                normal.push_back(i);
        }
        for (std::size_t i = 1; i < normal.size(); ++i)
            QCOMPARE(ours[normal[i]].number() < ours[normal[i - 1]].number(),
                     theirs[normal[i]].number() < theirs[normal[i - 1]].number());
    }
}

void TestExportGguf::families_read_back_data()
{
    QTest::addColumn<QString>("model");
    for (const char* model : {"llama-gqa-tied", "llama-gqa-untied-sharded", "mistral-sliding-fp16",
                              "mixtral-moe", "qwen2-bias-bf16", "qwen3-qknorm", "phi3-fused", "gemma3-text",
                              "gpt2", "gpt2-hub-names", "gpt-neox-partial-rotary"})
        QTest::newRow(model) << model;
}

void TestExportGguf::families_read_back()
{
    QFETCH(QString, model);
    const auto source = shared_model(("tiny-arch/" + model).toUtf8().constData());
    if (!source)
        QSKIP(test::k_no_shared);
    const auto run = test::quick_run(source, file("run"), "svd_residual", plan(8, 32, true, 0));
    const Status done = write_and_check("gguf", *run, *source);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto exported = Model::open(file("out") / "model.gguf");
    QVERIFY2(exported, exported ? "" : exported.error().sentence().c_str());
    std::vector<TokenId> ids(40);
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<TokenId>((i * 37 + 11) % 500);
    const auto backend = make_cpu_backend();
    const auto expected = logits(*source, *run_weights(source, run), ids, *backend, silent_monitor());
    const auto found = logits(**exported, *checkpoint_weights(*exported), ids, *backend, silent_monitor());
    QVERIFY2(expected && found, found ? "" : found.error().sentence().c_str());
    const float error = (*expected - *found).norm() / expected->norm();
    QVERIFY2(error < 1e-2F, qPrintable(QString::number(error))); // scales are F16 there; a wrong row is > 0.1
    const Json report = *Json::read(file("out") / "rankscope.json");
    for (const LinearLayer& layer : source->linears())
        QCOMPARE(report["layers"][layer.name]["stored_as"].string(), std::string("Q8_0"));
}

void TestExportGguf::adapters_have_their_own_ranks()
{
    const auto model = test::sample_model();
    const auto run = test::quick_run(model, file("run"), "svd_residual", plan(4, 32, true, 4),
                                     {"*.k_proj:rank=0", "*.2.mlp.up_proj:rank=9"});
    const Status done = write_and_check("gguf-lora", *run, *model);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto adapter = CheckpointReader::open(file("out") / "lora.gguf");
    const auto base = CheckpointReader::open(file("out") / "base.gguf");
    QVERIFY(adapter && base);
    QCOMPARE((*adapter)->metadata()["general.type"].string(), std::string("adapter"));
    QCOMPARE((*adapter)->metadata()["adapter.type"].string(), std::string("lora"));
    QCOMPARE((*adapter)->metadata()["adapter.lora.alpha"].number(-1.0), 0.0);
    QCOMPARE((*adapter)->tensors().size(), std::size_t{60});
    QVERIFY(!(*adapter)->find("blk.0.attn_k.weight.lora_a"));
    QCOMPARE((*adapter)->find("blk.2.ffn_up.weight.lora_a")->shape, (Shape{9, 64}));
    QCOMPARE((*adapter)->find("blk.2.ffn_up.weight.lora_b")->shape, (Shape{172, 9}));
    // Rows of L stand as the base's: neighboring pairs in q.
    const auto left = (*adapter)->read("blk.1.attn_q.weight.lora_b");
    const auto own = run->decomposition("model.layers.1.self_attn.q_proj");
    QVERIFY(left && own);
    const Index half = model->config().head_dim / 2;
    QVERIFY((left->row(1) - own->low_rank.left.row(half)).norm() < 1e-3F * left->row(1).norm());
    QVERIFY((left->row(2) - own->low_rank.left.row(1)).norm() < 1e-3F * left->row(2).norm());
    // 172 inputs are no whole blocks.
    QCOMPARE((*base)->find("blk.0.ffn_down.weight")->type_name(), std::string_view("F16"));
    QCOMPARE((*base)->find("blk.0.ffn_up.weight")->type_name(), std::string_view("Q4_0"));

    const auto equal = test::quick_run(model, file("equal"), "svd_residual", plan(4, 32, true, 4));
    fs::remove_all(file("out"));
    QVERIFY(write_and_check("gguf-lora", *equal, *model));
    QCOMPARE((*CheckpointReader::open(file("out") / "lora.gguf"))->metadata()["adapter.lora.alpha"].number(),
             4.0);
}

void TestExportGguf::stacked_experts_are_filled_up()
{
    const auto model = shared_model("tiny-arch/mixtral-moe");
    if (!model)
        QSKIP(test::k_no_shared);
    const auto run = test::quick_run(model, file("run"), "svd_residual", plan(4, 32, true, 2),
                                     {"*.0.block_sparse_moe.experts.1.w1:rank=5", "*.experts.0.w2:bits=3"});
    const Status done = write_and_check("gguf-lora", *run, *model);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto adapter = CheckpointReader::open(file("out") / "lora.gguf");
    QVERIFY(adapter);
    const TensorInfo* a = (*adapter)->find("blk.0.ffn_gate_exps.weight.lora_a");
    QVERIFY(a);
    QCOMPARE(a->shape, (Shape{model->config().experts, 5, 64}));
    // A part of the experts cannot be replaced in one tensor.
    const auto part = test::quick_run(model, file("part"), "rtn", {}, {"*.experts.1.w1:include=false"});
    const Status refused = write_and_check("gguf", *part, *model);
    QVERIFY(!refused);
    QVERIFY2(text_of(refused).contains("ffn_gate_exps"), qPrintable(text_of(refused)));
}

void TestExportGguf::single_file_keeps_factors_in_the_weights()
{
    const auto model = test::sample_model();
    const auto run =
        test::quick_run(model, file("run"), "svd_residual", plan(4, 32, true, 4), {"*.mlp.*:rank=0"});
    const Status done = write_and_check("gguf", *run, *model);
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto exported = Model::open(file("out") / "model.gguf");
    QVERIFY(exported);
    const LinearLayer* layer = (*exported)->find_linear("model.layers.1.self_attn.q_proj");
    QVERIFY(layer);
    QVERIFY(*(*exported)->weight(*layer) == run->decomposition(layer->name)->reconstruct());
    const auto reader = CheckpointReader::open(file("out") / "model.gguf");
    QCOMPARE((*reader)->find("blk.1.attn_q.weight")->type_name(), std::string_view("F32"));
    QCOMPARE((*reader)->find("blk.1.ffn_up.weight")->type_name(), std::string_view("Q4_0"));
}

void TestExportGguf::what_llama_cpp_does_otherwise_is_said()
{
    const auto model = shared_model("tiny-arch/mistral-sliding-fp16");
    if (!model)
        QSKIP(test::k_no_shared);
    const auto run = test::quick_run(model, file("run"), "rtn", {});
    test::TestMonitor monitor;
    QVERIFY((*require_exporter("gguf"))->write(*run, *model, file("out"), {}, monitor));
    QCOMPARE(monitor.warnings().size(), std::size_t{1});
    QVERIFY2(monitor.warnings().front().find("window") != std::string::npos,
             monitor.warnings().front().c_str());
}

void TestExportGguf::quantized_checkpoints_need_force()
{
    const auto shared = test::shared_folder();
    const auto model = shared ? Model::open(*shared / "golden/exports/stories260k/gguf/base-q4_0.gguf")
                              : Result<std::shared_ptr<const Model>>(nullptr);
    if (!shared)
        QSKIP(test::k_no_shared);
    QVERIFY(model);
    const auto run = test::quick_run(*model, file("run"), "svd_residual", plan(8, 32, true, 4));
    const Exporter& exporter = **require_exporter("gguf-lora");
    const Status refused = exporter.write(*run, **model, file("out"), {}, silent_monitor());
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::Usage);
    QVERIFY2(text_of(refused).contains("Q4_0") && text_of(refused).contains("--force"),
             qPrintable(text_of(refused)));
    QVERIFY((*require_exporter("report"))->write(*run, **model, file("report"), {}, silent_monitor()));
    const Status written = exporter.write(*run, **model, file("out"), {false, true}, silent_monitor());
    QVERIFY2(written, qPrintable(text_of(written)));
    const Status checked = exporter.check(*run, **model, file("out"), silent_monitor());
    QVERIFY2(checked, qPrintable(text_of(checked)));
    // Blocks of the source that the run did not touch are copied, the vocabulary is the same.
    const auto before = CheckpointReader::open((*model)->path());
    const auto after = CheckpointReader::open(file("out") / "base.gguf");
    QVERIFY(before && after);
    QCOMPARE((*after)->find("token_embd.weight")->type_name(),
             (*before)->find("token_embd.weight")->type_name());
    QVERIFY(test::bytes_of(**after, "token_embd.weight") == test::bytes_of(**before, "token_embd.weight"));
    QVERIFY((*after)->metadata()["tokenizer.ggml.scores"] == (*before)->metadata()["tokenizer.ggml.scores"]);
    // The Hugging Face formats have no config.json to carry over.
    QVERIFY(text_of((*require_exporter("hf"))->accepts(*run, **model)).contains("GGUF"));
}

void TestExportGguf::refusals_data()
{
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("model");
    QTest::addColumn<QString>("words");
    QTest::newRow("llama.cpp has no OPT") << "gguf"
                                          << "opt"
                                          << "opt";
    QTest::newRow("Gemma's scores") << "gguf"
                                    << "gemma2-softcap"
                                    << "query_pre_attn_scalar";
    QTest::newRow("nothing to adapt") << "gguf-lora"
                                      << "qwen3-qknorm"
                                      << "adapter";
}

void TestExportGguf::refusals()
{
    QFETCH(QString, format);
    QFETCH(QString, model);
    QFETCH(QString, words);
    const auto source = shared_model(("tiny-arch/" + model).toUtf8().constData());
    if (!source)
        QSKIP(test::k_no_shared);
    const auto run = test::quick_run(source, file("run"), "svd_residual", plan(8, 32, true, 0));
    const Status refused = write_and_check(format.toUtf8().constData(), *run, *source);
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::Usage);
    QVERIFY2(text_of(refused).contains(words) && !refused.error().remedy.empty(),
             qPrintable(text_of(refused)));
    QVERIFY(!fs::exists(file("out")));
}

void TestExportGguf::check_finds_a_flipped_bit()
{
    const auto model = test::sample_model();
    const auto run = test::quick_run(model, file("run"), "svd_residual", plan(4, 32, false, 4));
    const Exporter& exporter = **require_exporter("gguf-lora");
    for (const auto& [name, tensor] : {std::pair{"base.gguf", "blk.2.attn_v.weight"},
                                       {"base.gguf", "output_norm.weight"},
                                       {"lora.gguf", "blk.2.attn_v.weight.lora_a"},
                                       {"lora.gguf", "blk.2.attn_v.weight.lora_b"}}) {
        fs::remove_all(file("out"));
        QVERIFY(exporter.write(*run, *model, file("out"), {}, silent_monitor()));
        QVERIFY(test::flip_bit(file("out") / name, tensor));
        const Status checked = exporter.check(*run, *model, file("out"), silent_monitor());
        QVERIFY(!checked);
        QVERIFY2(text_of(checked).contains(tensor), qPrintable(text_of(checked)));
    }
}

QTEST_GUILESS_MAIN(TestExportGguf)
#include "test_export_gguf.moc"
