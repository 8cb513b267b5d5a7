// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/command_line.h"

#include "app/workbench/folders.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "app/workbench/tour/tour_show.h"
#include "app/workbench/views/view.h"

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
    option({QStringLiteral("glossary")}, "print the glossary as Markdown");
    option({QStringLiteral("sample")}, "open the sample model");
    option({QStringLiteral("run")}, "run the plan as soon as the checkpoint is calibrated");
    option({QStringLiteral("theme")}, "light, dark or system", "THEME");
    option({QStringLiteral("workdir")}, "where calibrations and runs go (default: the user's cache)", "DIR");
    option({QStringLiteral("backend")}, "auto, cpu, cpu:bf16, vulkan or vulkan:INDEX, the last two also with :half (default auto)", "B");
    option({QStringLiteral("view")}, "show this first: a view of --render, or plan, results, jobs", "VIEW");
    option({QStringLiteral("screenshot")}, "write the window as PNG when all jobs are done, then end",
           "FILE");
    option(
        {QStringLiteral("tour")},
        "show a guided tour on the sample or PATH: odlri, outliers, lrc or lrq; with -o FILE.pdf or a folder "
        "for PNG files: write its pages and end",
        "TOUR");
    option({QStringLiteral("time-start")}, "print how long the window took to appear, then end");
    const QByteArray views = viewIds().join(QStringLiteral(", ")).toUtf8();
    option({QStringLiteral("render")}, QByteArray("draw one view without a display: " + views).constData(),
           "VIEW");
    option({QStringLiteral("layer")}, "layer to select or to draw (default: the first)", "LAYER");
    option({QStringLiteral("calibration")}, "calibration folder for --render", "CAL");
    option({QStringLiteral("with-run")}, "run folder for --render: Q and L·R of the layer", "RUN");
    option({QStringLiteral("compare")}, "checkpoint or run for --render, drawn beside the first", "PATH");
    option({QStringLiteral("set")}, "plan of the layer for --render, as --set of plan: GLOB:bits=3,group=128",
           "SETTING");
    option({QStringLiteral("option")},
           "what a view's controls say, for --render, repeatable: row, group, steps, rotated (histogram), "
           "text, tokens, stretch (activations), part (matrices with --compare: weight, quantized, low_rank, "
           "residual)",
           "KEY=VALUE");
    option({QStringLiteral("o"), QStringLiteral("out")},
           "file for --render: .pdf, .png, .svg or .csv; for --tour: .pdf or a folder", "FILE");
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
    if (!findView(options.render))
        return usage_error("--render takes " + toStd(viewIds().join(QStringLiteral(", "))) + ", not '"
                           + toStd(options.render) + "'");
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
    options.glossary = given("glossary");
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
    const QStringList views =
        viewIds() + QStringList{QStringLiteral("plan"), QStringLiteral("results"), QStringLiteral("jobs")};
    if (!options.view.isEmpty() && !views.contains(options.view))
        return usage_error("--view takes " + toStd(views.join(QStringLiteral(", "))) + ", not '"
                           + toStd(options.view) + "'");
    options.screenshot = value("screenshot");
    options.time_start = given("time-start");
    options.render = value("render");
    options.tour = value("tour");
    options.layer = value("layer");
    options.calibration = value("calibration");
    options.with_run = value("with-run");
    options.compare = value("compare");
    options.setting = value("set");
    for (const QString& pair : parser.values(QStringLiteral("option"))) {
        const qsizetype sign = pair.indexOf(QLatin1Char('='));
        if (sign <= 0)
            return usage_error("--option takes KEY=VALUE, not '" + toStd(pair) + "'");
        options.view_options.insert(pair.left(sign), pair.mid(sign + 1));
    }
    options.output = value("out");
    if (!options.tour.isEmpty() && !tourNames().contains(options.tour))
        return usage_error("--tour takes " + toStd(tourNames().join(QStringLiteral(", "))) + ", not '"
                           + toStd(options.tour) + "'");
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

