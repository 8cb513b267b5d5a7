// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/multiple_choice.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

/// Zero-shot scoring: the rules of the harness, and sums of log probabilities against plain logits.
class TestMultipleChoice : public QObject {
    Q_OBJECT

private slots:
    void winners_data();
    void winners();
    void first_of_equals();
    void reads_a_task();
    void bad_files_data();
    void bad_files();
    void scores_match_direct_logits_data();
    void scores_match_direct_logits();
    void trailing_space_moves_to_the_choice();
    void one_choice_is_a_greedy_match();
    void long_contexts_lose_their_beginning();
    void accuracy_and_its_error();
    void budget_and_batching_do_not_matter();
    void each_weight_is_loaded_once();
    void can_be_cancelled();

private:
    fs::path place(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }
    ChoiceTask task_of(std::vector<ChoiceItem> items) const { return {"made", "", std::move(items)}; }
    Result<ChoiceResult> score(const ChoiceTask& task, Monitor& monitor = silent_monitor())
    {
        return multiple_choice(model_, *weights_, task, {}, *backend_, monitor);
    }
    /// With the BOS in front, as the scorer sees it.
    std::vector<TokenId> encode(const std::string& text) const
    {
        const auto prefix = (*model_->tokenizer())->prefix();
        std::vector<TokenId> result(prefix.begin(), prefix.end());
        if (const auto ids = (*model_->tokenizer())->encode(text))
            result.insert(result.end(), ids->begin(), ids->end());
        return result;
    }
    /// Σ ln p of the tokens from `context` on.
    double direct(const std::vector<TokenId>& ids, std::size_t context)
    {
        const auto rows =
            logits(*model_, *weights_, std::span(ids).first(ids.size() - 1), *backend_, silent_monitor());
        double sum = 0.0;
        for (std::size_t i = context; rows && i < ids.size(); ++i) {
            const Eigen::ArrayXd row =
                rows->row(static_cast<Index>(i) - 1).transpose().cast<double>().array();
            sum += row[ids[i]] - std::log(row.exp().sum());
        }
        return sum;
    }

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<WeightSource> weights_ = checkpoint_weights(model_);
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestMultipleChoice::winners_data()
{
    QTest::addColumn<QVector<double>>("likelihoods");
    QTest::addColumn<QStringList>("texts");
    QTest::addColumn<int>("by_sum");
    QTest::addColumn<int>("by_character");
    QTest::addColumn<int>("by_byte");
    QTest::newRow("the short one by the sum, the long one per character")
        << QVector<double>{-4.0, -9.0} << QStringList{"ab", "a long answer"} << 0 << 1 << 1;
    QTest::newRow("letters of two bytes count as one character")
        << QVector<double>{-4.0, -4.2} << QStringList{"abcd", QString::fromUtf8("äöü")} << 0 << 0 << 1;
    QTest::newRow("one choice") << QVector<double>{-3.0} << QStringList{"x"} << 0 << 0 << 0;
}

void TestMultipleChoice::winners()
{
    QFETCH(QVector<double>, likelihoods);
    QFETCH(QStringList, texts);
    QFETCH(int, by_sum);
    QFETCH(int, by_character);
    QFETCH(int, by_byte);
    std::vector<ChoiceScore> scores;
    std::vector<std::string> choices;
    for (int i = 0; i < texts.size(); ++i) {
        scores.push_back({likelihoods[i], false});
        choices.push_back(texts[i].toStdString());
    }
    const ChoiceWinners found = choice_winners(scores, choices);
    QCOMPARE(found.by_sum, static_cast<std::size_t>(by_sum));
    QCOMPARE(found.by_character, static_cast<std::size_t>(by_character));
    QCOMPARE(found.by_byte, static_cast<std::size_t>(by_byte));
}

void TestMultipleChoice::first_of_equals()
{
    const std::vector<ChoiceScore> scores = {{-9.0, false}, {-3.0, false}, {-3.0, false}};
    const std::vector<std::string> choices = {"abc", "a", "a"};
    const ChoiceWinners found = choice_winners(scores, choices);
    QCOMPARE(found.by_sum, std::size_t{1});
    QCOMPARE(found.by_character, std::size_t{0}); // −3 per character three times
    QCOMPARE(found.by_byte, std::size_t{0});
}

void TestMultipleChoice::reads_a_task()
{
    std::ofstream(place("little.jsonl"))
        << "{\"context\": \"Question: Is it?\\nAnswer:\", \"choices\": [\"no\", \"yes\"], \"gold\": 1}\n\n"
        << "{\"contexts\": [\"Tom and\", \"Tim and\"], \"choices\": [\"ran.\", \"ran.\"], \"gold\": 0, "
           "\"norm\": true}\r\n";
    const auto task = read_choice_task(place("little.jsonl"));
    VERIFY_OK(task);
    QCOMPARE(task->name, std::string("little"));
    QCOMPARE(task->items.size(), std::size_t{2});
    QCOMPARE(task->items[0].contexts.size(), std::size_t{1});
    QCOMPARE(task->items[0].gold, std::size_t{1});
    QVERIFY(!task->items[0].normalized && task->items[1].normalized);
    QCOMPARE(task->items[1].contexts[1], std::string("Tim and"));
    QCOMPARE(task->file_hash.size(), std::size_t{64});
}

void TestMultipleChoice::bad_files_data()
{
    QTest::addColumn<QByteArray>("line");
    QTest::addColumn<QString>("words");
    QTest::newRow("no JSON") << QByteArray("context: a") << "line 2";
    QTest::newRow("no object") << QByteArray("[1]") << "object";
    QTest::newRow("no choices") << QByteArray(R"({"context": "a", "gold": 0})") << "choices";
    QTest::newRow("choices are numbers")
        << QByteArray(R"({"context": "a", "choices": [1], "gold": 0})") << "text";
    QTest::newRow("empty choice") << QByteArray(R"({"context": "a", "choices": [""], "gold": 0})") << "empty";
    QTest::newRow("no context") << QByteArray(R"({"choices": ["b"], "gold": 0})") << "contexts";
    QTest::newRow("both kinds of context")
        << QByteArray(R"({"context": "a", "contexts": ["a"], "choices": ["b"], "gold": 0})") << "either";
    QTest::newRow("context is a number")
        << QByteArray(R"({"context": 1, "choices": ["b"], "gold": 0})") << "context";
    QTest::newRow("too few contexts")
        << QByteArray(R"({"contexts": ["a"], "choices": ["b", "c"], "gold": 0})")
        << "1 contexts and 2 choices";
    QTest::newRow("no gold") << QByteArray(R"({"context": "a", "choices": ["b"]})") << "gold";
    QTest::newRow("gold beyond") << QByteArray(R"({"context": "a", "choices": ["b"], "gold": 1})") << "gold";
    QTest::newRow("gold negative") << QByteArray(R"({"context": "a", "choices": ["b"], "gold": -1})")
                                   << "gold";
    QTest::newRow("norm is a word") << QByteArray(
        R"({"context": "a", "choices": ["b"], "gold": 0, "norm": "yes"})")
                                    << "norm";
}

void TestMultipleChoice::bad_files()
{
    QFETCH(QByteArray, line);
    QFETCH(QString, words);
    std::ofstream(place("bad.jsonl")) << R"({"context": "a", "choices": ["b", "c"], "gold": 0})"
                                      << "\n"
                                      << line.toStdString() << "\n";
    const auto task = read_choice_task(place("bad.jsonl"));
    QVERIFY(!task);
    QCOMPARE(task.error().kind, ErrorKind::BadInput);
    const QString sentence = QString::fromStdString(task.error().sentence());
    QVERIFY2(sentence.contains("bad.jsonl") && sentence.contains("line 2") && sentence.contains(words),
             qPrintable(sentence));
    std::ofstream(place("empty.jsonl")) << "\n \n";
    QVERIFY(!read_choice_task(place("empty.jsonl")));
    QVERIFY(!read_choice_task(place("missing.jsonl")));
}

void TestMultipleChoice::scores_match_direct_logits_data()
{
    QTest::addColumn<QString>("context");
    QTest::newRow("plain")
        << "Once upon a time there was a little girl named Lily. She liked to play with her";
    QTest::newRow("one word") << "The";
    QTest::newRow("nothing: the BOS stands for it") << "";
}

void TestMultipleChoice::scores_match_direct_logits()
{
    QFETCH(QString, context);
    const std::vector<std::string> choices = {"ball", "big red ball in the park all day long.", "sad"};
    const auto result = score(task_of({{{context.toStdString()}, choices, 0, false}}));
    VERIFY_OK(result);
    for (std::size_t i = 0; i < choices.size(); ++i) {
        const std::string before = context.toStdString();
        const double expected = direct(encode(before + " " + choices[i]), encode(before).size());
        QVERIFY2(std::abs(result->scores[0][i].log_likelihood - expected) < 1e-4 * std::abs(expected),
                 qPrintable(QString("%1 %2").arg(result->scores[0][i].log_likelihood).arg(expected)));
    }
}

void TestMultipleChoice::trailing_space_moves_to_the_choice()
{
    const auto result = score(task_of({{{"Tom saw a  "}, {"dog"}, 0, false}}));
    VERIFY_OK(result);
    const double expected = direct(encode("Tom saw a   dog"), encode("Tom saw a").size());
    QVERIFY(std::abs(result->scores[0][0].log_likelihood - expected) < 1e-4 * std::abs(expected));
}

void TestMultipleChoice::one_choice_is_a_greedy_match()
{
    const std::string context = "Once upon a";
    const std::vector<TokenId> ids = encode(context);
    const auto rows = logits(*model_, *weights_, ids, *backend_, silent_monitor());
    QVERIFY(rows);
    Index top = 0;
    rows->row(rows->rows() - 1).maxCoeff(&top);
    QCOMPARE((*model_->tokenizer())->token_text(static_cast<TokenId>(top)), std::string("▁time"));
    const auto result =
        score(task_of({{{context}, {"time"}, 0, false}, {{context}, {"elephant"}, 0, false}}));
    VERIFY_OK(result);
    QVERIFY(result->scores[0][0].greedy && !result->scores[1][0].greedy);
    QCOMPARE(result->accuracy.value, 0.5);
    QCOMPARE(result->per_character.value, 0.5);
}

void TestMultipleChoice::long_contexts_lose_their_beginning()
{
    std::string context = "Tom";
    while (encode(context).size() < static_cast<std::size_t>(model_->config().max_positions) + 40)
        context += " went to the park and";
    const auto result = score(task_of({{{context}, {"played"}, 0, false}, {{"Tom"}, {"played"}, 0, false}}));
    VERIFY_OK(result);
    QCOMPARE(result->truncated, std::size_t{1});
    std::vector<TokenId> ids = encode(context + " played");
    const std::size_t length = encode(context).size();
    const auto most = static_cast<std::size_t>(model_->config().max_positions) + 1;
    const std::size_t cut = ids.size() - most;
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(cut));
    const double expected = direct(ids, length - cut);
    QVERIFY(std::abs(result->scores[0][0].log_likelihood - expected) < 1e-3 * std::abs(expected));
}

