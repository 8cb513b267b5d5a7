// SPDX-License-Identifier: GPL-3.0-or-later
//
// GGUF's K types as grids: fits, roundings, storage, and files whose blocks hold the codes bit for bit.
#include "core/compute/grid_levels.h"
#include "core/export/detail/gguf_blocks.h"
#include "core/export/detail/gguf_kquant.h"
#include "core/export/detail/integer_layers.h"
#include "core/export/detail/qlr_layer.h"
#include "core/methods/common_parameters.h"
#include "core/plan/layer_plan.h"
#include "core/quantize/rounding.h"
#include "core/run/detail/layer_file.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_model.h"
#include "tests/support/wide_model.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <limits>
#include <numeric>

using namespace rankscope;
using test::sample_layer;
using test::SampleLayer;
using test::text_of;
namespace fs = std::filesystem;

namespace {

constexpr float k_nan = std::numeric_limits<float>::quiet_NaN();
constexpr float k_infinity = std::numeric_limits<float>::infinity();

ScalarGrid kquant_grid(int bits)
{
    return grid_of(*Parameters::make(find_method("rtn")->info(),
                                     {{"codebook", std::string("kquant")}, {"bits", std::int64_t{bits}}}));
}

int lowest(int bits) { return bits == 3 || bits == 6 ? -(1 << (bits - 1)) : 0; }

} // namespace

class TestKquant : public QObject {
    Q_OBJECT

private slots:
    void blocks_have_the_sizes_of_the_format();
    void fits_are_multiples_of_a_step_data() { add_bits(); }
    void fits_are_multiples_of_a_step();
    void odd_blocks_give_finite_grids_data();
    void odd_blocks_give_finite_grids();
    void parts_that_the_format_cannot_hold();
    void rounding_takes_the_nearest_level_data() { add_bits(); }
    void rounding_takes_the_nearest_level();
    void finer_types_miss_less();
    void feedback_and_tuning_lower_the_objective_data() { add_bits(); }
    void feedback_and_tuning_lower_the_objective();
    void files_hold_the_codes_bit_for_bit_data();
    void files_hold_the_codes_bit_for_bit();
    void layers_survive_their_file_data() { add_bits(); }
    void layers_survive_their_file();
    void plans_want_whole_blocks();
    void exported_models_are_not_rounded_again();
    void other_formats_say_why_not();

private:
    static void add_bits()
    {
        QTest::addColumn<int>("bits");
        for (int bits = 2; bits <= 6; ++bits)
            QTest::addRow("Q%d_K", bits) << bits;
    }
    /// A layer of 512 inputs decomposed by a method with this codebook.
    Result<Decomposition> decomposed(const char* method, int bits, const SampleLayer& layer) const
    {
        const MethodInfo& info = find_method(method)->info();
        test::Given given = {{"codebook", std::string("kquant")}, {"bits", std::int64_t{bits}}};
        if (info.find("rank"))
            given["rank"] = std::int64_t{4};
        if (info.find("iterations"))
            given["iterations"] = std::int64_t{2};
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        return find_method(method)->decompose(problem, *Parameters::make(info, given), *backend_,
                                              silent_monitor());
    }

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestKquant::blocks_have_the_sizes_of_the_format()
{
    for (int bits = 2; bits <= 6; ++bits) {
        const BlockLayout& layout = *block_layout("Q" + std::to_string(bits) + "_K");
        QCOMPARE(grid_bits_per_weight(kquant_grid(bits), 3, 512),
                 8.0 * static_cast<double>(layout.bytes) / static_cast<double>(layout.elements));
    }
    for (const int bits : {7, 8}) {
        const auto made = Parameters::make(
            find_method("gptq")->info(), {{"codebook", std::string("kquant")}, {"bits", std::int64_t{bits}}});
        QVERIFY(!made);
        QVERIFY2(made.error().sentence().find("2 to 6") != std::string::npos,
                 made.error().sentence().c_str());
    }
}

void TestKquant::fits_are_multiples_of_a_step()
{
    QFETCH(int, bits);
    const Matrix w = sample_layer({20, 512, 20, 1}, 3).weight;
    const GridBuffers fitted = backend_->fit_grid(backend_->upload(w), kquant_grid(bits));
    const Matrix scales = backend_->download(fitted.scales);
    const Matrix minima = backend_->download(fitted.zeros);
    const Index groups = 256 / kquant_group(bits);
    QCOMPARE(scales.cols(), 2 * groups);
    for (Index row = 0; row < w.rows(); ++row) {
        for (Index block = 0; block < 2; ++block) {
            const auto part = [&](const Matrix& values) {
                return std::span<const float>(values.row(row).data() + block * groups,
                                              static_cast<std::size_t>(groups));
            };
            const auto parts = kquant_parts(part(scales), part(minima), bits);
            QVERIFY(parts);
            for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
                QVERIFY(parts->scales[g] != 0 && std::abs(parts->scales[g]) <= kquant_scale_limit(bits));
                QCOMPARE(parts->step * static_cast<float>(parts->scales[g]), part(scales)[g]);
                QCOMPARE(parts->minimum_step * static_cast<float>(parts->minima[g]), part(minima)[g]);
                QVERIFY(parts->minima[g] == 0 || kquant_has_minimum(bits));
            }
        }
    }
}

