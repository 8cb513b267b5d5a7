// SPDX-License-Identifier: GPL-3.0-or-later
// GGUF files of every family that llama.cpp and we know, against logits by transformers on the same weights
// (data/tiny/make.py), and files whose metadata or tensors lie.
#include "core/export/exporter.h"
#include "core/model/gguf_model.h"
#include "core/model/model.h"
#include "core/run/run.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

fs::path file_of(const std::string& family, const char* end = ".gguf")
{
    return test::data_folder() / "tiny/gguf" / (family + end);
}

/// A tensor taken out of a file, to be written into another one.
struct Part {
    Shape shape;
    std::uint32_t type = 0;
    std::string bytes;
};

/// What a GGUF file holds, to be changed and written again.
struct Content {
    Json metadata;
    std::map<std::string, Part> tensors;

    static Content of(const fs::path& file)
    {
        Content content;
        const auto reader = CheckpointReader::open(file);
        content.metadata = (*reader)->metadata();
        for (const TensorInfo& info : (*reader)->tensors()) {
            const auto view = (*reader)->view(info.name);
            content.tensors[info.name] = {
                info.shape, info.dtype == DType::F16 ? 1U : 0U,
                std::string(reinterpret_cast<const char*>(view->bytes.data()), view->bytes.size())};
        }
        return content;
    }

    static void add_value(test::GgufBuilder& builder, const Json& value)
    {
        if (value.is_bool())
            builder.number(static_cast<std::uint8_t>(value.boolean()));
        else if (value.is_integer())
            builder.number(value.integer());
        else if (value.is_number())
            builder.number(value.number());
        else if (value.is_string())
            builder.text(value.string());
    }
    static std::uint32_t type_of(const Json& value)
    {
        return value.is_bool()      ? 7
               : value.is_integer() ? 11
               : value.is_number()  ? 12
               : value.is_string()  ? 8
                                    : 9;
    }

    void write(const fs::path& file) const
    {
        test::GgufBuilder builder;
        const auto& keys = *metadata.object_if();
        builder.start(tensors.size(), keys.size());
        for (const auto& [key, value] : keys) {
            builder.key(key, type_of(value));
            const auto* list = value.array_if();
            if (!list) {
                add_value(builder, value);
                continue;
            }
            builder.u32(list->empty() ? 4 : type_of(list->front())).u64(list->size());
            for (const Json& one : *list)
                add_value(builder, one);
        }
        std::uint64_t offset = 0;
        for (const auto& [name, part] : tensors) {
            builder.tensor(name, {part.shape.rbegin(), part.shape.rend()}, part.type, offset);
            offset += (part.bytes.size() + 31) / 32 * 32;
        }
        for (const auto& [name, part] : tensors)
            builder.pad().raw(part.bytes);
        builder.pad();
        std::ofstream(file, std::ios::binary) << builder.bytes;
    }
};

} // namespace

class TestGgufFamilies : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir folder_;

    fs::path scratch() const { return fs::path(folder_.path().toStdString()) / "changed.gguf"; }

