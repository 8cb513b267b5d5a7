// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/actions.h"

#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/tour_show.h"
#include "app/workbench/views/view.h"

#include <QMenu>
#include <QMenuBar>
#include <QUndoStack>
#include <QWhatsThis>

namespace rankscope {

using Key = QKeySequence;

QAction* Actions::add(const char* text, const QList<QKeySequence>& shortcuts, const char* icon,
                      const char* help)
{
    auto* action = new QAction(QString::fromUtf8(text), this);
    action->setShortcuts(shortcuts);
    if (*icon != '\0')
        action->setIcon(Theme::instance().icon(QString::fromLatin1(icon)));
    const QString sentence = QString::fromUtf8(help);
    action->setStatusTip(sentence);
    const QString key = action->shortcut().toString(QKeySequence::NativeText);
    action->setToolTip(key.isEmpty() ? sentence : QStringLiteral("%1 (%2)").arg(sentence, key));
    return action;
}

Actions::Actions(QUndoStack& stack, QObject* parent)
    : QObject(parent), theme_group(new QActionGroup(this)), workspace_group(new QActionGroup(this))
{
    makeFileActions();
    makeViewActions();
    makeWorkspaceActions();
    makePlanActions(stack);
    makeRunActions();
}

void Actions::makeFileActions()
{
    open_file = add("&Open file…", {Key(Qt::CTRL | Qt::Key_O)}, "open", "Open a .safetensors, .gguf or .rankscope.json file");
    open_folder =
        add("Open &folder…", {Key(Qt::CTRL | Qt::SHIFT | Qt::Key_O)}, "folder", "Open a Hugging Face folder");
    open_sample = add("Open &sample model", {}, "sample", "Open the small model that comes with the program");
    recent = add("Go to &recent list", {Key(Qt::CTRL | Qt::Key_R)}, "",
                 "Show the start page with recent checkpoints");
    save_project = add("&Save project", {Key(Qt::CTRL | Qt::Key_S)}, "",
                       "Write checkpoint, calibration and plan into the project's file");
    save_project_as = add("Save project &as…", {Key(Qt::CTRL | Qt::SHIFT | Qt::Key_S)}, "",
                          "Write a project file of another name");
    close_checkpoint = add("&Close checkpoint", {Key(Qt::CTRL | Qt::Key_W)}, "", "Back to the start page");
    export_run = add("&Export model…", {Key(Qt::CTRL | Qt::Key_E)}, "export",
                     "Write the compressed model for other programs");
    export_plot =
        add("Export &plot…", {}, "", "Write the picture in view as PDF, PNG, SVG or its values as CSV");
    quit = add("&Quit", {Key(Qt::CTRL | Qt::Key_Q)}, "", "Close the window");
}

void Actions::makeViewActions()
{
    filter = add("&Filter tensors", {Key(Qt::CTRL | Qt::Key_F)}, "search",
                 "Go to the filter of the checkpoint tree");
    for (const View* view : views()) {
        const ViewInfo& info = view->info();
        const Key key(Qt::ALT | static_cast<Qt::Key>(Qt::Key_1 + show_views.size()));
        show_views.append(add(info.title.toUtf8().constData(), {key}, info.icon.toLatin1().constData(),
                              info.help.toUtf8().constData()));
        show_views.last()->setData(info.id);
    }
    show_results = add("&Results", {Key(Qt::ALT | Qt::Key_7)}, "results", "Show what runs came to");
    compare = add("&Compare with…", {Key(Qt::CTRL | Qt::Key_B)}, "results",
                  "Choose a second file or run to be shown beside this one");
    compare_folder =
        add("Compare with a &folder or run…", {}, "folder", "Compare with a checkpoint's or a run's folder");
    compare_file = add("Compare with a f&ile…", {}, "open", "Compare with a .safetensors or .gguf file");
    compare_run =
        add("Compare with this &run", {}, "run", "Compare the checkpoint with what the run made of it");
    compare_stop = add("&Stop comparing", {}, "close", "Show the open checkpoint alone again");
    copy_command = add("Copy as co&mmand", {Key(Qt::CTRL | Qt::SHIFT | Qt::Key_C)}, "copy",
                       "Copy the command line that draws the picture in view into a file");
    back = add("&Back", {Key(Qt::ALT | Qt::Key_Left)}, "undo", "Select what was selected before");
    forward = add("F&orward", {Key(Qt::ALT | Qt::Key_Right)}, "redo", "Select what was selected after");
    reset_layout = add("&Reset layout", {}, "reset", "Put all panels back where they were at first");
    next_dock = add("&Next panel", {Key(Qt::Key_F6)}, "", "Move the focus to the next panel");
    previous_dock =
        add("&Previous panel", {Key(Qt::SHIFT | Qt::Key_F6)}, "", "Move the focus to the previous panel");
    theme_system = add("As the &system", {}, "", "Light or dark as the desktop is");
    theme_light = add("&Light", {}, "", "Light theme");
    theme_dark = add("&Dark", {}, "", "Dark theme");
    for (QAction* choice : {theme_system, theme_light, theme_dark}) {
        choice->setCheckable(true);
        theme_group->addAction(choice);
    }
    zoom_in =
        add("Larger &text", {Key(Qt::CTRL | Qt::Key_Plus), Key(Qt::CTRL | Qt::Key_Equal)}, "", "Larger text");
    zoom_out = add("S&maller text", {Key(Qt::CTRL | Qt::Key_Minus)}, "", "Smaller text");
    zoom_reset = add("&Usual text size", {Key(Qt::CTRL | Qt::Key_0)}, "", "Text in the size of the desktop");
}

void Actions::makeWorkspaceActions()
{
    palette = add("&Find a command…", {Key(Qt::CTRL | Qt::Key_K)}, "search",
                  "Find a command, a tensor or a view by its name");
    workspace_explore = add("E&xplore", {Key(Qt::CTRL | Qt::Key_1)}, "", "The model and its pictures");
    workspace_plan = add("&Plan", {Key(Qt::CTRL | Qt::Key_2)}, "", "The plan, with room for its rows");
    workspace_run = add("&Run", {Key(Qt::CTRL | Qt::Key_3)}, "", "Jobs, with room for their layers");
    workspace_results = add("R&esults", {Key(Qt::CTRL | Qt::Key_4)}, "", "What came out, layer by layer");
    for (QAction* workspace : {workspace_explore, workspace_plan, workspace_run, workspace_results}) {
        workspace->setCheckable(true);
        workspace->setIconText(workspace->text().remove(QLatin1Char('&')));
        workspace_group->addAction(workspace);
    }
    workspace_explore->setChecked(true);
}

void Actions::makePlanActions(QUndoStack& stack)
{
    calibrate_built_in = add("&Calibrate with the built-in text", {}, "calibrate",
                             "See what flows into each layer, on the text that comes with the program");
    calibrate_file =
        add("Calibrate with a &file…", {}, "", "See what flows into each layer, on a text of yours");
    next_layer = add("&Next layer", {Key(Qt::Key_J)}, "", "Select the next linear layer");
    previous_layer = add("&Previous layer", {Key(Qt::Key_K)}, "", "Select the previous linear layer");

    undo = stack.createUndoAction(this, QStringLiteral("Undo"));
    undo->setShortcut(Key(Qt::CTRL | Qt::Key_Z));
    undo->setIcon(Theme::instance().icon(QStringLiteral("undo")));
    redo = stack.createRedoAction(this, QStringLiteral("Redo"));
    redo->setShortcuts({Key(Qt::CTRL | Qt::SHIFT | Qt::Key_Z), Key(Qt::CTRL | Qt::Key_Y)});
    redo->setIcon(Theme::instance().icon(QStringLiteral("redo")));
    fill_down = add("Fill &down", {Key(Qt::CTRL | Qt::Key_D)}, "",
                    "Copy the topmost selected cell into the others of its column");
    measure = add("&Measure layers", {}, "spectrum",
                  "Compute the spectrum of every row: fills the predicted errors");
    use_outliers = add("Use the drawn &outliers as k", {}, "",
                       "Set k of the selected layer to the number of outliers drawn in Channels");
    rank_up = add("Rank +1", {Key(Qt::Key_BracketRight)}, "", "Raise the rank of the selected layer by one");
    rank_down = add("Rank −1", {Key(Qt::Key_BracketLeft)}, "", "Lower the rank of the selected layer by one");
    rank_up_much = add("Rank +16", {Key(Qt::SHIFT | Qt::Key_BracketRight), Key(Qt::Key_BraceRight)}, "",
                       "Raise the rank by 16");
    rank_down_much = add("Rank −16", {Key(Qt::SHIFT | Qt::Key_BracketLeft), Key(Qt::Key_BraceLeft)}, "",
                         "Lower the rank by 16");
}

void Actions::makeRunActions()
{
    run = add("&Run plan", {Key(Qt::Key_F5)}, "run",
              "Compress the included layers, then measure perplexity before and after");
    run_selection = add("Run se&lected rows", {Key(Qt::SHIFT | Qt::Key_F5)}, "",
                        "Compress only the rows selected in the plan");
    resume = add("Res&ume paused run", {}, "pause",
                 "Go on with the run that was stopped; finished layers are kept");
    cancel = add("&Cancel running jobs", {Key(Qt::CTRL | Qt::Key_Period)}, "cancel",
                 "Stop what runs; finished layers are kept");
    evaluate = add("&Evaluate perplexity", {}, "evaluate", "Measure perplexity before and after");
    evaluation_text = add("Evaluation &text…", {}, "", "Choose the text that perplexity is measured on");
    if (const auto scripts = tourScripts())
        for (const TourScript& script : *scripts) {
            tours << add(script.title.c_str(), {}, "", script.summary.c_str());
            tours.last()->setData(toQString(script.id));
        }
    present_tour = add("&Present a tour", {Key(Qt::Key_F11)}, "",
                       "Show the tour on the whole screen, with larger text");
    help_here = add("&Help on the focus", {Key(Qt::Key_F1)}, "", "Explain what has the focus, and its words");
    whats_this = QWhatsThis::createAction(this);
    keys = add("&Keys", {Key(Qt::CTRL | Qt::Key_F1)}, "", "List the keys");
    about = add("&About Rankscope", {}, "info", "Version and licence");
    quit->setMenuRole(QAction::QuitRole);
    about->setMenuRole(QAction::AboutRole);
}

void Actions::fill(QMenuBar& bar, const QList<QAction*>& panels)
{
    QMenu* file = bar.addMenu(QStringLiteral("&File"));
    file->addActions({open_file, open_folder, open_sample});
    recent_menu = file->addMenu(QStringLiteral("Open r&ecent"));
    file->addActions({recent, close_checkpoint});
    file->addSeparator();
    file->addActions({save_project, save_project_as});
    file->addSeparator();
    file->addActions({export_run, export_plot});
    file->addSeparator();
    file->addAction(quit);

    QMenu* view = bar.addMenu(QStringLiteral("&View"));
    view->addActions(show_views);
    view->addActions({show_results, copy_command});
    view->addSeparator();
    view->addActions({compare, compare_run, compare_stop});
    view->addSeparator();
    view->addActions({back, forward, filter, palette});
    view->addSeparator();
    view->addActions(workspace_group->actions());
    view->addSeparator();
    view->addActions(panels);
    view->addActions({next_dock, previous_dock, reset_layout});
    view->addSeparator();
    QMenu* theme = view->addMenu(QStringLiteral("&Theme"));
    theme->addActions(theme_group->actions());
    view->addActions({zoom_in, zoom_out, zoom_reset});

    QMenu* model = bar.addMenu(QStringLiteral("&Model"));
    model->addActions({calibrate_built_in, calibrate_file});
    model->addSeparator();
    model->addActions({next_layer, previous_layer});

    QMenu* plan = bar.addMenu(QStringLiteral("&Plan"));
    plan->addActions({undo, redo, fill_down});
    plan->addSeparator();
    plan->addActions({measure, use_outliers});
    plan->addSeparator();
    plan->addActions({rank_up, rank_down, rank_up_much, rank_down_much});

    QMenu* runs = bar.addMenu(QStringLiteral("&Run"));
    runs->addActions({run, run_selection, resume, cancel});
    runs->addSeparator();
    runs->addActions({evaluate, evaluation_text});

    QMenu* help = bar.addMenu(QStringLiteral("&Help"));
    QMenu* tour = help->addMenu(QStringLiteral("&Tour"));
    tour->addActions(tours);
    tour->addSeparator();
    tour->addAction(present_tour);
    help->addSeparator();
    help->addActions({help_here, whats_this, keys, about});
}

void Actions::update(const State& state)
{
    for (QAction* action : show_views)
        action->setEnabled(state.model);
    for (QAction* action : {save_project, save_project_as, close_checkpoint, export_plot, filter, show_results, copy_command, next_layer,
                            previous_layer, fill_down, measure, use_outliers, rank_up, rank_down,
                            rank_up_much, rank_down_much, evaluation_text})
        action->setEnabled(state.model);
    for (QAction* action : {calibrate_built_in, calibrate_file})
        action->setEnabled(state.text_flows && !state.calibrating && !state.running);
    run->setEnabled(state.model && !state.running);
    run_selection->setEnabled(state.model && !state.running);
    resume->setEnabled(state.paused_run && !state.running);
    cancel->setEnabled(state.working);
    evaluate->setEnabled(state.run && state.text_flows && !state.running);
    export_run->setEnabled(state.run && !state.running);
    back->setEnabled(state.back);
    forward->setEnabled(state.forward);
}

} // namespace rankscope