void TestMultipleChoice::accuracy_and_its_error()
{
    // The likelier continuation is right in three of four questions.
    const std::vector<std::string> choices = {"time", "elephant"};
    const ChoiceItem right{{"Once upon a"}, choices, 0, true};
    ChoiceItem wrong = right;
    wrong.gold = 1;
    const auto result = score(task_of({right, right, wrong, right}));
    VERIFY_OK(result);
    QCOMPARE(result->accuracy.value, 0.75);
    QCOMPARE(result->accuracy.standard_error, std::sqrt(0.75 * 0.25 / 4.0));
    QCOMPARE(result->items, std::size_t{4});
    QVERIFY(result->normalized);
    QVERIFY(result->seconds > 0.0);
}

void TestMultipleChoice::budget_and_batching_do_not_matter()
{
    std::vector<ChoiceItem> items;
    for (int i = 0; i < 30; ++i) {
        std::string context = "One day";
        for (int word = 0; word < i; ++word)
            context += " Lily and Tom";
        items.push_back({{context}, {"ran home", "was"}, 0, false});
    }
    const auto together = score(task_of(items));
    VERIFY_OK(together);
    ChoiceOptions tight;
    tight.memory_budget_bytes = 8 << 20;
    const auto scratch =
        multiple_choice(model_, *weights_, task_of(items), tight, *backend_, silent_monitor());
    VERIFY_OK(scratch);
    for (std::size_t i = 0; i < items.size(); ++i) {
        QCOMPARE(scratch->scores[i][1].log_likelihood, together->scores[i][1].log_likelihood);
        if (i % 7 != 0)
            continue;
        const auto alone = score(task_of({items[i]}));
        VERIFY_OK(alone);
        QVERIFY(std::abs(alone->scores[0][0].log_likelihood - together->scores[i][0].log_likelihood) < 1e-3);
    }
}

