// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/qlr_layer.h"

#include "core/base/random.h"
#include "core/export/detail/bit_packing.h"
#include "tests/support/export_support.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <cstring>

using namespace rankscope;
using test::random_codes;
namespace fs = std::filesystem;

class TestExportQlr : public QObject {
    Q_OBJECT

private slots:
    void packed_bits_lie_where_the_format_says();
    void packing_round_trips_every_width();
    void layers_round_trip_data();
    void layers_round_trip();
    void small_scales_stay_float();
    void refuses_layers_that_do_not_fit();
    void packed_export_is_small();
};

void TestExportQlr::packed_bits_lie_where_the_format_says()
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

void TestExportQlr::packing_round_trips_every_width()
{
    const RandomStream random(1, "packing");
    for (int bits = 1; bits <= 16; ++bits) {
        for (const Index cols : {1, 7, 31, 32, 33, 172}) {
            std::vector<std::uint16_t> values(static_cast<std::size_t>(3 * cols));
            for (std::size_t i = 0; i < values.size(); ++i)
                values[i] = static_cast<std::uint16_t>(random.below(i, std::uint64_t{1} << bits));
            const auto bytes = pack_rows(values, 3, cols, bits);
            QCOMPARE(bytes.size(), static_cast<std::size_t>(3 * 4 * packed_words(cols, bits)));
            for (Index i = 0; i < 3 * cols; ++i) {
                const std::byte* row = bytes.data() + i / cols * 4 * packed_words(cols, bits);
                QCOMPARE(packed_value(row, i % cols, bits),
                         std::uint32_t{values[static_cast<std::size_t>(i)]});
            }
        }
    }
}

void TestExportQlr::layers_round_trip_data()
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

void TestExportQlr::layers_round_trip()
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
    const auto rebuilt = test::read_back(*packed, layer.name);
    QVERIFY2(rebuilt, rebuilt ? "" : rebuilt.error().sentence().c_str());
    const Decomposition expected = rounded_to_stored(decomposition, *packed);
    QVERIFY(expected.quantized.codes == decomposition.quantized.codes);
    QVERIFY(*rebuilt == expected.reconstruct());
    const Matrix whole = decomposition.reconstruct();
    QVERIFY((*rebuilt - whole).norm() <= 2e-3f * whole.norm());
}

void TestExportQlr::small_scales_stay_float()
{
    LinearLayer layer;
    layer.name = "layer";
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
    const auto rebuilt = test::read_back(*packed, layer.name);
    QVERIFY(rebuilt && *rebuilt == rounded_to_stored(decomposition, *packed).reconstruct());
    QVERIFY(rounded_to_stored(decomposition, *packed).quantized.scales == decomposition.quantized.scales);
}

void TestExportQlr::refuses_layers_that_do_not_fit()
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
}

void TestExportQlr::packed_export_is_small()
{
    test::SampleRuns runs;
    const auto run = runs.ragged();
    QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "out";
    QVERIFY((*require_exporter("hf-qlr"))->write(*run, *runs.model(), out, {}, silent_monitor()));
    const auto schema = Json::read(out / "rankscope_qlr.json");
    QVERIFY(schema);
    double stored = 0.0;
    double planned = 0.0;
    double padding = 0.0;
    for (const LayerResult& result : run->results()) {
        const LinearLayer* layer = runs.model()->find_linear(result.layer);
        stored += (*schema)["layers"][result.layer]["stored_bytes"].number();
        planned += result.bits_per_weight * static_cast<double>(layer->out * layer->in) / 8.0;
        padding += 8.0 * static_cast<double>(layer->out); // codes and zero points of a row end at a word
    }
    QVERIFY(planned > 0.0);
    QVERIFY2(stored < planned + padding, qPrintable(QString("%1 for %2").arg(stored).arg(planned)));
    QVERIFY(!fs::exists(out / "model.safetensors")); // transformers must not load it by mistake
    QVERIFY(read_text_file(out / "load_qlr.py")->find("def load(") != std::string::npos);
}

QTEST_GUILESS_MAIN(TestExportQlr)
#include "test_export_qlr.moc"