void TestKquant::odd_blocks_give_finite_grids_data()
{
    QTest::addColumn<float>("value");
    QTest::newRow("zeros") << 0.0F;
    QTest::newRow("tiny") << 1e-30F;
    QTest::newRow("below F16") << 1e-7F;
    QTest::newRow("huge") << 1e30F;
    QTest::newRow("largest") << std::numeric_limits<float>::max();
    QTest::newRow("not a number") << k_nan;
    QTest::newRow("infinite") << k_infinity;
}

void TestKquant::odd_blocks_give_finite_grids()
{
    QFETCH(float, value);
    for (int bits = 2; bits <= 6; ++bits) {
        for (const Index cols : {Index{256}, Index{300}, Index{7}}) { // the last block of a row may be short
            Matrix w = Matrix::Constant(2, cols, value);
            w.row(1) *= -1.0F;
            w(0, cols / 2) = 0.0F;
            const GridBuffers fitted = backend_->fit_grid(backend_->upload(w), kquant_grid(bits));
            const Matrix scales = backend_->download(fitted.scales);
            QVERIFY(scales.allFinite() && backend_->download(fitted.zeros).allFinite());
            QVERIFY((scales.array() != 0.0F).all());
            if (!std::isfinite(value))
                continue;
            const RoundedBuffers rounded = backend_->round_nearest(backend_->upload(w), fitted);
            QVERIFY(backend_->download(rounded.values).allFinite());
        }
    }
}

void TestKquant::parts_that_the_format_cannot_hold()
{
    const std::vector<float> none(8, 0.0F);
    std::vector<float> scales(8, 0.5F);
    scales[3] = 31.5F; // 63 steps of 0.5
    QVERIFY(kquant_parts(scales, none, 4));
    QVERIFY(!kquant_parts(scales, none, 2)); // 15 at most
    scales[3] = 32.0F;
    QVERIFY(!kquant_parts(scales, none, 4));
    scales[3] = 0.7F;
    QVERIFY(!kquant_parts(scales, none, 4)); // no multiple
    scales[3] = -0.5F;
    QVERIFY(!kquant_parts(scales, none, 4)); // no sign beside a minimum
    scales[3] = k_nan;
    QVERIFY(!kquant_parts(scales, none, 4));
    const std::vector<float> fine(16, 1.0001F); // more digits than F16 has
    QVERIFY(!kquant_parts(fine, std::vector<float>(16, 0.0F), 3));
    QVERIFY(!kquant_parts(std::vector<float>(16, 1.0F), std::vector<float>(16, 1.0F), 3)); // no minima
    QVERIFY(!kquant_parts(none, std::vector<float>(7, 0.0F), 4));
}