void TestMultipleChoice::each_weight_is_loaded_once()
{
    class Counted final : public WeightSource {
    public:
        explicit Counted(const WeightSource& weights) : weights_(weights) {}
        Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
        {
            ++loads;
            return weights_.linear(layer, backend);
        }
        mutable std::size_t loads = 0;

    private:
        const WeightSource& weights_;
    } counted(*weights_);
    std::vector<ChoiceItem> items; // of many lengths
    for (std::size_t words = 1; words < 120; words += 17) {
        std::string context = "Once";
        for (std::size_t word = 0; word < words; ++word)
            context += " upon";
        items.push_back({{context}, {"a time", "the sea"}, 0, false});
    }
    const auto result = multiple_choice(model_, counted, task_of(items), {}, *backend_, silent_monitor());
    VERIFY_OK(result);
    QCOMPARE(counted.loads, model_->linears().size());
    const auto plain = score(task_of(items));
    VERIFY_OK(plain);
    for (std::size_t i = 0; i < items.size(); ++i)
        QCOMPARE(result->scores[i][0].log_likelihood, plain->scores[i][0].log_likelihood);
}

void TestMultipleChoice::can_be_cancelled()
{
    test::TestMonitor monitor(2);
    const auto result = score(task_of({{{"Once upon a"}, {"time"}, 0, false}}), monitor);
    QVERIFY(!result);
    QCOMPARE(result.error().kind, ErrorKind::Cancelled);
}

QTEST_GUILESS_MAIN(TestMultipleChoice)
#include "test_multiple_choice.moc"
