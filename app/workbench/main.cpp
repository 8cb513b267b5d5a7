// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/command_line.h"
#include "app/workbench/help/help.h"
#include "app/workbench/main_window.h"
#include "app/workbench/settings.h"
#include "app/workbench/start_timer.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/tour_window.h"
#include "app/workbench/workflow.h"

#include <QApplication>
#include <QPixmap>
#include <QTimer>

#include <clocale>
#include <cstdio>
#include <cstring>

using namespace rankscope;

namespace {

bool wants(int argc, char** argv, const char* option)
{
    for (int i = 1; i < argc; ++i) {
        if (std::strncmp(argv[i], option, std::strlen(option)) == 0)
            return true;
    }
    return false;
}

/// Whether there is something that a window can be shown on.
bool hasDisplay(int argc, char** argv)
{
    return qEnvironmentVariableIsSet("QT_QPA_PLATFORM") || !qEnvironmentVariableIsEmpty("DISPLAY")
           || !qEnvironmentVariableIsEmpty("WAYLAND_DISPLAY") || wants(argc, argv, "-platform");
}

int fail(const Error& error)
{
    std::fprintf(stderr, "rankscope: %s\n", error.sentence().c_str());
    return exit_status(error.kind);
}

/// Writes the window once nothing has been running for a moment, then ends the program.
void grabWhenSettled(MainWindow& window, const QString& file)
{
    auto* settle = new QTimer(&window);
    settle->setInterval(700);
    settle->setSingleShot(true);
    QObject::connect(settle, &QTimer::timeout, &window, [&window, file, settle] {
        if (!window.runner().idle()) {
            settle->start();
            return;
        }
        QWidget& shown = window.tourWindow() ? static_cast<QWidget&>(*window.tourWindow()) : window;
        if (!shown.grab().save(file)) {
            std::fprintf(stderr, "rankscope: %s cannot be written\n", toStd(file).c_str());
            QApplication::exit(exit_status(ErrorKind::Io));
            return;
        }
        QApplication::exit(0);
    });
    QObject::connect(&window.runner(), &JobRunner::becameIdle, settle, qOverload<>(&QTimer::start));
    settle->start();
}

/// Writes the pages of the tour as soon as they are computed, then ends the program.
void exportWhenReady(TourWindow& tour, const QString& place)
{
    QObject::connect(&tour, &TourWindow::tourReady, &tour, [&tour, place] {
        const Status written = tour.exportTo(place);
        QApplication::exit(written ? 0 : fail(written.error()));
    });
    QObject::connect(&tour, &TourWindow::failed, &tour,
                     [](const Error& error) { QApplication::exit(fail(error)); });
}

void showTour(MainWindow& window, const LaunchOptions& options)
{
    window.showTour(options.tour);
    if (!options.output.isEmpty())
        exportWhenReady(*window.tourWindow(), options.output);
}

/// A path is opened first, and calibrated if it is not yet; the sample opens with the tour.
void showTourOnceOpen(MainWindow& window, const LaunchOptions& options)
{
    if (options.path.isEmpty()) {
        QTimer::singleShot(0, &window, [&window, &options] { showTour(window, options); });
        return;
    }
    QObject::connect(&window.workflow(), &Workflow::opened, &window, [&window, &options] {
        showTour(window, options);
        if (!window.session().calibration())
            window.workflow().calibrate({});
    });
}

int showWindow(QApplication& application, const LaunchOptions& options)
{
    WindowOptions window_options = options.window;
    window_options.remember_layout = options.screenshot.isEmpty();
    window_options.restore_plan = options.screenshot.isEmpty() && !options.run;
    MainWindow window(window_options);
    Workflow& workflow = window.workflow();
    QObject::connect(&workflow, &Workflow::opened, &window, [&] {
        if (!options.layer.isEmpty())
            window.session().selectLayer(options.layer);
        if (!options.view.isEmpty())
            window.showView(options.view);
        if (!options.run)
            return;
        if (!window.session().calibration() && window.session().model()->architecture().runs())
            workflow.calibrate({}); // the run waits for it
        workflow.run();
    });
    if (!options.tour.isEmpty())
        showTourOnceOpen(window, options);
    if (!options.view.isEmpty())
        QObject::connect(&workflow, &Workflow::evaluated, &window, [&] { window.showView(options.view); });
    if (!options.screenshot.isEmpty())
        window.resize(1440, 900); // the same picture on any screen
    if (options.time_start)
        new StartTimer(window); // belongs to the window
    window.show();
    // The window is there first; opening is a job.
    QTimer::singleShot(0, &window, [&] {
        if (options.sample)
            window.openSample();
        else if (!options.path.isEmpty())
            window.openPath(options.path);
        if (!options.screenshot.isEmpty())
            grabWhenSettled(window, options.screenshot);
    });
    return application.exec();
}

} // namespace

int main(int argc, char** argv)
{
    // Without a display Qt ends the process; drawing into a file and printing a text need none.
    const bool display = hasDisplay(argc, argv);
    if ((!display || wants(argc, argv, "--render")) && !qEnvironmentVariableIsSet("QT_QPA_PLATFORM"))
        qputenv("QT_QPA_PLATFORM", "offscreen");
    QGuiApplication::setHighDpiScaleFactorRoundingPolicy(Qt::HighDpiScaleFactorRoundingPolicy::PassThrough);
    settings::nameProgram();
    QApplication application(argc, argv);
    // QApplication sets the user's locale; files and numbers are written with a point all the same.
    std::setlocale(LC_NUMERIC, "C");

    const auto options = parseCommandLine(QApplication::arguments());
    if (!options)
        return fail(options.error());
    if (options->help || options->version) {
        const QString text = options->help ? helpText() : QStringLiteral("rankscope " RANKSCOPE_VERSION "\n");
        std::fputs(toStd(text).c_str(), stdout);
        return 0;
    }
    if (options->glossary) {
        std::fputs(toStd(Help::instance().glossaryPage()).c_str(), stdout);
        return 0;
    }
    if (!display && options->render.isEmpty() && options->screenshot.isEmpty() && !options->time_start
        && (options->tour.isEmpty() || options->output.isEmpty()))
        return fail({ErrorKind::NoDevice,
                     "There is no display to show a window on",
                     {},
                     "Use rankscope-cli, or draw one view into a file with --render"});
    Theme::instance().apply(application, options->theme.value_or(settings::themeChoice()));
    if (!options->render.isEmpty()) {
        const Status status = renderView(*options);
        return status ? 0 : fail(status.error());
    }
    return showWindow(application, *options);
}
