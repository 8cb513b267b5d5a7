// SPDX-License-Identifier: GPL-3.0-or-later
// Lessons and tour scripts: what a tour tells must be what the methods do.
#include "core/calibration/quantized_activations.h"
#include "core/teaching/steps.h"
#include "core/teaching/tour_script.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QDir>
#include <QTemporaryDir>
#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

LessonInput made_up_input(Index out, Index in, std::uint64_t seed)
{
    const SampleLayer layer = sample_layer({out, in, 300, 3}, seed);
    LessonInput input;
    input.layer = "made.up";
    input.weight = layer.weight;
    input.moments = layer.moments;
    input.tokens = layer.activations.transpose().cast<double>();
    return input;
}

double figure(const Lesson& lesson, const char* name)
{
    const auto found = lesson.figures.find(name);
    return found == lesson.figures.end() ? std::nan("") : found->second;
}

Lesson taught_lesson(const char* id, const LessonInput& input)
{
    const auto backend = make_cpu_backend();
    auto lesson = find_lesson(id)->teach(input, *backend, silent_monitor());
    if (!lesson)
        qFatal("%s", lesson.error().sentence().c_str());
    return std::move(*lesson);
}

} // namespace

class TestTeaching : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void pooling_keeps_the_largest_entry();
    void histograms_count_every_value();
    void shares_and_quantiles();
    void figures_in_texts();
    void scripts_are_refused_with_a_reason();
    void every_script_fits_its_lesson_data();
    void every_script_fits_its_lesson();
    void odlri_tells_what_the_method_does();
    void fewer_outlier_channels_leave_more();
    void rotation_calms_planted_outliers();
    void lrc_beats_what_reads_rounded_inputs();
    void lrq_is_never_worse_than_nearest();
    void hostile_input_is_an_error();
    void the_sample_is_taught();
};

void TestTeaching::pooling_keeps_the_largest_entry()
{
    Matrix matrix = Matrix::Zero(1000, 7);
    matrix(777, 3) = -5.0F;
    matrix(778, 3) = 4.0F;
    const Matrix small = pooled(matrix, 10);
    QCOMPARE(small.rows(), Index{10});
    QCOMPARE(small.cols(), Index{7});
    QCOMPARE(small(7, 3), -5.0F);
    QCOMPARE(small.cwiseAbs().sum(), 5.0F);
    QCOMPARE(pooled(Matrix(0, 4), 10).size(), Index{0});
    const MatrixPicture picture = matrix_picture("m", matrix, 0.0);
    QCOMPARE(picture.limit, 5.0);
    QCOMPARE(picture.rows, Index{1000});
}

void TestTeaching::histograms_count_every_value()
{
    Matrix values(1, 5);
    values << -1.0F, -0.5F, 0.0F, 0.25F, 1.0F;
    const Matrix others = Matrix::Constant(3, 3, 0.125F);
    const std::vector<ValueSeries> inputs{{"a", SeriesRole::Weight, &values},
                                          {"b", SeriesRole::Residual, &others}};
    const HistogramPicture picture = histogram_picture("t", "x", inputs, 4);
    QCOMPARE(picture.low, -1.0);
    QCOMPARE(picture.high, 1.0);
    QCOMPARE(picture.series[0].counts.sum(), 5.0);
    QCOMPARE(picture.series[0].counts[3], 1.0); // the right end belongs to the last bin
    QCOMPARE(picture.series[0].counts[2], 2.0);
    QCOMPARE(picture.series[1].counts[2], 9.0);
    QCOMPARE(picture.series[1].highest, 0.125);
    const Matrix nothing = Matrix::Zero(2, 2);
    const std::vector<ValueSeries> zero{{"z", SeriesRole::Weight, &nothing}};
    QCOMPARE(histogram_picture("t", "x", zero, 4).series[0].counts.sum(), 4.0);

    QuantizedMatrix grid; // two groups a row, each with a step of its own
    grid.grid.bits = 2;
    grid.grid.group = 2;
    grid.grid.symmetric = false;
    grid.scales = Matrix{{0.5F, 0.25F}};
    grid.zeros = Matrix{{1.0F, 2.0F}};
    const Matrix both{{-0.5F, 1.0F, -0.5F, 0.25F}};
    const std::vector<ValueSeries> steps{{"s", SeriesRole::Residual, &both, &grid}};
    const HistogramPicture on_grid = histogram_picture("t", "x", steps, 3);
    QCOMPARE(on_grid.low, 0.0);
    QCOMPARE(on_grid.high, 3.0);
    QVERIFY(on_grid.series[0].counts == VectorD({{2.0, 0.0, 2.0}})); // codes 0, 3, 0, 3
}

