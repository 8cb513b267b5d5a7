// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QAction>
#include <QActionGroup>
#include <QObject>

class QMenu;
class QMenuBar;
class QUndoStack;

namespace rankscope {

/// Every command of the window with its text, key, icon and help; the window connects them. Their state is
/// set in one place, update().
class Actions : public QObject {
    Q_OBJECT

public:
    Actions(QUndoStack& undo, QObject* parent);

    /// File, View, Model, Plan, Run, Help. `panels` are the docks' toggles.
    void fill(QMenuBar& bar, const QList<QAction*>& panels);

    struct State {
        bool model = false;
        bool text_flows = false; ///< the model can be calibrated and evaluated
        bool calibrating = false;
        bool running = false;
        bool paused_run = false;
        bool run = false;
        bool working = false; ///< some job runs
        bool back = false;
        bool forward = false;
    };
    void update(const State& state);

    QAction *open_file, *open_folder, *open_sample, *recent, *save_project, *save_project_as, *close_checkpoint, *export_run, *export_plot,
        *quit;
    QList<QAction*> show_views; ///< one for each registered view, whose id is its data
    QAction *filter, *show_results, *copy_command, *compare, *compare_folder, *compare_file, *compare_run,
        *compare_stop, *back, *forward, *reset_layout, *next_dock, *previous_dock;
    QAction *theme_system, *theme_light, *theme_dark, *zoom_in, *zoom_out, *zoom_reset;
    QAction *calibrate_built_in, *calibrate_file, *next_layer, *previous_layer;
    QAction *undo, *redo, *fill_down, *measure, *use_outliers, *rank_up, *rank_down, *rank_up_much,
        *rank_down_much;
    QAction *run, *run_selection, *resume, *cancel, *evaluate, *evaluation_text;
    QAction *present_tour, *help_here, *whats_this, *keys, *about;
    QAction *palette, *workspace_explore, *workspace_plan, *workspace_run, *workspace_results;
    QList<QAction*> tours; ///< data: the tour's name
    QActionGroup* theme_group;
    QActionGroup* workspace_group; ///< in the order of Workspaces::Kind
    QMenu* recent_menu = nullptr;

private:
    void makeFileActions();
    void makeViewActions();
    void makeWorkspaceActions();
    void makePlanActions(QUndoStack& stack);
    void makeRunActions();
    QAction* add(const char* text, const QList<QKeySequence>& keys, const char* icon, const char* help);
};

} // namespace rankscope
