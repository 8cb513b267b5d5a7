// SPDX-License-Identifier: GPL-3.0-or-later
// Pictures of every plot, for people to look at, in light and dark at 1×, 1.5× and 2×. The scale of a process
// is fixed at its start, so each scale is a child process of this same program.
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/histogram_plot.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "tests/app/plot_samples.h"
#include "tests/support/test_paths.h"

#include <QApplication>
#include <QDir>
#include <QFile>
#include <QImage>
#include <QPixmap>
#include <QProcess>
#include <QSet>
#include <QTest>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const char k_scale_variable[] = "RANKSCOPE_PICTURE_SCALE";

QString picture_file(const QString& plot, bool dark, const QString& scale)
{
    return QStringLiteral("%1/plot_%2_%3_%4x.png")
        .arg(QString::fromStdString(artifact_folder().string()), plot,
             dark ? QStringLiteral("dark") : QStringLiteral("light"), scale);
}

QStringList plot_names()
{
    return {QStringLiteral("channels_broken"), QStringLiteral("channels_one"),
            QStringLiteral("channels"),        QStringLiteral("channels_sorted"),
            QStringLiteral("channels_narrow"), QStringLiteral("channels_few"),
            QStringLiteral("spectrum"),        QStringLiteral("spectrum_log_rank"),
            QStringLiteral("spectrum_narrow"), QStringLiteral("spectrum_few"),
            QStringLiteral("errors"),          QStringLiteral("errors_eight"),
            QStringLiteral("errors_empty"),    QStringLiteral("spectrum_busy"),
            QStringLiteral("histogram"),       QStringLiteral("histogram_run"),
            QStringLiteral("histogram_narrow"), QStringLiteral("matrices"),
            QStringLiteral("matrices_run"),    QStringLiteral("matrices_numbers"),
            QStringLiteral("matrices_narrow"), QStringLiteral("activations"),
            QStringLiteral("activations_narrow")};
}

std::unique_ptr<PlotView> make_plot(const QString& name)
{
    const QString layer = QStringLiteral("model.layers.31.mlp.down_proj");
    if (name.startsWith(QLatin1String("channels"))) {
        auto plot = std::make_unique<ChannelPlot>();
        plot->resize(name.endsWith(QLatin1String("narrow")) ? QSize(420, 320) : QSize(900, 460));
        const auto profile = channel_profile_of(name.endsWith(QLatin1String("one"))   ? 1
                                                : name.endsWith(QLatin1String("few")) ? 64
                                                                                      : 11008);
        if (name.endsWith(QLatin1String("broken"))) {
            profile->weighted_energy[2000] = std::nan("");
            profile->weighted_energy[7000] = std::numeric_limits<double>::infinity();
        }
        plot->setProfile(profile, layer);
        plot->setSorted(name.endsWith(QLatin1String("sorted")));
        if (name.endsWith(QLatin1String("few")))
            plot->setSelectedChannel(32);
        return plot;
    }
    if (name.startsWith(QLatin1String("spectrum"))) {
        auto plot = std::make_unique<SpectrumPlot>();
        plot->resize(name.endsWith(QLatin1String("narrow")) ? QSize(420, 320) : QSize(900, 460));
        const bool few = name.endsWith(QLatin1String("few"));
        plot->setSpectrum(layer_spectrum_of(few ? 64 : 4096, true), layer, few ? 64 : 4096,
                          few ? 172 : 11008);
        plot->setLogRank(name.endsWith(QLatin1String("log_rank")));
        plot->setRank(few ? 8 : name.endsWith(QLatin1String("narrow")) ? 4000 : 256);
        plot->setBusy(name.endsWith(QLatin1String("busy")));
        return plot;
    }
    if (name.startsWith(QLatin1String("histogram"))) {
        auto plot = std::make_unique<HistogramPlot>();
        plot->resize(name.endsWith(QLatin1String("narrow")) ? QSize(420, 320) : QSize(900, 460));
        plot->setHistogram(layer_histogram_of(576, 1536, !name.endsWith(QLatin1String("histogram"))), layer);
        return plot;
    }
    if (name.startsWith(QLatin1String("matrices"))) {
        auto plot = std::make_unique<MatricesPlot>();
        const bool few = name.endsWith(QLatin1String("numbers"));
        plot->resize(name.endsWith(QLatin1String("narrow")) ? QSize(420, 320) : QSize(1100, 460));
        plot->setMatrices(layer_matrices_of(few ? 12 : 576, few ? 8 : 1536, !name.endsWith(QLatin1String("matrices"))),
                          layer);
        plot->setSigned(few);
        plot->setSelectedChannel(few ? 3 : 512);
        return plot;
    }
    if (name.startsWith(QLatin1String("activations"))) {
        auto plot = std::make_unique<ActivationsPlot>();
        plot->resize(name.endsWith(QLatin1String("narrow")) ? QSize(420, 320) : QSize(900, 460));
        plot->setActivations(activations_of(24, 576), layer);
        return plot;
    }
    auto plot = std::make_unique<ErrorPlot>();
    plot->resize(900, 460);
    plot->setTraces(error_traces(name.endsWith(QLatin1String("empty"))   ? 0
                                 : name.endsWith(QLatin1String("eight")) ? 9
                                                                         : 3));
    return plot;
}

} // namespace

class TestPlotPictures : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void every_scale_data()
    {
        QTest::addColumn<QString>("scale");
        for (const char* scale : {"1", "1.5", "2"})
            QTest::newRow(scale) << QString::fromLatin1(scale);
    }

    void every_scale()
    {
        QFETCH(QString, scale);
        QProcess child;
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        environment.insert(QStringLiteral("QT_SCALE_FACTOR"), scale);
        environment.insert(QLatin1String(k_scale_variable), scale);
        environment.insert(QStringLiteral("QT_QPA_PLATFORM"), QStringLiteral("offscreen"));
        child.setProcessEnvironment(environment);
        child.setProcessChannelMode(QProcess::MergedChannels);
        child.start(QCoreApplication::applicationFilePath(), {});
        QVERIFY2(child.waitForFinished(300'000), "the child that draws at another scale did not end");
        QVERIFY2(child.exitCode() == 0, child.readAll().constData());
        for (const QString& name : plot_names()) {
            for (const bool dark : {false, true}) {
                const QImage picture(picture_file(name, dark, scale));
                QVERIFY2(!picture.isNull(), qPrintable(name));
                const auto plot = make_plot(name);
                QCOMPARE(picture.width(), static_cast<int>(std::lround(plot->width() * scale.toDouble())));
                QSet<QRgb> colors;
                for (int y = 0; y < picture.height(); y += 3)
                    for (int x = 0; x < picture.width(); x += 3)
                        colors.insert(picture.pixel(x, y));
                QVERIFY2(colors.size() > 4, qPrintable(name + QStringLiteral(" is almost blank")));
            }
        }
    }
};

static int draw_all(const QString& scale)
{
    for (const bool dark : {false, true}) {
        Theme::instance().apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
        for (const QString& name : plot_names()) {
            const auto plot = make_plot(name);
            plot->show();
            QTest::qWait(20);
            if (!plot->grab().save(picture_file(name, dark, scale)))
                return 1;
        }
    }
    return 0;
}

int main(int argc, char** argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    QApplication application(argc, argv);
    const QString scale = qEnvironmentVariable(k_scale_variable);
    if (!scale.isEmpty())
        return draw_all(scale);
    TestPlotPictures test;
    return QTest::qExec(&test, argc, argv);
}

#include "test_plot_pictures.moc"