void TestTeaching::shares_and_quantiles()
{
    Matrix matrix(2, 3);
    matrix << 1.0F, 0.0F, 2.0F, 2.0F, 0.0F, -1.0F;
    VectorD weights(3);
    weights << 1.0, 7.0, 3.0;
    const VectorD shares = column_shares(matrix, weights, 20.0);
    QCOMPARE(shares[0], 0.25);
    QCOMPARE(shares[1], 0.0);
    QCOMPARE(shares[2], 0.75);
    QCOMPARE(sum_over(shares, {0, 2}), 1.0);
    QCOMPARE(column_shares(matrix, weights, 0.0).sum(), 0.0);
    QCOMPARE(magnitude_quantile(matrix, 1.0), 2.0);
    QCOMPARE(magnitude_quantile(matrix, 0.0), 0.0);
    QCOMPARE(magnitude_quantile(Matrix(0, 0), 0.5), 0.0);
    VectorD energy(4);
    energy << 1.0, 5.0, 3.0, 1.0;
    QCOMPARE(channels_for_share(energy, 0.5), Index{1});
    QCOMPARE(channels_for_share(energy, 0.51), Index{2});
    QCOMPARE(channels_for_share(energy, 1.0), Index{4});
    QCOMPARE(strongest_channels(energy, 2), (std::vector<Index>{1, 2}));
    QCOMPARE(strongest_channels(energy, 9).size(), std::size_t{4});
}

void TestTeaching::figures_in_texts()
{
    const std::map<std::string, double, std::less<>> figures{{"a", 0.123456}, {"b", 16.0}, {"c", 0.00567}};
    const auto text = with_figures("{a} and {a:%}, {b:n}; {c:%}", figures);
    VERIFY_OK(text);
    QCOMPARE(*text, std::string("0.1235 and 12 %, 16; 0.57 %"));
    QVERIFY(!with_figures("{d}", figures));
    QVERIFY(!with_figures("{a:x}", figures));
    QVERIFY(!with_figures("{a", figures));
    QVERIFY(!with_figures("a}", figures));
    QCOMPARE(*with_figures("", figures), std::string());
}

void TestTeaching::scripts_are_refused_with_a_reason()
{
    const auto reason = [](const char* text) {
        const auto json = Json::parse(text);
        if (!json)
            return std::string("no JSON");
        const auto script = tour_script(*json);
        return script ? std::string() : script.error().sentence();
    };
    QVERIFY(!reason("{}").empty());
    QVERIFY(!reason("[]").empty());
    const std::string page = R"({"title":"t","text":"x","formula":"f","question":"q","answer":"a","frames":)";
    const std::string head = R"({"id":"i","title":"t","summary":"s","pages":[)";
    QVERIFY(reason((head + page + R"([{"pictures":["a","b","c"]}]}]})").c_str()).find("page 1")
            != std::string::npos);
    QVERIFY(!reason((head + page + "[]}]}").c_str()).empty());
    QVERIFY(!reason((head + page + "7}]}").c_str()).empty());
    const std::string good = head + page + R"([{"pictures":"a.*"}]}]})";
    QCOMPARE(reason(good.c_str()), std::string());
    const auto script = tour_script(*Json::parse(good));
    Lesson lesson;
    QVERIFY(!tour_on(*script, lesson)); // no such picture
    lesson.pictures["a.0"] = BarsPicture{};
    lesson.pictures["a.1"] = BarsPicture{};
    lesson.pictures["a.3"] = BarsPicture{};
    const auto filled = tour_on(*script, lesson);
    VERIFY_OK(filled);
    QCOMPARE(filled->pages[0].frames.size(), std::size_t{2});
    QCOMPARE(filled->pages[0].frames[1].pictures[0], std::string("a.1"));
}

