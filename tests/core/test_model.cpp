// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_writer.h"
#include "core/model/model.h"
#include "tests/support/naive_llama.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <cmath>
#include <fstream>
#include <map>
#include <set>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// Largest difference in units of the largest reference value.
double relative_difference(const Matrix& got, const Matrix& expected)
{
    return (got - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff();
}

std::vector<TokenId> ids_of(const CheckpointReader& reference, const std::string& name)
{
    const Matrix numbers = reference.view(name)->to_matrix();
    std::vector<TokenId> ids;
    for (Index i = 0; i < numbers.size(); ++i)
        ids.push_back(static_cast<TokenId>(numbers.data()[i]));
    return ids;
}

/// Deterministic values in (−0.5, 0.5), different for each name.
Matrix noise(const std::string& name, Index rows, Index cols)
{
    Matrix matrix(rows, cols);
    auto state = static_cast<std::uint32_t>(std::hash<std::string>{}(name));
    for (Index i = 0; i < matrix.size(); ++i) {
        state = state * 1664525U + 1013904223U;
        matrix.data()[i] = static_cast<float>(state >> 8) / 16777216.0F - 0.5F;
    }
    return matrix;
}

/// A Llama of two blocks in a folder, its config changed by `members` and its tensors by `edit`.
class TinyLlama {
public:
    using Tensors = std::map<std::string, Matrix>;

    explicit TinyLlama(const char* members = "{}", const std::function<void(Tensors&)>& edit = {})
    {
        auto config = Json::parse(
            R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false})");
        const auto changes = Json::parse(members);
        for (const auto& [key, value] : *changes->object_if())
            config->set(key, value);
        std::ofstream(path() / "config.json") << config->dump();
        Tensors tensors;
        const auto parsed = ModelConfig::parse(*config);
        if (parsed) {
            const auto architecture = architecture_for(*parsed);
            if (architecture)
                fill(tensors, *parsed, **architecture);
        }
        if (edit)
            edit(tensors);
        std::vector<TensorSource> sources;
        for (const auto& [name, matrix] : tensors) {
            TensorSource source = tensor_source(name, matrix);
            if (matrix.rows() == 1)
                source.shape = {matrix.cols()};
            sources.push_back(std::move(source));
        }
        written_ = write_safetensors(path() / "model.safetensors", std::move(sources), {}, true).has_value();
    }

    bool written() const { return written_; }
    fs::path path() const { return folder_.path().toStdString(); }

private:
    static void fill(Tensors& tensors, const ModelConfig& config, const Architecture& architecture)
    {
        const auto add = [&](const std::string& name, Index rows, Index cols) {
            tensors[name] = noise(name, rows, cols);
        };
        add(architecture.embedding(), config.vocabulary, config.hidden);
        add(architecture.final_norm(), 1, config.hidden);
        if (!config.tied_embeddings)
            add(architecture.head(), config.vocabulary, config.hidden);
        for (int block = 0; block < static_cast<int>(config.blocks); ++block) {
            add(architecture.block_names(config, block).attention_norm, 1, config.hidden);
            add(architecture.block_names(config, block).mlp_norm, 1, config.hidden);
        }
        for (const LinearLayer& layer : architecture.linears(config)) {
            add(layer.weight(), layer.out, layer.in);
            if (architecture.has_bias(config, layer.role))
                add(layer.bias(), 1, layer.out);
        }
    }

    QTemporaryDir folder_;
    bool written_ = false;
};

/// Takes a part of every weight out and hands it over as factors that multiply to the same.
class SplitWeights : public WeightSource {
public:
    explicit SplitWeights(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        const Matrix weight = *model_->checkpoint().read(layer.weight());
        const Matrix left = noise(layer.name + "L", layer.out, 3);
        const Matrix right = noise(layer.name + "R", 3, layer.in);
        return LinearWeight{backend.upload(Matrix(weight - left * right)),
                            backend.upload(left),
                            backend.upload(right),
                            {},
                            {}};
    }

private:
    std::shared_ptr<const Model> model_;
};

/// Hands out a weight of the wrong shape.
class WrongWeights : public WeightSource {
public:
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        return LinearWeight{backend.allocate(layer.in + 1, layer.out), {}, {}, {}, {}};
    }
};

class Cancelling : public Monitor {
public:
    bool cancelled() const override { return true; }
};