private Q_SLOTS:
    void reference_logits_data()
    {
        QTest::addColumn<QString>("title");
        const auto row = [](const char* family, const char* title) { QTest::newRow(family) << title; };
        row("llama", "Llama"); // with frequency factors
        row("mistral", "Mistral");
        row("mixtral", "Mixtral");
        row("qwen2", "Qwen 2"); // with YaRN
        row("qwen3", "Qwen 3");
        row("qwen2moe", "Qwen 2 MoE");
        row("qwen3moe", "Qwen 3 MoE");
        row("phi3", "Phi 3"); // with LongRoPE
        row("gemma2", "Gemma 2");
        row("gemma3", "Gemma 3");
        row("gpt2", "GPT-2");
        row("gptneox", "GPT-NeoX");
    }
    void reference_logits()
    {
        QFETCH(QString, title);
        const std::string family = QTest::currentDataTag();
        const auto model = Model::open(file_of(family));
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        QCOMPARE(QString::fromUtf8((*model)->architecture().title().data()), title);
        const auto expected = CheckpointReader::open(file_of(family, ".safetensors"));
        QVERIFY(expected);
        const Matrix numbers = (*expected)->view("ids")->to_matrix();
        const std::vector<TokenId> ids(numbers.data(), numbers.data() + numbers.size());
        const auto got = logits(**model, *checkpoint_weights(*model), ids, *backend_, silent_monitor());
        QVERIFY2(got, got ? "" : got.error().sentence().c_str());
        const Matrix wanted = *(*expected)->read("logits");
        const float range = wanted.maxCoeff() - wanted.minCoeff();
        const float difference = (*got - wanted).cwiseAbs().maxCoeff() / range;
        qInfo("%s: %.1e of the range", family.c_str(), static_cast<double>(difference));
        QVERIFY2(difference < 1e-5F, QByteArray::number(difference));
    }

    void written_again_it_is_the_same()
    {
        Content::of(file_of("gemma3")).write(scratch());
        const auto copy = Model::open(scratch());
        QVERIFY2(copy, copy ? "" : copy.error().sentence().c_str());
        const auto original = Model::open(file_of("gemma3"));
        QVERIFY((*copy)->config().raw == (*original)->config().raw);
    }

    void experts_of_early_files_are_tensors_of_their_own()
    {
        Content content = Content::of(file_of("mixtral"));
        for (const char* name : {"blk.0.ffn_gate", "blk.0.ffn_up", "blk.0.ffn_down"}) {
            const auto stacked = content.tensors.extract(std::string(name) + "_exps.weight");
            const Part& part = stacked.mapped();
            const std::size_t bytes = part.bytes.size() / 3;
            for (std::size_t i = 0; i < 3; ++i)
                content.tensors[std::string(name) + "." + std::to_string(i) + ".weight"] = {
                    {part.shape[1], part.shape[2]}, part.type, part.bytes.substr(i * bytes, bytes)};
        }
        content.write(scratch());
        const auto early = Model::open(scratch());
        QVERIFY2(early, early ? "" : early.error().sentence().c_str());
        const auto usual = Model::open(file_of("mixtral"));
        for (const LinearLayer& layer : (*usual)->linears())
            QVERIFY(*(*early)->weight(layer) == *(*usual)->weight(layer));
    }

    void lies_are_named_data()
    {
        QTest::addColumn<QString>("family");
        QTest::addColumn<QByteArray>("changes"); // null takes a key away
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* family, const char* changes, const char* says) {
            QTest::addRow("%s %s", family, changes) << family << QByteArray(changes) << QByteArray(says);
        };
        row("llama", R"({"general.architecture": 7})", "the GGUF architecture \"\" is not known");
        row("llama", R"({"llama.block_count": null})", "key llama.block_count: the key is missing");
        row("llama", R"({"llama.block_count": "two"})", "key llama.block_count: a whole number was expected");
        row("llama", R"({"llama.block_count": 0})", "key llama.block_count: it is 0");
        row("llama", R"({"llama.block_count": -3})", "key llama.block_count: it is -3");
        row("llama", R"({"llama.block_count": 3})", "are missing: model.layers.2.");
        row("llama", R"({"llama.block_count": 1})", "tensors are not known: model.layers.1.");
        row("llama", R"({"llama.block_count": 20000})", "num_hidden_layers");
        row("llama", R"({"llama.embedding_length": 32})", "but the metadata makes it");
        row("llama", R"({"llama.embedding_length": 1.5})", "key llama.embedding_length: a whole number");
        row("llama", R"({"llama.feed_forward_length": 25})",
            "its shape is [16, 24], but the metadata makes it [16, 25]");
        row("llama", R"({"llama.feed_forward_length": [24, 25]})", "it differs from block to block");
        row("llama", R"({"llama.feed_forward_length": []})", "it differs from block to block");
        row("llama", R"({"llama.attention.head_count": 3, "llama.attention.key_length": null})",
            "key llama.attention.key_length: the key is missing, and the width");
        row("llama", R"({"llama.attention.head_count_kv": 3})", "which does not divide");
        row("llama", R"({"llama.attention.value_length": 4})", "values of another width");
        row("llama", R"({"llama.attention.layer_norm_rms_epsilon": 0})", "a positive number was expected");
        row("llama", R"({"llama.attention.layer_norm_rms_epsilon": "1e-5"})",
            "a positive number was expected");
        row("llama", R"({"llama.rope.freq_base": -1.0})", "key llama.rope.freq_base: a positive number");
        row("llama", R"({"llama.rope.dimension_count": 9})", "more than the 8 features of a head");
        row("llama", R"({"llama.rope.dimension_count": 4})", "partly rotated heads are not known for Llama");
        row("qwen2", R"({"qwen2.rope.scaling.type": "ntk"})", "the kind \"ntk\" is not known");
        row("qwen2", R"({"qwen2.rope.scaling.type": 2})", "the kind 2 is not known");
        row("qwen2", R"({"qwen2.rope.scaling.factor": "4"})", "key qwen2.rope.scaling.factor");
        row("mixtral", R"({"llama.expert_used_count": null})",
            "key llama.expert_used_count: the key is missing");
        row("mixtral", R"({"llama.expert_used_count": 4})", "num_experts_per_tok");
        row("mixtral", R"({"llama.expert_count": 4})",
            "its shape is [3, 16], but the metadata makes it [4, 16]");
        row("mixtral", R"({"llama.expert_count": 2})", "but the metadata makes it [2, 16]");
        row("qwen2moe", R"({"qwen2moe.expert_shared_feed_forward_length": null})", "the key is missing");
        row("qwen2moe", R"({"qwen2moe.expert_feed_forward_length": 9})", "but the metadata makes it [16, 9]");
        row("qwen2moe", R"({"qwen2moe.expert_weights_norm": 1})", "true or false was expected");
        row("qwen3moe", R"({"qwen3moe.expert_count": 7})", "but the metadata makes it [7, 16]");
        row("phi3", R"({"phi3.rope.scaling.original_context_length": null})",
            "key phi3.rope.scaling.original_context_length: the key is missing");
        row("phi3", R"({"phi3.attention.sliding_window": -2})",
            "key phi3.attention.sliding_window: it is -2");
        row("phi3", R"({"phi3.feed_forward_length": 48})", "but the metadata makes it [16, 48]");
        row("gemma2", R"({"gemma2.attention.sliding_window": null})", "the key is missing");
        row("gemma2", R"({"gemma2.attn_logit_softcapping": -5.0})", "a positive number was expected");
        row("gemma3", R"({"gemma3.attention.sliding_window_pattern": [true]})",
            "it has 1 entries for 2 blocks");
        row("gemma3", R"({"gemma3.attention.sliding_window_pattern": [1, 0]})", "true or false was expected");
        row("gemma3", R"({"gemma3.attention.sliding_window_pattern": "x"})", "a whole number was expected");
        row("gpt2", R"({"gpt2.attention.layer_norm_epsilon": null})", "the key is missing");
        row("gpt2", R"({"gpt2.context_length": 32})", "but the metadata makes it [32, 16]");
        row("gptneox", R"({"gptneox.use_parallel_residual": 1})", "true or false was expected");
        row("gptneox", R"({"gptneox.rope.dimension_count": 3})", "pairs are turned");
    }
    void lies_are_named()
    {
        QFETCH(QString, family);
        QFETCH(QByteArray, changes);
        QFETCH(QByteArray, says);
        Content content = Content::of(file_of(family.toStdString()));
        const auto members = Json::parse(changes.toStdString());
        QVERIFY(members);
        for (const auto& [key, value] : *members->object_if()) {
            if (value.is_null())
                content.metadata.object_if()->erase(key);
            else
                content.metadata.set(key, value);
        }
        content.write(scratch());
        const auto model = Model::open(scratch());
        QVERIFY(!model);
        QVERIFY(model.error().kind == ErrorKind::BadInput);
        const auto sentence = QByteArray::fromStdString(model.error().sentence());
        QVERIFY2(sentence.contains(says) && sentence.contains("changed.gguf"), sentence);
    }

    void tensors_that_do_not_fit_are_named_data()
    {
        QTest::addColumn<QString>("family");
        QTest::addColumn<QString>("tensor");
        QTest::addColumn<QString>("shape"); // empty: the tensor is taken away
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* family, const char* tensor, const char* shape, const char* says) {
            QTest::addRow("%s %s %s", family, tensor, shape) << family << tensor << shape << QByteArray(says);
        };
        row("llama", "token_embd.weight", "", "there is no tensor token_embd.weight");
        row("llama", "token_embd.weight", "768", "with two dimensions");
        row("llama", "blk.1.attn_q.weight", "", "are missing: model.layers.1.self_attn.q_proj.weight");
        row("llama", "blk.1.attn_q.weight", "32 8", "its shape is [32, 8]");
        row("llama", "rope_freqs.weight", "2 2", "a list of factors was expected");
        row("llama", "rope_freqs.weight", "2", "rope_scaling.short_factor: a list of 4 numbers");
        row("mixtral", "blk.0.ffn_up_exps.weight", "72 16", "experts are stacked in three");
        row("mixtral", "blk.0.ffn_up_exps.weight", "0 24 16", "it holds 0 experts");
        row("mixtral", "blk.0.ffn_up_exps.weight", "1152 1 1", "it holds 1152 experts");
        row("mixtral", "blk.0.ffn_up_exps.weight", "2 24 24", "its shape is [24, 24]");
        row("mixtral", "blk.0.ffn_gate_inp.weight", "", "are missing: model.layers.0.block_sparse_moe.gate");
        row("qwen2moe", "blk.0.ffn_gate_inp_shexp.weight", "8", "its shape is [1, 8]");
        row("phi3", "rope_factors_long.weight", "", "tensor rope_factors_long.weight: the tensor is missing");
        row("phi3", "rope_factors_short.weight", "3", "rope_scaling.short_factor: a list of 4 numbers");
        row("gpt2", "blk.0.attn_qkv.weight", "48 8", "its shape is [48, 8]");
        row("gpt2", "position_embd.weight", "", "are missing: transformer.wpe.weight");
        row("gptneox", "blk.1.attn_qkv.bias", "",
            "are missing: gpt_neox.layers.1.attention.query_key_value.bias");
        row("gemma3", "blk.0.attn_q_norm.weight", "", "are missing: model.layers.0.self_attn.q_norm.weight");
    }
    void tensors_that_do_not_fit_are_named()
    {
        QFETCH(QString, family);
        QFETCH(QString, tensor);
        QFETCH(QString, shape);
        QFETCH(QByteArray, says);
        Content content = Content::of(file_of(family.toStdString()));
        const auto found = content.tensors.find(tensor.toStdString());
        QVERIFY(found != content.tensors.end());
        if (shape.isEmpty()) {
            content.tensors.erase(found);
        } else {
            Part& part = found->second;
            part.shape.clear();
            std::size_t elements = 1;
            for (const QString& side : shape.split(QLatin1Char(' '))) {
                part.shape.push_back(side.toLongLong());
                elements *= side.toULongLong();
            }
            part.bytes.resize(elements * (part.type == 1 ? 2 : 4), '\0');
        }
        content.write(scratch());
        const auto model = Model::open(scratch());
        QVERIFY(!model);
        const auto sentence = QByteArray::fromStdString(model.error().sentence());
        QVERIFY2(model.error().kind == ErrorKind::BadInput && sentence.contains(says), sentence);
    }

    void is_not_exported_as_hugging_face()
    {
        const auto model = Model::open(file_of("llama"));
        QVERIFY(model);
        const fs::path run_folder = fs::path(folder_.path().toStdString()) / "run";
        const auto plan =
            uniform_plan(**model, "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{8}}}, 7);
        QVERIFY2(plan, plan ? "" : plan.error().sentence().c_str());
        const Status done = Run::execute(*model, *plan, nullptr, run_folder, {}, *backend_, silent_monitor());
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
        const auto run = Run::open(run_folder);
        QVERIFY(run);
        for (const char* format : {"hf", "hf-qlr"}) {
            const Status accepted = (*require_exporter(format))->accepts(**run, **model);
            QVERIFY(!accepted);
            QVERIFY(accepted.error().sentence().find("GGUF file, which has no config.json") != std::string::npos);
        }
    }

    void two_tensors_for_one_are_refused()
    {
        Content content = Content::of(file_of("mixtral"));
        content.tensors["blk.0.ffn_up.1.weight"] = {{24, 16}, 1, std::string(24 * 16 * 2, '\0')};
        content.write(scratch());
        const auto model = Model::open(scratch());
        QVERIFY(!model);
        QVERIFY(
            model.error().sentence().find("it stands for model.layers.0.block_sparse_moe.experts.1.w3.weight")
            != std::string::npos);
    }
};

QTEST_GUILESS_MAIN(TestGgufFamilies)
#include "test_gguf_families.moc"