void TestTeaching::every_script_fits_its_lesson_data()
{
    QTest::addColumn<QString>("id");
    const QDir folder(QStringLiteral(RANKSCOPE_SOURCE_DIR "/resources/tours"));
    const QStringList scripts = folder.entryList({QStringLiteral("*.json")}, QDir::Files);
    QCOMPARE(static_cast<std::size_t>(scripts.size()), lessons().size());
    for (const LessonInfo& info : lessons())
        QTest::newRow(info.id) << QString::fromLatin1(info.id);
}

void TestTeaching::every_script_fits_its_lesson()
{
    QFETCH(QString, id);
    const auto json =
        Json::read((QStringLiteral(RANKSCOPE_SOURCE_DIR "/resources/tours/") + id + QStringLiteral(".json"))
                       .toStdString());
    VERIFY_OK(json);
    const auto script = tour_script(*json);
    VERIFY_OK(script);
    QCOMPARE(script->id, id.toStdString());
    // Odd sizes, and one that is smaller than any proposed rank.
    for (const auto& [out, in] : {std::pair<Index, Index>{24, 40}, {33, 17}, {2, 5}}) {
        const Lesson lesson = taught_lesson(qPrintable(id), made_up_input(out, in, 7));
        const auto tour = tour_on(*script, lesson);
        VERIFY_OK(tour);
        for (const auto& [name, value] : lesson.figures)
            QVERIFY2(std::isfinite(value), name.c_str());
        for (const auto& [name, picture] : lesson.pictures)
            QVERIFY2(!describe(picture).empty(), name.c_str());
    }
}

void TestTeaching::odlri_tells_what_the_method_does()
{
    const LessonInput input = made_up_input(48, 64, 11);
    const Lesson lesson = taught_lesson("odlri", input);
    // The figures of the last page are those of the method run by itself.
    const auto backend = make_cpu_backend();
    LayerProblem problem;
    problem.weight = backend->upload(input.weight);
    problem.moments = &input.moments;
    problem.name = input.layer;
    const Method& odlri = **require_method("odlri");
    const auto parameters = Parameters::make(odlri.info(), {{"bits", std::int64_t{2}},
                                                            {"group", std::int64_t{64}},
                                                            {"rank", std::int64_t{24}},
                                                            {"k", std::int64_t{12}},
                                                            {"iterations", std::int64_t{6}},
                                                            {"codebook", std::string("uniform")},
                                                            {"rht", std::string("false")},
                                                            {"tune_passes", std::int64_t{0}},
                                                            {"early_stop", false}});
    VERIFY_OK(parameters);
    const auto result = odlri.decompose(problem, *parameters, *backend, silent_monitor());
    VERIFY_OK(result);
    QCOMPARE(figure(lesson, "rank"), 24.0);
    QCOMPARE(figure(lesson, "k"), 12.0);
    QCOMPARE(figure(lesson, "best_error"), least_error(*result));
    QCOMPARE(figure(lesson, "start_error"), result->trace.front().relative_activation_error);
    QCOMPARE(figure(lesson, "first_error"), result->trace[1].relative_activation_error);
    // Three planted outliers are among those that are picked, and carry more than their share.
    QVERIFY(figure(lesson, "outlier_input_share") > 2.0 * figure(lesson, "even_share"));
    QVERIFY(figure(lesson, "best_error") < figure(lesson, "rtn_error"));
    QVERIFY(figure(lesson, "absorbed") > 0.5 && figure(lesson, "absorbed") <= 1.0);
    QVERIFY(figure(lesson, "range_after") < figure(lesson, "range_before"));
    // One curve and one residual for each entry of the trace.
    QVERIFY(lesson.pictures.contains("residual.12") && lesson.pictures.contains("curve.12"));
    QVERIFY(!lesson.pictures.contains("residual.13"));
}