namespace {

/// The model that --render draws, with the run and calibration that were named.
Result<ViewSide> openSide(const LaunchOptions& options)
{
    QString path = options.path;
    if (path.isEmpty()) {
        const auto sample = sampleFolder();
        if (!sample)
            return sample.error();
        path = *sample;
    }
    ViewSide side;
    side.name = path;
    const QString run_path = Run::is_run(toPath(path)) ? path : options.with_run;
    if (!run_path.isEmpty()) {
        const auto run = Run::open(toPath(run_path));
        if (!run)
            return run.error();
        side.run = *run;
    }
    const auto model = run_path == path && side.run ? side.run->model() : Model::open(toPath(path));
    if (!model)
        return model.error();
    side.model = *model;
    if (side.run && side.run->plan().checkpoint_hash != side.model->checkpoint().header_hash())
        return bad_input("This run was made from another checkpoint", toStd(run_path),
                         "Give the run alone: it knows its checkpoint");
    if (!options.calibration.isEmpty()) {
        const auto store = CalibrationStore::open(toPath(options.calibration));
        if (!store)
            return store.error();
        if (const Status fits = (*store)->check(*side.model); !fits)
            return fits.error();
        side.calibration = *store;
    }
    return side;
}

struct GridAndRank {
    UniformGrid grid{2, 64};
    int rank = 0;
};

/// Those of the layer's row: the setting's, the run's plan's, or 2 bits in groups of 64 and no rank.
Result<GridAndRank> planned(const LaunchOptions& options, const ViewSide& side, const LinearLayer& layer)
{
    const auto of_row = [](const LayerPlan& row) {
        return GridAndRank{rowGrid(row), static_cast<int>(rowInteger(row, "rank").value_or(0))};
    };
    if (!options.setting.isEmpty()) {
        auto plan = uniform_plan(*side.model, "rtn", {}, 0, layer.name);
        if (!plan)
            return plan.error();
        if (const Status set = apply_setting(*plan, toStd(options.setting), side.model.get()); !set)
            return set.error();
        if (const LayerPlan* row = plan->find(layer.name))
            return of_row(*row);
    }
    const LayerPlan* row = side.run ? side.run->plan().find(layer.name) : nullptr;
    return row ? of_row(*row) : GridAndRank{};
}

/// The second side beside what is drawn.
Status drawOther(const LaunchOptions& options, const View& view, const ViewRequest& first,
                 const Picture& picture, PlotView& plot)
{
    const auto side = openOtherSide(options.compare, *first.side.model, first.side.calibration);
    if (!side)
        return side.error();
    ViewSides sides{first, first, match_tensors(*first.side.model, *side->model)};
    sides.second.side = *side;
    sides.second.options.insert(plot.compareOptions());
    sides.second.second = true;
    const LinearLayer* partner = partner_layer(sides.matching, *side->model, first.layer);
    if (!partner)
        return bad_input("It has no layer that corresponds to " + first.layer.name, toStd(options.compare),
                         "Compare checkpoints of one model, or a run with its checkpoint");
    sides.second.layer = *partner;
    const auto backend = make_cpu_backend();
    const auto other = computeOther(view, sides, picture, *backend, silent_monitor());
    if (!other)
        return other.error();
    view.drawOther(plot, side->name, *other);
    return {};
}

} // namespace

Status renderView(const LaunchOptions& options)
{
    const View* view = findView(options.render);
    if (!view)
        return usage_error("There is no such view", toStd(options.render));
    const auto side = openSide(options);
    if (!side)
        return side.error();
    const Model& model = *side->model;
    if (model.linears().empty())
        return bad_input("This checkpoint has no linear layer", toStd(side->name));
    const LinearLayer* layer =
        options.layer.isEmpty() ? &model.linears().front() : model.find_linear(toStd(options.layer));
    if (!layer)
        return usage_error("There is no linear layer of that name", toStd(options.layer),
                           "See rankscope-cli info PATH --tensors");
    const auto row = planned(options, *side, *layer);
    if (!row)
        return row.error();
    const std::unique_ptr<PlotView> plot(view->make());
    plot->setOptions(options.view_options);
    const ViewRequest request{*side, *layer, row->grid, plot->options(), row->rank, false};
    const auto backend = make_cpu_backend();
    const auto picture = view->compute(request, *backend, silent_monitor());
    if (!picture)
        return picture.error();
    view->draw(*plot, request, *picture);
    if (const Status drawn =
            options.compare.isEmpty() ? Status() : drawOther(options, *view, request, *picture, *plot);
        !drawn)
        return drawn;
    plot->resize(900, 560);
    plot->ensurePolished();
    plot->setAttribute(Qt::WA_DontShowOnScreen);
    plot->show();
    QString error;
    if (!plot->exportTo(options.output, &error))
        return io_error(toStd(error), toStd(options.output));
    return {};
}

} // namespace rankscope