void TestKquant::rounding_takes_the_nearest_level()
{
    QFETCH(int, bits);
    const ScalarGrid grid = kquant_grid(bits);
    Matrix w = sample_layer({9, 300, 20, 1}, 4).weight; // a whole block and a short one
    w.row(4).setZero();
    const Buffer buffer = backend_->upload(w);
    const GridBuffers fitted = backend_->fit_grid(buffer, grid);
    const RoundedBuffers rounded = backend_->round_nearest(buffer, fitted);
    const QuantizedMatrix q = to_host(rounded, fitted, *backend_);
    const Matrix values = q.dequantize();
    QVERIFY(values == backend_->download(rounded.values));
    QVERIFY(values.row(4).isZero(0.0F));
    for (Index i = 0; i < w.rows(); ++i) {
        for (Index j = 0; j < w.cols(); ++j) {
            const Index group = j / kquant_group(bits);
            QVERIFY(q.codes(i, j) >= lowest(bits) && q.codes(i, j) < lowest(bits) + (1 << bits));
            for (int code = lowest(bits); code < lowest(bits) + (1 << bits); ++code) {
                const float level = q.scales(i, group) * static_cast<float>(code) - q.zeros(i, group);
                QVERIFY(std::abs(values(i, j) - w(i, j)) <= std::abs(level - w(i, j)) * 1.00001F + 1e-7F);
            }
        }
    }
}

void TestKquant::finer_types_miss_less()
{
    const Matrix w = sample_layer({64, 512, 20, 0}, 5).weight;
    double before = 1.0;
    for (int bits = 2; bits <= 6; ++bits) {
        const Buffer buffer = backend_->upload(w);
        const RoundedBuffers rounded =
            backend_->round_nearest(buffer, backend_->fit_grid(buffer, kquant_grid(bits)));
        const double error = static_cast<double>((w - backend_->download(rounded.values)).norm() / w.norm());
        QVERIFY2(error < 0.65 * before, qPrintable(QString("%1 bits: %2").arg(bits).arg(error)));
        before = error;
        // Closer than the plain grid of as many bits with one range for 32 weights.
        ScalarGrid plain;
        plain.bits = bits;
        plain.group = 32;
        plain.symmetric = !kquant_has_minimum(bits);
        const Matrix other =
            backend_->download(backend_->round_nearest(buffer, backend_->fit_grid(buffer, plain)).values);
        QVERIFY(error < 1.02 * static_cast<double>((w - other).norm() / w.norm()));
    }
}

void TestKquant::feedback_and_tuning_lower_the_objective()
{
    QFETCH(int, bits);
    const SampleLayer layer = sample_layer({70, 512, 900, 2}, 6);
    MatrixD hessian = layer.moments.hessian;
    Matrix weight = layer.weight;
    prepare_hessian(hessian, weight, 0.01);
    const Buffer w = backend_->upload(weight);
    const GridBuffers fitted = backend_->fit_grid(w, kquant_grid(bits));
    const Matrix nearest = backend_->download(backend_->round_nearest(w, fitted).values);
    const auto factor = FeedbackFactor::make(hessian, true, *backend_, silent_monitor());
    QVERIFY(factor);
    RoundedBuffers rounded = factor->round(w, fitted, *backend_, silent_monitor());
    const Matrix values = backend_->download(rounded.values);
    QVERIFY(values == to_host(rounded, fitted, *backend_).dequantize());
    double before = test::objective(weight - values, hessian);
    QVERIFY(before < test::objective(weight - nearest, hessian));
    QVERIFY(std::abs(rounded.column_losses.dot(factor->diagonal()) - before) < 1e-4 * before);
    for (int pass = 0; pass < 2; ++pass) {
        rounded = tune_rounding(w, rounded, backend_->upload(hessian), fitted, 1, *backend_, silent_monitor());
        const double after = test::objective(weight - backend_->download(rounded.values), hessian);
        QVERIFY(after <= before * (1.0 + 1e-6));
        before = after;
    }
    QVERIFY(backend_->download(rounded.values) == to_host(rounded, fitted, *backend_).dequantize());
}