void TestTeaching::fewer_outlier_channels_leave_more()
{
    LessonInput input = made_up_input(64, 96, 3);
    input.outliers = 16;
    const Lesson many = taught_lesson("odlri", input);
    input.outliers = 4;
    const Lesson few = taught_lesson("odlri", input);
    QCOMPARE(figure(few, "k"), 4.0);
    QVERIFY(figure(few, "left_strongest") > 1.5 * figure(many, "left_strongest"));
    QCOMPARE(figure(few, "proposed"), 16.0); // judged by the same columns
    input.outliers = 100000;                 // more than the rank: as many as can be
    QCOMPARE(figure(taught_lesson("odlri", input), "k"), figure(many, "rank"));
}

void TestTeaching::rotation_calms_planted_outliers()
{
    LessonInput input = made_up_input(32, 64, 5);
    input.moments.hessian.row(9) *= 40.0;
    input.moments.hessian.col(9) *= 40.0;
    input.tokens.col(9) *= 40.0;
    const Lesson lesson = taught_lesson("outliers", input);
    QCOMPARE(figure(lesson, "strongest"), 9.0);
    QVERIFY(figure(lesson, "strongest_share") > 0.5);
    QVERIFY(figure(lesson, "crest_after") < figure(lesson, "crest_before") / 4.0);
    QVERIFY(figure(lesson, "lost_without") < figure(lesson, "lost_with"));
    const auto& model = std::get<MatrixPicture>(lesson.pictures.at("model"));
    QCOMPARE(model.rows, Index{1}); // no map of a whole model: this layer alone
    QVERIFY(std::find(model.marked.begin(), model.marked.end(), 9) != model.marked.end());
}

void TestTeaching::lrc_beats_what_reads_rounded_inputs()
{
    const LessonInput input = made_up_input(48, 64, 2);
    const Lesson lesson = taught_lesson("lrc", input);
    QVERIFY(figure(lesson, "lrc_error") < figure(lesson, "plain_error"));
    QVERIFY(figure(lesson, "lrc_error") < figure(lesson, "residual_error"));
    QVERIFY(figure(lesson, "lrc_on_rounded") > figure(lesson, "lrc_error"));
    // No Q of any precision goes below the floor (its damping aside).
    QVERIFY(figure(lesson, "plain_error") > 0.95 * figure(lesson, "floor"));
    // The error of Q alone, once more from the tokens themselves.
    const MatrixD y = quantize_tokens(input.tokens, {4, 0.9});
    QVERIFY(figure(lesson, "activation_loss") > 0.0);
    QCOMPARE(figure(lesson, "activation_loss"), (input.tokens - y).norm() / input.tokens.norm());
}

void TestTeaching::lrq_is_never_worse_than_nearest()
{
    const LessonInput input = made_up_input(24, 40, 4);
    const Lesson lesson = taught_lesson("lrq", input);
    QVERIFY(figure(lesson, "learned_error") <= figure(lesson, "nearest_error"));
    QVERIFY(figure(lesson, "changed") > 0.0 && figure(lesson, "changed") < 1.0);
    // A weight whose quotient by the learned divisor lies in the grid rounds to the code that is told.
    const auto& rulers = std::get<RoundingPicture>(lesson.pictures.at("rulers"));
    QVERIFY(!rulers.weights.empty());
    for (const auto& weight : rulers.weights) {
        QVERIFY(weight.nearest != weight.learned);
        if (std::abs(weight.divided) < 3.0)
            QVERIFY2(std::abs(weight.divided - weight.learned) <= 0.501, weight.name.c_str());
    }
}

