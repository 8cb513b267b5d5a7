// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/command_line.h"

#include "app/workbench/folders.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/text.h"

#include <QCommandLineParser>

namespace rankscope {

namespace {

void declare(QCommandLineParser& parser)
{
    const auto option = [&parser](const QStringList& names, const char* help, const char* value = "") {
        parser.addOption(QCommandLineOption(names, QString::fromUtf8(help), QString::fromLatin1(value)));
    };
    parser.setApplicationDescription(
        QStringLiteral("Workbench that compresses the weights of language models as W ≈ Q + L·R."));
    parser.addPositionalArgument(QStringLiteral("PATH"), QStringLiteral("checkpoint or run to open"),
                                 QStringLiteral("[PATH]"));
    option({QStringLiteral("h"), QStringLiteral("help")}, "show this text");
    option({QStringLiteral("version")}, "show the version");
    option({QStringLiteral("sample")}, "open the sample model");
    option({QStringLiteral("run")}, "run the plan as soon as the checkpoint is calibrated");
    option({QStringLiteral("theme")}, "light, dark or system", "THEME");
    option({QStringLiteral("workdir")}, "where calibrations and runs go (default: the user's cache)", "DIR");
    option({QStringLiteral("backend")}, "auto, cpu, cpu:bf16, vulkan or vulkan:INDEX (default auto)", "B");
    option({QStringLiteral("view")}, "show this first: overview, channels, spectrum, plan, results, jobs",
           "VIEW");
    option({QStringLiteral("screenshot")}, "write the window as PNG when all jobs are done, then end",
           "FILE");
    option({QStringLiteral("time-start")}, "print how long the window took to appear, then end");
    option({QStringLiteral("render")}, "draw one view without a display: channels or spectrum", "VIEW");
    option({QStringLiteral("layer")}, "layer to select or to draw (default: the first)", "LAYER");
    option({QStringLiteral("calibration")}, "calibration folder for --render", "CAL");
    option({QStringLiteral("o"), QStringLiteral("out")}, "file for --render: .pdf, .png, .svg or .csv",
           "FILE");
}

Result<Theme::Choice> themeByName(const QString& name)
{
    if (name == QLatin1String("light"))
        return Theme::Choice::Light;
    if (name == QLatin1String("dark"))
        return Theme::Choice::Dark;
    if (name == QLatin1String("system"))
        return Theme::Choice::System;
    return usage_error("--theme takes light, dark or system, not '" + toStd(name) + "'");
}

Status checkRender(const LaunchOptions& options)
{
    if (options.render.isEmpty())
        return {};
    if (options.render != QLatin1String("channels") && options.render != QLatin1String("spectrum"))
        return usage_error("--render takes channels or spectrum, not '" + toStd(options.render) + "'");
    if (options.output.isEmpty())
        return usage_error("--render needs -o FILE");
    if (options.path.isEmpty() && !options.sample)
        return usage_error("--render needs a checkpoint", {}, "Give its PATH, or --sample");
    return {};
}

} // namespace

Result<LaunchOptions> parseCommandLine(const QStringList& arguments)
{
    QCommandLineParser parser;
    declare(parser);
    if (!parser.parse(arguments))
        return usage_error(toStd(parser.errorText()));
    LaunchOptions options;
    const QStringList paths = parser.positionalArguments();
    if (paths.size() > 1)
        return usage_error("One checkpoint at a time: '" + toStd(paths[1]) + "' is one too many");
    options.path = paths.value(0);
    const auto value = [&parser](const char* name) { return parser.value(QString::fromLatin1(name)); };
    const auto given = [&parser](const char* name) { return parser.isSet(QString::fromLatin1(name)); };
    options.help = given("help");
    options.version = given("version");
    options.sample = given("sample");
    options.run = given("run");
    if (given("theme")) {
        const auto theme = themeByName(value("theme"));
        if (!theme)
            return theme.error();
        options.theme = *theme;
    }
    options.window.work_root = value("workdir");
    if (given("backend"))
        options.window.backend = value("backend");
    options.view = value("view");
    static const QStringList views = {QStringLiteral("overview"), QStringLiteral("channels"),
                                      QStringLiteral("spectrum"), QStringLiteral("plan"),
                                      QStringLiteral("results"),  QStringLiteral("jobs")};
    if (!options.view.isEmpty() && !views.contains(options.view))
        return usage_error("--view takes " + toStd(views.join(QStringLiteral(", "))) + ", not '"
                           + toStd(options.view) + "'");
    options.screenshot = value("screenshot");
    options.time_start = given("time-start");
    options.render = value("render");
    options.layer = value("layer");
    options.calibration = value("calibration");
    options.output = value("out");
    if (options.sample && !options.path.isEmpty())
        return usage_error("Either --sample or a PATH");
    if (const Status status = checkRender(options); !status)
        return status.error();
    return options;
}

QString helpText()
{
    QCommandLineParser parser;
    declare(parser);
    return parser.helpText();
}

Status renderView(const LaunchOptions& options)
{
    QString path = options.path;
    if (path.isEmpty()) {
        const auto sample = sampleFolder();
        if (!sample)
            return sample.error();
        path = *sample;
    }
    const auto model = Model::open(toPath(path));
    if (!model)
        return model.error();
    if ((*model)->linears().empty())
        return bad_input("This checkpoint has no linear layer", toStd(path));
    const LinearLayer* layer =
        options.layer.isEmpty() ? &(*model)->linears().front() : (*model)->find_linear(toStd(options.layer));
    if (!layer)
        return usage_error("There is no linear layer of that name", toStd(options.layer),
                           "See rankscope-cli info PATH --tensors");
    std::optional<Moments> moments;
    if (!options.calibration.isEmpty()) {
        const auto store = CalibrationStore::open(toPath(options.calibration));
        if (!store)
            return store.error();
        if (const Status fits = (*store)->check(**model); !fits)
            return fits;
        auto read = layer_moments(**store, **model, *layer);
        if (!read)
            return read.error();
        moments = std::move(*read);
    }
    const auto weight = (*model)->weight(*layer);
    if (!weight)
        return weight.error();
    const Moments* given = moments ? &*moments : nullptr;
    std::unique_ptr<PlotView> view;
    if (options.render == QLatin1String("channels")) {
        auto plot = std::make_unique<ChannelPlot>();
        plot->setProfile(std::make_shared<ChannelProfile>(channel_profile(*weight, given)),
                         toQString(layer->name));
        view = std::move(plot);
    } else {
        const auto backend = make_cpu_backend();
        auto plot = std::make_unique<SpectrumPlot>();
        plot->setSpectrum(std::make_shared<LayerSpectrum>(
                              layer_spectrum(*weight, given, UniformGrid{2, 64}, *backend, silent_monitor())),
                          toQString(layer->name), layer->out, layer->in);
        view = std::move(plot);
    }
    view->resize(900, 560);
    view->ensurePolished();
    view->setAttribute(Qt::WA_DontShowOnScreen);
    view->show();
    QString error;
    if (!view->exportTo(options.output, &error))
        return io_error(toStd(error), toStd(options.output));
    return {};
}

} // namespace rankscope