void TestKquant::files_hold_the_codes_bit_for_bit_data()
{
    QTest::addColumn<QString>("method");
    QTest::addColumn<int>("bits");
    for (const char* method : {"rtn", "gptq", "caldera", "odlri", "qera_exact"}) {
        for (int bits = 2; bits <= 6; ++bits)
            QTest::newRow(qPrintable(QString("%1 Q%2_K").arg(method).arg(bits))) << method << bits;
    }
}

void TestKquant::files_hold_the_codes_bit_for_bit()
{
    QFETCH(QString, method);
    QFETCH(int, bits);
    const SampleLayer layer = sample_layer({20, 512, 900, 1}, 7);
    const auto made = decomposed(method.toUtf8().constData(), bits, layer);
    QVERIFY2(made, made ? "" : made.error().sentence().c_str());
    const QuantizedMatrix& q = made->quantized;
    const auto block = exact_block(q);
    QVERIFY(block);
    const BlockLayout& layout = *block_layout(static_cast<std::uint32_t>(*block));
    QCOMPARE(std::string(layout.name), "Q" + std::to_string(bits) + "_K");
    std::vector<Index> order(20);
    std::iota(order.rbegin(), order.rend(), Index{0});
    const std::vector<std::byte> bytes = encode_blocks(q, *block, order);
    QCOMPARE(bytes.size(), static_cast<std::size_t>(q.codes.size()) / layout.elements * layout.bytes);
    Matrix decoded(20, 512);
    decode_blocks(*block, bytes.data(), static_cast<std::size_t>(q.codes.size()) / layout.elements,
                  decoded.data());
    const Matrix values = q.dequantize();
    for (Index row = 0; row < 20; ++row)
        QVERIFY(decoded.row(row) == values.row(19 - row));
    QVERIFY(stored_values(q, *block) == values);
    // What was touched by hand is no block any more.
    QuantizedMatrix changed = q;
    changed.scales(3, 1) *= 1.01F;
    QVERIFY(!exact_block(changed));
    changed = q;
    changed.codes(2, 5) = static_cast<std::int16_t>(lowest(bits) + (1 << bits));
    QVERIFY(!exact_block(changed));
}

void TestKquant::layers_survive_their_file()
{
    QFETCH(int, bits);
    const auto made = decomposed("caldera", bits, sample_layer({20, 512, 900, 1}, 8));
    QVERIFY(made);
    LayerPlan row;
    row.layer = "layer";
    row.method = "caldera";
    row.parameters = *Parameters::make(
        find_method("caldera")->info(),
        {{"codebook", std::string("kquant")}, {"bits", std::int64_t{bits}}, {"rank", std::int64_t{4}}});
    QTemporaryDir folder;
    const auto file = fs::path(folder.path().toStdString()) / "layer.safetensors";
    QVERIFY(write_layer_file(file, row, *made));
    const auto read = read_layer_file(file);
    QVERIFY2(read, read ? "" : read.error().sentence().c_str());
    QVERIFY(read->reconstruct() == made->reconstruct());
    QCOMPARE(read->bits_per_weight(), made->bits_per_weight());
    LinearLayer linear;
    linear.name = "layer";
    linear.out = 20;
    linear.in = 512;
    QVERIFY(std::abs(planned_bits_per_weight(row, linear) - made->bits_per_weight()) < 1e-9);
    QVERIFY(layer_file_bytes(row, linear) >= fs::file_size(file));
    // Without its minima a layer would read as another one.
    Decomposition broken = *made;
    broken.quantized.zeros.resize(0, 0);
    const auto other = fs::path(folder.path().toStdString()) / "broken.safetensors";
    QVERIFY(write_layer_file(other, row, broken));
    QCOMPARE(read_layer_file(other).has_value(), !kquant_has_minimum(bits));
}

