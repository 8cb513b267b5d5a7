// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/project_keeper.h"

#include "app/workbench/project_steps.h"
#include "app/workbench/text.h"
#include "core/base/thread_pool.h"

namespace rankscope {
namespace {

using namespace std::chrono_literals;

constexpr auto k_delay = 30s;

} // namespace

ProjectKeeper::ProjectKeeper(Session& session, JobRunner& runner, std::shared_ptr<Device> device,
                             QObject* parent)
    : QObject(parent), session_(session), runner_(runner), device_(std::move(device))
{
    delay_.setSingleShot(true);
    delay_.setInterval(k_delay);
    connect(&delay_, &QTimer::timeout, this, &ProjectKeeper::autosave);
    // Before the session says that its plan changed, it says that the model did.
    connect(&session_, &Session::modelChanged, this, &ProjectKeeper::flush);
    connect(&session_.undoStack(), &QUndoStack::indexChanged, this, &ProjectKeeper::planEdited);
    connect(&session_.undoStack(), &QUndoStack::cleanChanged, this, &ProjectKeeper::modifiedChanged);
    connect(&session_, &Session::projectChanged, this, &ProjectKeeper::modifiedChanged);
}

bool ProjectKeeper::modified() const
{
    return !session_.projectFile().isEmpty() && !session_.undoStack().isClean();
}

void ProjectKeeper::setAutosave(bool on) { autosaves_ = on; }

void ProjectKeeper::planEdited()
{
    // A plan that was just opened or preset has no step to undo, and is made again at any time.
    if (!autosaves_ || !session_.model() || session_.undoStack().count() == 0)
        return;
    folder_ = session_.workFolder();
    plan_ = session_.plan();
    plan_.checkpoint_hash = session_.model()->checkpoint().header_hash();
    pending_ = true;
    if (!delay_.isActive())
        delay_.start();
}

void ProjectKeeper::autosave()
{
    if (!std::exchange(pending_, false))
        return;
    runner_.start<bool>(
        {QStringLiteral("Keep the plan"), JobLane::View, false}, this,
        [folder = folder_, plan = plan_](JobMonitor&) -> Result<bool> {
            if (const Status kept = steps::autosave(folder, plan); !kept)
                return kept.error();
            return true;
        },
        [this](const Result<bool>& done) {
            if (!done && done.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(QStringLiteral("The plan could not be kept"), done.error());
        });
}

void ProjectKeeper::flush()
{
    delay_.stop();
    if (std::exchange(pending_, false))
        static_cast<void>(steps::autosave(folder_, plan_)); // some kilobytes; nobody is left to be told
}

void ProjectKeeper::save(const QString& file, bool replace)
{
    write(file, replace || file == session_.projectFile(), std::nullopt);
}

void ProjectKeeper::runStarted() { running_.start(); }

void ProjectKeeper::runEnded()
{
    const auto& run = session_.run();
    if (session_.projectFile().isEmpty() || !run || !run->complete() || !running_.isValid())
        return;
    Project of_run;
    of_run.plan = run->plan();
    write(session_.projectFile(), true,
          ProjectRun{run->path().filename().string(), RANKSCOPE_VERSION, device_->backend()->id(),
                     thread_count(), static_cast<double>(running_.elapsed()) / 1000.0, of_run.plan_hash()});
    running_.invalidate();
}

void ProjectKeeper::write(const QString& file, bool replace, std::optional<ProjectRun> finished)
{
    if (!session_.model())
        return;
    // A finished run is added to what the file holds; edits since then stay unsaved.
    const bool only_run = finished.has_value() && session_.project();
    const auto before = file == session_.projectFile() ? session_.project() : nullptr;
    const steps::ProjectRequest request{file,
                                        session_.model(),
                                        only_run ? session_.project()->plan : session_.plan(),
                                        session_.calibration(),
                                        session_.workFolder(),
                                        before,
                                        std::move(finished),
                                        replace};
    const int index = session_.undoStack().index();
    runner_.start<std::shared_ptr<const Project>>(
        {QStringLiteral("Save %1").arg(file), JobLane::View, false}, this,
        [request](JobMonitor&) { return steps::saveProject(request); },
        [this, file, index, only_run,
         model = session_.model()](const Result<std::shared_ptr<const Project>>& done) {
            if (session_.model() != model)
                return;
            if (!done) {
                if (done.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(QStringLiteral("The project was not saved"), done.error());
                return;
            }
            session_.setProject(file, *done);
            if (!only_run && session_.undoStack().index() == index)
                session_.undoStack().setClean();
            Q_EMIT saved(file);
            Q_EMIT modifiedChanged();
        });
}

} // namespace rankscope
