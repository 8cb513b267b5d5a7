// SPDX-License-Identifier: GPL-3.0-or-later
// Lattice codes, rotated layers and quantized factors on their way through files, plans and exporters.
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/detail/qlr_layer.h"
#include "core/run/detail/layer_file.h"
#include "tests/support/sample_layer.h"

#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;
using namespace rankscope::test;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

} // namespace

class TestLatticeStorage : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    SampleLayer layer_ = sample_layer({20, 44, 300, 2}, 1);
    QTemporaryDir folder_;

    std::filesystem::path place(const char* name) const
    {
        return std::filesystem::path(folder_.path().toStdString()) / name;
    }

    static LayerPlan row_of(const char* method, const Given& given)
    {
        LayerPlan row;
        row.layer = "layer";
        row.method = method;
        row.parameters = *Parameters::make(find_method(method)->info(), given);
        return row;
    }

    Decomposition decomposed(const LayerPlan& row)
    {
        LayerProblem problem;
        problem.weight = backend_->upload(layer_.weight);
        problem.moments = &layer_.moments;
        problem.name = row.layer;
        auto result =
            find_method(row.method)->decompose(problem, row.parameters, *backend_, silent_monitor());
        Q_ASSERT(result.has_value());
        return std::move(*result);
    }

    static LinearLayer linear()
    {
        LinearLayer layer;
        layer.name = "layer";
        layer.out = 20;
        layer.in = 44;
        return layer;
    }

private slots:
    void layers_survive_their_file_data()
    {
        QTest::addColumn<QString>("method");
        QTest::addColumn<QString>("codebook");
        QTest::addColumn<QString>("rht");
        QTest::addColumn<QString>("factor_bits");
        QTest::addColumn<int>("bits");
        QTest::newRow("lattice") << "caldera"
                                 << "e8p"
                                 << "false"
                                 << "16" << 2;
        QTest::newRow("rotated lattice, 4-bit factors") << "odlri"
                                                        << "e8p"
                                                        << "auto"
                                                        << "4" << 2;
        QTest::newRow("4-bit lattice, 8-bit factors") << "caldera"
                                                      << "e8p"
                                                      << "auto"
                                                      << "8" << 4;
        QTest::newRow("rotated grid") << "caldera"
                                      << "uniform"
                                      << "true"
                                      << "16" << 3;
        QTest::newRow("gptq") << "gptq"
                              << "e8p"
                              << "auto"
                              << "" << 2;
    }

    void layers_survive_their_file()
    {
        QFETCH(QString, method);
        QFETCH(QString, codebook);
        QFETCH(QString, rht);
        QFETCH(QString, factor_bits);
        QFETCH(int, bits);
        Given given{
            {"codebook", codebook.toStdString()}, {"rht", rht.toStdString()}, {"bits", std::int64_t{bits}}};
        if (!factor_bits.isEmpty()) {
            given["factor_bits"] = factor_bits.toStdString();
            given["rank"] = std::int64_t{5};
            given["iterations"] = std::int64_t{2};
        }
        const LayerPlan row = row_of(method.toUtf8().constData(), given);
        const Decomposition made = decomposed(row);
        const auto file = place("layer.safetensors");
        std::filesystem::remove(file);
        QVERIFY(write_layer_file(file, row, made).has_value());
        const auto read = read_layer_file(file);
        QVERIFY2(read.has_value(), read ? "" : read.error().sentence().c_str());
        QVERIFY(read->reconstruct() == made.reconstruct());
        QVERIFY(read->quantized.codes == made.quantized.codes);
        QVERIFY(read->transform.left_signs() == made.transform.left_signs());
        QCOMPARE(read->transform.empty(), rht == "false");
        QCOMPARE(read->bits_per_weight(), made.bits_per_weight());
        QVERIFY(layer_file_bytes(row, linear()) >= std::filesystem::file_size(file));
        // A plan says the same before anything is computed.
        QVERIFY(std::abs(planned_bits_per_weight(row, linear()) - made.bits_per_weight()) < 1e-9);
    }

    void reconstruction_is_as_good_as_the_trace_says()
    {
        const LayerPlan row = row_of(
            "caldera",
            {{"codebook", std::string("e8p")}, {"rank", std::int64_t{5}}, {"tune_passes", std::int64_t{0}}});
        const Decomposition made = decomposed(row);
        double best = 1.0;
        for (const IterationReport& report : made.trace)
            if (report.step > 1)
                best = std::min(best, report.relative_activation_error);
        const double error = measure(layer_.weight, made, &layer_.moments).relative_activation_error;
        QVERIFY2(error < 1.05 * best, qPrintable(QString("%1 %2").arg(error).arg(best)));
        QVERIFY((made.quantized.dequantize() - layer_.weight).norm()
                > 0.5F * layer_.weight.norm()); // rotated
    }

    void packed_export_says_why_not()
    {
        const auto refusal = [&](const Given& given) {
            const auto packed = pack_layer(decomposed(row_of("caldera", given)), linear());
            return packed ? std::string() : packed.error().sentence();
        };
        Given given{{"rank", std::int64_t{5}}, {"iterations", std::int64_t{1}}};
        QVERIFY(refusal(given).empty());
        given["factor_bits"] = std::string("8");
        QVERIFY(refusal(given).find("16 bits") != std::string::npos);
        given["rht"] = std::string("true");
        QVERIFY(refusal(given).find("rotat") != std::string::npos);
        given["codebook"] = std::string("e8p");
        QVERIFY(refusal(given).find("E8P") != std::string::npos);
    }

    void bits_that_the_lattice_lacks_are_refused()
    {
        for (const char* method : {"gptq", "caldera", "odlri"}) {
            const MethodInfo& info = find_method(method)->info();
            const auto made =
                Parameters::make(info, {{"codebook", std::string("e8p")}, {"bits", std::int64_t{3}}});
            QVERIFY(!made.has_value());
            QCOMPARE(made.error().kind, ErrorKind::Usage);
            QVERIFY(made.error().sentence().find("2 or 4 bits") != std::string::npos);
        }
    }

    void damaged_files_are_refused()
    {
        const LayerPlan row = row_of(
            "caldera",
            {{"codebook", std::string("e8p")}, {"rank", std::int64_t{5}}, {"iterations", std::int64_t{1}}});
        const Decomposition good = decomposed(row);
        const auto refused = [&](const Decomposition& broken) {
            const auto file = place("damaged.safetensors");
            std::filesystem::remove(file);
            return write_layer_file(file, row, broken).has_value() && !read_layer_file(file).has_value();
        };
        QVERIFY(!refused(good));
        Decomposition broken = good;
        broken.quantized.columns = 60;
        QVERIFY(refused(broken));
        broken = good;
        broken.quantized.columns = 0;
        QVERIFY(refused(broken));
        broken = good;
        broken.quantized.grid.bits = 3;
        QVERIFY(refused(broken));
        broken = good;
        broken.quantized.scales = Matrix::Ones(2, 1);
        QVERIFY(refused(broken));
        broken = good;
        broken.transform = Incoherence(VectorD::Ones(19), VectorD::Ones(44));
        QVERIFY(refused(broken));
    }
};

QTEST_GUILESS_MAIN(TestLatticeStorage)
#include "test_lattice_storage.moc"