void TestTeaching::hostile_input_is_an_error()
{
    const auto backend = make_cpu_backend();
    LessonInput broken = made_up_input(8, 12, 1);
    broken.weight(3, 3) = std::numeric_limits<float>::quiet_NaN();
    for (const char* id : {"odlri", "lrc", "lrq"})
        QVERIFY2(!find_lesson(id)->teach(broken, *backend, silent_monitor()), id);
    LessonInput silent = made_up_input(8, 12, 1);
    silent.tokens.resize(0, 0);
    for (const char* id : {"outliers", "lrc"})
        QVERIFY2(!find_lesson(id)->teach(silent, *backend, silent_monitor()), id);
    LessonInput other = made_up_input(8, 12, 1);
    other.moments = made_up_input(8, 10, 1).moments;
    for (const char* id : {"odlri", "lrq", "outliers"})
        QVERIFY2(!find_lesson(id)->teach(other, *backend, silent_monitor()), id);
    LessonInput empty;
    for (const LessonInfo& info : lessons())
        QVERIFY2(!info.teach(empty, *backend, silent_monitor()), info.id);
    LessonInput dead = made_up_input(8, 12, 1); // nothing ever flowed: told, not divided by zero
    dead.moments.hessian.setZero();
    dead.tokens.setZero();
    for (const LessonInfo& info : lessons()) {
        const auto lesson = info.teach(dead, *backend, silent_monitor());
        if (lesson)
            for (const auto& [name, value] : lesson->figures)
                QVERIFY2(std::isfinite(value), (std::string(info.id) + " " + name).c_str());
    }
    QVERIFY(!find_lesson("no such lesson"));
}

void TestTeaching::the_sample_is_taught()
{
    QTemporaryDir folder;
    const auto model = sample_model();
    const auto run = make_sample_run(model, folder.path().toStdString(), "rtn", {});
    VERIFY_OK(run);
    const auto store = CalibrationStore::open(folder.path().toStdString() + "/calibration");
    VERIFY_OK(store);
    const auto map = channel_map(**store, *model, silent_monitor());
    VERIFY_OK(map);
    const auto layer = most_telling_layer(*map, *model);
    VERIFY_OK(layer);
    auto input = lesson_input(**store, *model, **layer);
    VERIFY_OK(input);
    QVERIFY(input->tokens.rows() > 0);
    input->map = &*map;
    QCOMPARE((*layer)->name, std::string("model.layers.2.mlp.down_proj"));
    const Lesson outliers = taught_lesson("outliers", *input);
    QCOMPARE(figure(outliers, "strongest"), 15.0); // the channel that the Channels view points at
    QVERIFY(figure(outliers, "found") > 0.0);
    QVERIFY(figure(outliers, "model_inputs") > 1.0);
    const Lesson lrc = taught_lesson("lrc", *input);
    QVERIFY(figure(lrc, "lrc_error") < figure(lrc, "residual_error"));
    const Lesson lrq = taught_lesson("lrq", *input);
    QVERIFY(figure(lrq, "learned_error") < figure(lrq, "nearest_error"));
    input->outliers = 4;
    const Lesson few = taught_lesson("odlri", *input);
    input->outliers = 16;
    const Lesson many = taught_lesson("odlri", *input);
    QVERIFY(figure(few, "left_strongest") > figure(many, "left_strongest"));
    for (const Lesson* lesson : {&outliers, &lrc, &lrq, &many})
        for (const auto& [name, value] : lesson->figures)
            qInfo("%s = %.5g", name.c_str(), value);
}

QTEST_GUILESS_MAIN(TestTeaching)
#include "test_teaching.moc"