const std::vector<TokenId> k_ids = {1, 4, 10, 0, 7, 7, 3};

} // namespace

class TestModel : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private Q_SLOTS:
    void reference_logits_data()
    {
        QTest::addColumn<QString>("folder");
        QTest::addColumn<QString>("reference");
        QTest::newRow("stories260k") << "stories260k"
                                     << "stories260k/reference";
        QTest::newRow("babyllama-105") << "babyllama-105"
                                       << "babyllama-105/reference";
        for (const char* name :
             {"tiny-arch/llama-gqa-tied", "tiny-arch/llama-gqa-untied-sharded",
              "tiny-arch/mistral-sliding-fp16", "tiny-arch/qwen2-bias-bf16", "tiny-arch/qwen3-qknorm",
              "tiny-arch/phi3-fused", "tiny-arch/gpt2", "tiny-arch/gpt2-hub-names", "tiny-arch/opt",
              "tiny-arch/gpt-neox-partial-rotary", "tiny-arch/gemma2-softcap", "tiny-arch/gemma3-text",
              "tiny-arch/mixtral-moe"})
            QTest::newRow(name) << name << name;
    }
    void reference_logits()
    {
        QFETCH(QString, folder);
        QFETCH(QString, reference);
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        auto model = Model::open(*shared / "models" / folder.toStdString());
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        auto expected =
            CheckpointReader::open(*shared / "models" / reference.toStdString() / "reference.safetensors");
        QVERIFY(expected);
        const auto weights = checkpoint_weights(*model);
        int prompts = 0;
        double worst = 0.0;
        for (; (*expected)->find("ids." + std::to_string(prompts)); ++prompts) {
            const auto ids = ids_of(**expected, "ids." + std::to_string(prompts));
            auto got = logits(**model, *weights, ids, *backend_, silent_monitor());
            QVERIFY2(got, got ? "" : got.error().sentence().c_str());
            const Matrix wanted = *(*expected)->read("logits." + std::to_string(prompts));
            QCOMPARE(got->rows(), wanted.rows());
            QCOMPARE(got->cols(), wanted.cols());
            worst = std::max(worst, relative_difference(*got, wanted));
        }
        QVERIFY(prompts >= 2);
        qInfo("%s: %d prompts, largest difference %.1e of the largest logit", qPrintable(folder), prompts,
              worst);
        QVERIFY2(worst < 1e-4, QByteArray::number(worst));
    }

    void reference_hidden_states_data() { reference_logits_data(); }
    void reference_hidden_states()
    {
        QFETCH(QString, folder);
        QFETCH(QString, reference);
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        auto model = Model::open(*shared / "models" / folder.toStdString());
        QVERIFY(model);
        auto expected =
            CheckpointReader::open(*shared / "models" / reference.toStdString() / "reference.safetensors");
        QVERIFY(expected);
        const auto weights = checkpoint_weights(*model);
        // Layers × tokens × width: the embedding, then what leaves each block; the last one after the final
        // norm.
        const TensorView stored = *(*expected)->view("hidden.0");
        const Index tokens = stored.shape[1];
        const Matrix all = stored.to_matrix();
        const auto state = [&](Index layer) {
            return Matrix(Eigen::Map<const Matrix>(all.row(layer).data(), tokens, stored.shape[2]));
        };
        auto hidden = embed(**model, ids_of(**expected, "ids.0"), tokens, *backend_);
        QVERIFY(hidden);
        QCOMPARE(relative_difference(backend_->download(*hidden), state(0)), 0.0);
        const Index blocks = (*model)->config().blocks;
        QCOMPARE(stored.shape[0], blocks + 1);
        for (Index block = 0; block < blocks; ++block) {
            auto loaded = TransformerBlock::load(**model, *weights, static_cast<int>(block), *backend_);
            QVERIFY(loaded);
            loaded->forward(*hidden, tokens, *backend_);
            const bool last = block + 1 == blocks;
            const Buffer shown =
                last ? OutputHead::load(**model, *backend_)->normalized(*hidden, *backend_) : *hidden;
            const double difference = relative_difference(backend_->download(shown), state(block + 1));
            QVERIFY2(difference < 1e-4, QByteArray::number(difference));
        }
    }

    void agrees_with_the_equations_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::newRow("grouped") << QByteArray("{}");
        QTest::newRow("tied") << QByteArray(R"({"tie_word_embeddings": true})");
        QTest::newRow("every head its own keys") << QByteArray(R"({"num_key_value_heads": 4})");
        QTest::newRow("keys absent") << QByteArray(R"({"num_key_value_heads": null, "rms_norm_eps": null})");
        QTest::newRow("one key head, wide heads")
            << QByteArray(R"({"num_key_value_heads": 1, "head_dim": 6})");
        QTest::newRow("biases") << QByteArray(R"({"attention_bias": true, "mlp_bias": true})");
        QTest::newRow("other base") << QByteArray(R"({"rope_theta": 37.5})");
        QTest::newRow("transformers 5") << QByteArray(
            R"({"rope_parameters": {"rope_type": "default", "rope_theta": 37.5}, "dtype": "float32"})");
    }
    void agrees_with_the_equations()
    {
        QFETCH(QByteArray, members);
        const TinyLlama folder(members);
        QVERIFY(folder.written());
        auto model = Model::open(folder.path());
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        auto got = logits(**model, *checkpoint_weights(*model), k_ids, *backend_, silent_monitor());
        QVERIFY(got);
        const MatrixD expected = test::NaiveLlama(**model).logits(k_ids);
        const double difference = (got->cast<double>() - expected).cwiseAbs().maxCoeff();
        QVERIFY2(difference < 2e-5 * expected.cwiseAbs().maxCoeff(), QByteArray::number(difference));
    }

    void low_rank_weights_give_the_same()
    {
        const TinyLlama folder;
        auto model = Model::open(folder.path());
        QVERIFY(model);
        auto dense = logits(**model, *checkpoint_weights(*model), k_ids, *backend_, silent_monitor());
        auto split = logits(**model, SplitWeights(*model), k_ids, *backend_, silent_monitor());
        QVERIFY(dense && split);
        QVERIFY(relative_difference(*split, *dense) < 1e-5);
    }

    void sequences_in_a_batch_do_not_see_each_other()
    {
        const TinyLlama folder;
        auto model = Model::open(folder.path());
        QVERIFY(model);
        const auto weights = checkpoint_weights(*model);
        const std::vector<TokenId> first = {1, 2, 3};
        const std::vector<TokenId> second = {9, 8, 7};
        std::vector<TokenId> both = first;
        both.insert(both.end(), second.begin(), second.end());
        auto hidden = embed(**model, both, 3, *backend_);
        QVERIFY(hidden);
        for (int block = 0; block < 2; ++block)
            TransformerBlock::load(**model, *weights, block, *backend_)->forward(*hidden, 3, *backend_);
        const Matrix batch =
            backend_->download(OutputHead::load(**model, *backend_)->logits(*hidden, *backend_));
        QVERIFY(relative_difference(batch.topRows(3),
                                    *logits(**model, *weights, first, *backend_, silent_monitor()))
                < 1e-5);
        QVERIFY(relative_difference(batch.bottomRows(3),
                                    *logits(**model, *weights, second, *backend_, silent_monitor()))
                < 1e-5);
    }

    void the_observer_sees_each_input_once()
    {
        const TinyLlama folder(R"({"head_dim": 6})");
        auto model = Model::open(folder.path());
        QVERIFY(model);
        auto hidden = embed(**model, k_ids, static_cast<Index>(k_ids.size()), *backend_);
        QVERIFY(hidden);
        auto block = TransformerBlock::load(**model, *checkpoint_weights(*model), 1, *backend_);
        QVERIFY(block);
        std::vector<std::pair<std::string, Index>> seen;
        block->forward(*hidden, static_cast<Index>(k_ids.size()), *backend_,
                       [&](const std::string& group, const Buffer& x, std::span<const Index>) {
                           QCOMPARE(x.rows(), static_cast<Index>(k_ids.size()));
                           seen.emplace_back(group, x.cols());
                       });
        const std::string prefix = "model.layers.1.";
        const std::vector<std::pair<std::string, Index>> expected = {{prefix + "self_attn.q_proj", 8},
                                                                     {prefix + "self_attn.o_proj", 24},
                                                                     {prefix + "mlp.gate_proj", 8},
                                                                     {prefix + "mlp.down_proj", 12}};
        QVERIFY(seen == expected);
        std::set<std::string> groups;
        for (const LinearLayer& layer : (*model)->linears()) {
            groups.insert(layer.input_group);
            const LinearLayer* leader = (*model)->find_linear(layer.input_group);
            QVERIFY(leader && leader->in == layer.in && leader->block == layer.block);
        }
        QCOMPARE(groups.size(), std::size_t{8});
        QCOMPARE((*model)->linears().size(), std::size_t{14});
        QVERIFY(!(*model)->find_linear("model.layers.2.mlp.down_proj"));
    }

    void rope_scaling_kinds()
    {
        const auto frequencies = [](const char* members) {
            auto json = Json::parse(
                R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 128, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 1, "rope_theta": 500000.0})");
            const auto changes = Json::parse(members);
            for (const auto& [key, value] : *changes->object_if())
                json->set(key, value);
            const auto config = ModelConfig::parse(*json);
            return (*architecture_for(*config))->rotation(*config)->frequencies;
        };
        const auto plain = frequencies("{}");
        QCOMPARE(plain.size(), std::size_t{64});
        QCOMPARE(plain[0], 1.0);
        QVERIFY(std::abs(plain[32] - 1.0 / std::sqrt(500000.0)) < 1e-15);
        const auto linear = frequencies(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})");
        for (std::size_t i = 0; i < 64; ++i)
            QCOMPARE(linear[i], plain[i] / 4.0);
        const char* scaling =
            R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})";
        const auto llama3 = frequencies(scaling);
        for (std::size_t i = 0; i < 64; ++i) {
            const double wavelength = 2.0 * 3.14159265358979323846 / plain[i];
            if (wavelength < 8192.0 / 4.0)
                QCOMPARE(llama3[i], plain[i]);
            else if (wavelength > 8192.0)
                QCOMPARE(llama3[i], plain[i] / 8.0);
            else
                QVERIFY(llama3[i] < plain[i] && llama3[i] > plain[i] / 8.0);
            if (i > 0)
                QVERIFY(llama3[i] < llama3[i - 1]); // the blend leaves no step backwards
        }
    }

    void configs_are_refused_by_key_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* name, const char* members, const char* says) {
            QTest::newRow(name) << QByteArray(members) << QByteArray(says);
        };
        row("no architecture", R"({"model_type": null})", "key model_type: the key is missing");
        row("architecture is a number", R"({"model_type": 3})", "key model_type: a text was expected, not 3");
        row("no width", R"({"hidden_size": null})", "key hidden_size: the key is missing");
        row("no vocabulary", R"({"vocab_size": null})", "key vocab_size: the key is missing");
        row("zero blocks", R"({"num_hidden_layers": 0})",
            "key num_hidden_layers: it is 0, but must be between");
        row("negative width", R"({"intermediate_size": -4})", "key intermediate_size: it is -4");
        row("width beyond sense", R"({"hidden_size": 4611686018427387904})",
            "key hidden_size: it is 4611686018427387904");
        row("fractional width", R"({"hidden_size": 8.5})",
            "key hidden_size: a whole number was expected, not 8.5");
        row("width is a text", R"({"hidden_size": "8"})", "key hidden_size: a whole number was expected");
        row("heads do not divide", R"({"num_key_value_heads": 3})",
            "key num_key_value_heads: it is 3, which does not divide");
        row("more key heads than heads", R"({"num_key_value_heads": 8})", "key num_key_value_heads");
        row("odd heads", R"({"head_dim": 3})", "key head_dim: it is 3, but rotary");
        row("no head width", R"({"num_attention_heads": 3, "num_key_value_heads": 3})",
            "key head_dim: the key is missing");
        row("wide heads", R"({"head_dim": 4194304})", "key head_dim: all heads together");
        row("epsilon of zero", R"({"rms_norm_eps": 0})",
            "key rms_norm_eps: a positive number was expected, not 0");
        row("negative base", R"({"rope_theta": -1.0})", "key rope_theta: a positive number");
        row("flag is a number", R"({"tie_word_embeddings": 1})", "key tie_word_embeddings: true or false");
        row("activation", R"({"hidden_act": "gelu"})", "key hidden_act: the activation \"gelu\"");
        row("scaling kind", R"({"rope_scaling": {"rope_type": "ntk", "factor": 2.0}})",
            "key rope_scaling: the kind \"ntk\"");
        row("YaRN with a text", R"({"rope_scaling": {"rope_type": "yarn", "factor": "4"}})",
            "key rope_scaling.factor: a positive number");
        row("YaRN without room",
            R"({"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})",
            "key rope_theta: it must be larger than 1");
        row("YaRN's magnitude",
            R"({"rope_scaling": {"rope_type": "yarn", "factor": 4, "attention_factor": -1}})",
            "key rope_scaling.attention_factor");
        row("dynamic without factor", R"({"rope_scaling": {"rope_type": "dynamic"}})",
            "key rope_scaling.factor");
        row("LongRoPE without lists", R"({"rope_scaling": {"rope_type": "longrope"}})",
            "key rope_scaling.short_factor: a list of 1 numbers");
        row("LongRoPE with a short list",
            R"({"rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1, 2]}})",
            "key rope_scaling.long_factor: a list of 1 numbers");
        row("LongRoPE with a zero",
            R"({"rope_scaling": {"type": "su", "short_factor": [0], "long_factor": [1]}})",
            "key rope_scaling.short_factor: entry 0");
        row("original context of zero", R"({"original_max_position_embeddings": 0})",
            "key original_max_position_embeddings: it is 0");
        row("scaling kind is a number", R"({"rope_scaling": {"rope_type": 3}})",
            "key rope_scaling: the kind");
        row("scaling is a list", R"({"rope_scaling": []})", "key rope_scaling: an object or null");
        row("scaling without factor", R"({"rope_scaling": {"type": "linear"}})", "key rope_scaling.factor");
        row("scaling of zero", R"({"rope_scaling": {"type": "linear", "factor": 0}})",
            "key rope_scaling.factor");
        row("blend upside down",
            R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
            "high_freq_factor": 1, "original_max_position_embeddings": 8192}})",
            "key rope_scaling.high_freq_factor");
        row("rotary set for each layer type",
            R"({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})", "key rope_parameters");
        row("partly rotated", R"({"partial_rotary_factor": 0.5})", "key partial_rotary_factor");
        row("sliding window", R"({"sliding_window": 16})", "key sliding_window");
        row("quantized already", R"({"quantization_config": {"bits": 4}})", "key quantization_config");
    }
    void configs_are_refused_by_key()
    {
        QFETCH(QByteArray, members);
        QFETCH(QByteArray, says);
        const TinyLlama folder(members);
        auto model = Model::open(folder.path());
        QVERIFY(!model);
        const auto sentence = QByteArray::fromStdString(model.error().sentence());
        QVERIFY2(model.error().kind == ErrorKind::BadInput, sentence);
        QVERIFY2(sentence.contains(says) && sentence.contains("config.json"), sentence);
    }

    void tensors_that_do_not_fit_are_named()
    {
        const auto problem = [](const std::function<void(TinyLlama::Tensors&)>& edit,
                                const char* members = "{}") {
            const TinyLlama folder(members, edit);
            auto model = Model::open(folder.path());
            return model ? QByteArray("accepted") : QByteArray::fromStdString(model.error().sentence());
        };
        auto text = problem([](auto& tensors) { tensors.erase("model.layers.1.mlp.up_proj.weight"); });
        QVERIFY2(text.contains("are missing: model.layers.1.mlp.up_proj.weight"), text);
        text = problem([](auto& tensors) { tensors.erase("lm_head.weight"); });
        QVERIFY2(text.contains("are missing: lm_head.weight"), text);
        text = problem([](auto& tensors) {
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = Matrix::Ones(1, 1);
        });
        QCOMPARE(text, QByteArray("accepted"));
        text = problem([](auto& tensors) { tensors["lm_head.weight"] = Matrix::Ones(11, 8); },
                       R"({"tie_word_embeddings": true})");
        QCOMPARE(text, QByteArray("accepted"));
        text =
            problem([](auto& tensors) { tensors["model.layers.0.mlp.extra.weight"] = Matrix::Ones(1, 1); });
        QVERIFY2(text.contains("are not known: model.layers.0.mlp.extra.weight"), text);
        text = problem(
            [](auto& tensors) { tensors["model.layers.0.self_attn.q_proj.bias"] = Matrix::Ones(1, 8); });
        QVERIFY2(text.contains("are not known: model.layers.0.self_attn.q_proj.bias"), text);
        text = problem([](auto& tensors) { tensors.clear(); });
        QVERIFY2(text.contains("and 18 more"), text);
        text = problem(
            [](auto& tensors) { tensors["model.layers.0.mlp.up_proj.weight"] = Matrix::Ones(8, 12); });
        QVERIFY2(text.contains("tensor model.layers.0.mlp.up_proj.weight: its shape is [8, 12], but "
                               "config.json makes it [12, 8]"),
                 text);
        text = problem([](auto& tensors) { tensors["model.norm.weight"](0, 3) = std::nanf(""); });
        QCOMPARE(text, QByteArray("accepted")); // headers only; reading refuses it:
    }

    void values_that_are_not_finite_stop_the_forward_pass()
    {
        for (const char* name : {"model.norm.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight",
                                 "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"}) {
            const TinyLlama folder("{}", [name](auto& tensors) { tensors[name](0, 3) = std::nanf(""); });
            auto model = Model::open(folder.path());
            QVERIFY(model);
            const std::vector<TokenId> ids = {0, 1};
            auto got = logits(**model, *checkpoint_weights(*model), ids, *backend_, silent_monitor());
            QVERIFY(!got);
            QVERIFY2(got.error().sentence().find(name) != std::string::npos, got.error().sentence().c_str());
        }
    }

    void bad_tokens_and_weights()
    {
        const TinyLlama folder;
        auto model = Model::open(folder.path());
        QVERIFY(model);
        const auto weights = checkpoint_weights(*model);
        const auto problem = [&](const std::vector<TokenId>& ids) {
            auto got = logits(**model, *weights, ids, *backend_, silent_monitor());
            return got ? QByteArray("accepted") : QByteArray::fromStdString(got.error().sentence());
        };
        QVERIFY(problem({}).contains("there are no tokens"));
        QVERIFY(problem({1, 11}).contains("token 1 has the id 11, but the model knows ids from 0 to 10"));
        QVERIFY(problem({-1}).contains("has the id -1"));
        QVERIFY(problem(std::vector<TokenId>(33, 1)).contains("33 tokens, but the model's context holds 32"));
        QCOMPARE(problem(std::vector<TokenId>(32, 1)), QByteArray("accepted"));
        auto wrong = logits(**model, WrongWeights(), k_ids, *backend_, silent_monitor());
        QVERIFY(!wrong);
        QVERIFY(
            QByteArray::fromStdString(wrong.error().sentence()).contains("model.layers.0.self_attn.q_proj"));
        Cancelling cancelling;
        QVERIFY_EXCEPTION_THROWN(static_cast<void>(logits(**model, *weights, k_ids, *backend_, cancelling)),
                                 Cancelled);
    }

    void folders_that_are_no_model()
    {
        QTemporaryDir folder;
        const fs::path path = folder.path().toStdString();
        auto missing = Model::open(path / "nowhere");
        QVERIFY(missing.error().kind == ErrorKind::Io);
        auto bare = Model::open(path);
        QVERIFY(bare.error().kind == ErrorKind::BadInput);
        QVERIFY(
            QByteArray::fromStdString(bare.error().sentence()).contains("config.json: the file is missing"));
        std::ofstream(path / "config.json") << "{]";
        QVERIFY(QByteArray::fromStdString(Model::open(path).error().sentence())
                    .contains("config.json: not valid JSON"));
        std::ofstream(path / "config.json") << "[]";
        QVERIFY(!Model::open(path));
    }

    void the_sample_opens()
    {
        auto model = Model::open(test::sample_folder());
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        QCOMPARE((*model)->linears().size(), std::size_t{35});
        QVERIFY((*model)->config().tied_embeddings);
        auto tokenizer = (*model)->tokenizer();
        QVERIFY(tokenizer);
        QVERIFY(*tokenizer == *(*model)->tokenizer());
        auto file = Model::open(test::sample_folder() / "model.safetensors");
        QVERIFY(file);
        QCOMPARE((*file)->checkpoint().header_hash(), (*model)->checkpoint().header_hash());
        QVERIFY((*file)->tokenizer());
        const TinyLlama without;
        QVERIFY(!(*Model::open(without.path()))->tokenizer());
        QCOMPARE(short_name(LinearRole::Gate), std::string_view("gate"));
    }
};

QTEST_GUILESS_MAIN(TestModel)
#include "test_model.moc"