void TestKquant::plans_want_whole_blocks()
{
    const auto model = test::sample_model(); // 64 and 172 inputs
    const auto plan = uniform_plan(*model, "gptq", {{"codebook", std::string("kquant")}}, 0);
    QVERIFY(!plan);
    QCOMPARE(plan.error().kind, ErrorKind::Usage);
    const std::string sentence = plan.error().sentence();
    QVERIFY2(sentence.find("256") != std::string::npos && sentence.find("--set") != std::string::npos,
             sentence.c_str());
}

void TestKquant::exported_models_are_not_rounded_again()
{
    QTemporaryDir folder;
    const fs::path base(folder.path().toStdString());
    const Status made = test::write_wide_model(base / "wide");
    QVERIFY2(made, qPrintable(text_of(made)));
    const auto model = Model::open(base / "wide");
    QVERIFY2(model, model ? "" : model.error().sentence().c_str());
    const auto run = test::quick_run(
        *model, base / "run", "svd_residual",
        {{"codebook", std::string("kquant")}, {"bits", std::int64_t{3}}, {"rank", std::int64_t{8}}},
        {"*.mlp.*:bits=2", "*.v_proj:bits=6", "*.o_proj:bits=4"});
    const Status done = test::write_and_check(**require_exporter("gguf-lora"), *run, **model, base / "out");
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto exported = Model::open(base / "out" / "base.gguf");
    const auto reader = CheckpointReader::open(base / "out" / "base.gguf");
    QVERIFY(exported && reader);
    QCOMPARE((*reader)->find("blk.0.attn_q.weight")->type_name(), std::string_view("Q3_K"));
    QCOMPARE((*reader)->find("blk.2.ffn_down.weight")->type_name(), std::string_view("Q2_K"));
    QCOMPARE((*reader)->find("blk.4.attn_v.weight")->type_name(), std::string_view("Q6_K"));
    QCOMPARE((*reader)->find("blk.4.attn_output.weight")->type_name(), std::string_view("Q4_K"));
    for (const LinearLayer& layer : (*model)->linears()) {
        const LinearLayer* found = (*exported)->find_linear(layer.name);
        QVERIFY(found);
        QVERIFY(*(*exported)->weight(*found) == run->decomposition(layer.name)->quantized.dequantize());
    }
}

void TestKquant::other_formats_say_why_not()
{
    LinearLayer linear;
    linear.name = "layer";
    linear.out = 20;
    linear.in = 512;
    for (int bits = 2; bits <= 6; ++bits) {
        const auto made = decomposed("rtn", bits, sample_layer({20, 512, 200, 1}, 9));
        QVERIFY(made);
        const auto packed = pack_layer(*made, linear);
        const Status integers = export_common::check_integer(*made, linear, "gptq");
        QCOMPARE(packed.has_value(), !kquant_has_minimum(bits));
        QCOMPARE(integers.has_value(), !kquant_has_minimum(bits));
        if (packed) { // whole-number steps, to the format a symmetric grid in groups of 16
            const auto read = test::read_back(*packed, linear.name);
            QVERIFY(read);
            const Matrix values = made->quantized.dequantize(); // scales have 16 bits there
            QVERIFY((*read - values).norm() < 1e-3F * values.norm());
            QVERIFY(*read == rounded_to_stored(*made, *packed).reconstruct());
        } else {
            QVERIFY(packed.error().sentence().find("K type") != std::string::npos);
            QVERIFY(text_of(integers).contains("K type"));
        }
    }
}

QTEST_GUILESS_MAIN(TestKquant)
#include "test_kquant.moc"
