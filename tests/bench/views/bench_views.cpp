// SPDX-License-Identifier: GPL-3.0-or-later
// Frames of the views, drawn offscreen at 1200 × 700: panning a matrix of 11008 × 4096 and a series of 10^6
// points, and what a change of the selected tensor takes from the weight to the picture.
#include "app/workbench/main_window.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/histogram_plot.h"
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/plots/qcp.h"
#include "app/workbench/settings.h"
#include "app/workbench/theme.h"
#include "app/workbench/view_tabs.h"
#include "core/base/random.h"
#include "core/plan/layer_parts.h"

#include <benchmark/benchmark.h>

#include <QApplication>
#include <QSettings>
#include <QTemporaryDir>

#include <clocale>
#include <cmath>
#include <memory>

using namespace rankscope;

namespace {

constexpr QSize k_window{1200, 700};
constexpr Index k_out = 11008;
constexpr Index k_in = 4096;

const Matrix& weight()
{
    static const Matrix values = [] {
        const RandomStream stream(1, "view");
        Matrix result(k_out, k_in);
        for (Index i = 0; i < result.size(); ++i)
            result.data()[i] = static_cast<float>(stream.uniform(static_cast<std::uint64_t>(i)) - 0.5);
        result.col(1234) *= 20.0F;
        return result;
    }();
    return values;
}

std::shared_ptr<const LayerMatrices> matrices()
{
    static const auto made = [] {
        const auto pyramid = std::make_shared<const MagnitudePyramid>(weight());
        auto result = std::make_shared<LayerMatrices>();
        result->parts.fill(pyramid);
        return result;
    }();
    return made;
}

template <class Plot>
QCustomPlot* shown(Plot& plot)
{
    plot.resize(k_window);
    plot.show();
    auto* canvas = plot.template findChild<QCustomPlot*>();
    canvas->replot(QCustomPlot::rpImmediateRefresh);
    QApplication::processEvents();
    return canvas;
}

void pan(benchmark::State& state, QCustomPlot* canvas, double share)
{
    int step = 0;
    for (auto unused : state) {
        const double forth = (step++ / 100) % 2 == 0 ? 1.0 : -1.0;
        canvas->xAxis->moveRange(forth * share * canvas->xAxis->range().size());
        canvas->replot(QCustomPlot::rpImmediateRefresh);
    }
    state.counters["frames_per_second"] =
        benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

/// Four panels of 11008 × 4096; the range is 1 / `zoom` of each side.
void pan_matrices(benchmark::State& state)
{
    MatricesPlot plot;
    plot.setMatrices(matrices(), QStringLiteral("down_proj"));
    QCustomPlot* canvas = shown(plot);
    const auto zoom = static_cast<double>(state.range(0));
    canvas->xAxis->setRange(0.0, k_in / zoom);
    canvas->yAxis->setRange(1000.0, 1000.0 + k_out / zoom);
    pan(state, canvas, 0.01);
}
BENCHMARK(pan_matrices)->Arg(2)->Arg(8)->Arg(64)->Arg(512)->ArgName("zoom")->Unit(benchmark::kMillisecond);

void zoom_matrices(benchmark::State& state)
{
    MatricesPlot plot;
    plot.setMatrices(matrices(), QStringLiteral("down_proj"));
    QCustomPlot* canvas = shown(plot);
    int step = 0;
    for (auto unused : state) {
        const double factor = (step++ / 60) % 2 == 0 ? 0.93 : 1.0 / 0.93;
        canvas->xAxis->scaleRange(factor);
        canvas->yAxis->scaleRange(factor);
        canvas->replot(QCustomPlot::rpImmediateRefresh);
    }
}
BENCHMARK(zoom_matrices)->Unit(benchmark::kMillisecond);

void pan_million_points(benchmark::State& state)
{
    auto profile = std::make_shared<ChannelProfile>();
    const RandomStream stream(1, "points");
    profile->weighted_energy = VectorD::NullaryExpr(
        1'000'000, [&stream](Index j) { return stream.uniform(static_cast<std::uint64_t>(j)); });
    profile->weight_max_abs = profile->weight_rms = profile->weighted_energy;
    ChannelPlot plot;
    plot.setProfile(profile, QStringLiteral("points"));
    QCustomPlot* canvas = shown(plot);
    canvas->xAxis->setRange(0.0, 500'000.0);
    pan(state, canvas, 0.01);
}
BENCHMARK(pan_million_points)->Unit(benchmark::kMillisecond);

/// From a weight in memory to the first frame; the window shows the old picture dimmed meanwhile.
void select_matrices(benchmark::State& state)
{
    const Index rows = state.range(0);
    const Index cols = state.range(1);
    const Matrix part = weight().topLeftCorner(rows, cols);
    const auto backend = make_cpu_backend();
    MatricesPlot plot;
    QCustomPlot* canvas = shown(plot);
    for (auto unused : state) {
        state.PauseTiming();
        Matrix read = part; // as it comes from the disk
        state.ResumeTiming();
        LayerParts parts = planned_parts(std::move(read), UniformGrid{2, 64}, *backend);
        auto result = std::make_shared<LayerMatrices>();
        result->parts[LayerMatrices::Weight] =
            std::make_shared<const MagnitudePyramid>(std::move(parts.weight));
        result->parts[LayerMatrices::Quantized] =
            std::make_shared<const MagnitudePyramid>(std::move(parts.quantized));
        result->parts[LayerMatrices::Residual] =
            std::make_shared<const MagnitudePyramid>(std::move(parts.residual));
        plot.setMatrices(result, QStringLiteral("layer"));
        canvas->replot(QCustomPlot::rpImmediateRefresh);
    }
}
BENCHMARK(select_matrices)->Args({576, 1536})->Args({11008, 4096})->Unit(benchmark::kMillisecond);

void select_histogram(benchmark::State& state)
{
    const Matrix part = weight().topLeftCorner(state.range(0), state.range(1));
    const auto backend = make_cpu_backend();
    HistogramPlot plot;
    QCustomPlot* canvas = shown(plot);
    for (auto unused : state) {
        const auto histogram =
            layer_histogram(part, nullptr, UniformGrid{2, 64}, {}, *backend, silent_monitor());
        plot.setHistogram(std::make_shared<LayerHistogram>(*histogram), QStringLiteral("layer"));
        canvas->replot(QCustomPlot::rpImmediateRefresh);
    }
}
BENCHMARK(select_histogram)->Args({576, 1536})->Args({11008, 4096})->Unit(benchmark::kMillisecond);

/// What a click costs when the picture is known: nothing but drawing.
void redraw_matrices(benchmark::State& state)
{
    MatricesPlot plot;
    QCustomPlot* canvas = shown(plot);
    for (auto unused : state) {
        plot.setMatrices(nullptr, {});
        plot.setMatrices(matrices(), QStringLiteral("layer"));
        canvas->replot(QCustomPlot::rpImmediateRefresh);
    }
}
BENCHMARK(redraw_matrices)->Unit(benchmark::kMillisecond);

std::unique_ptr<MainWindow> g_window; ///< main() ends it before the application

/// The window with the sample, or with the checkpoint in RANKSCOPE_BENCH_MODEL.
MainWindow& window()
{
    static QTemporaryDir folder;
    if (g_window)
        return *g_window;
    settings::nameProgram();
    QSettings::setPath(QSettings::IniFormat, QSettings::UserScope, folder.path());
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = folder.filePath(QStringLiteral("work"));
    options.remember_layout = false;
    g_window = std::make_unique<MainWindow>(options);
    g_window->resize(1280, 800);
    g_window->show();
    const QString path = qEnvironmentVariable("RANKSCOPE_BENCH_MODEL");
    if (path.isEmpty())
        g_window->openSample();
    else
        g_window->openPath(path);
    while (!g_window->session().model() || !g_window->runner().idle())
        QApplication::processEvents(QEventLoop::AllEvents, 20);
    return *g_window;
}

/// J and K: from the selection to the frame that shows it; both pictures were seen before.
void select_in_window(benchmark::State& state)
{
    const char* const names[] = {"matrices", "histogram", "activations", "channels", "spectrum"};
    const QString id = QString::fromLatin1(names[state.range(0)]);
    state.SetLabel(names[state.range(0)]);
    MainWindow& shown = window();
    shown.showView(id);
    PlotView& plot = *shown.viewTabs().plot(id);
    auto* canvas = plot.findChild<QCustomPlot*>();
    shown.session().selectLayer(QString::fromStdString(shown.session().model()->linears()[5].name));
    const auto settle = [&] {
        do
            QApplication::processEvents(QEventLoop::AllEvents, 20);
        while (plot.busy() || !shown.runner().idle());
        canvas->replot(QCustomPlot::rpImmediateRefresh);
        QApplication::processEvents();
    };
    int step = 1;
    for (int i = 0; i < 2; ++i, step = -step) { // both are seen once
        shown.session().selectNeighbour(step);
        settle();
    }
    for (auto unused : state) {
        shown.session().selectNeighbour(step);
        settle();
        step = -step;
    }
}
BENCHMARK(select_in_window)->DenseRange(0, 4)->Unit(benchmark::kMillisecond);

} // namespace

int main(int argc, char** argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    QApplication application(argc, argv);
    std::setlocale(LC_NUMERIC, "C");
    Theme::instance().apply(application, Theme::Choice::Light);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    g_window.reset();
    return 0;
}
