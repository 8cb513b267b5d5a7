// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/view_side.h"
#include "core/calibration/calibration_store.h"
#include "core/evaluate/perplexity.h"
#include "core/plan/layer_plan.h"
#include "core/plan/layer_spectrum.h"
#include "core/run/project.h"
#include "core/run/run.h"

#include <QHash>
#include <QObject>
#include <QString>
#include <QUndoStack>
#include <QVector>

#include <memory>
#include <optional>

namespace rankscope {

/// The one selection that every view follows. The rank is the plan's.
struct Selection {
    QString tensor;   ///< full tensor name, empty: nothing
    QString layer;    ///< the linear's name when the tensor is one, else empty
    int channel = -1; ///< input channel, −1: none
    bool operator==(const Selection&) const = default;
};

/// Figures of one input group, read from a calibration by a job.
struct InputFigures {
    double rms = 0.0;
    double crest = 0.0; ///< max |x| / RMS
    double kurtosis = 0.0;
    qint64 outlier_channels = 0; ///< max |x| ≥ 6
    std::uint64_t tokens = 0;
};
using InputFiguresByGroup = QHash<QString, InputFigures>;

/// Everything that opening a checkpoint brings, made by a job.
struct OpenedModel {
    std::shared_ptr<const Model> model;
    QString work_folder; ///< where calibrations and runs of this checkpoint go
    bool sample = false;
    std::shared_ptr<const CalibrationStore> calibration; ///< of an earlier session, may be null
    InputFiguresByGroup figures;
    std::shared_ptr<const Run> run; ///< the newest run of this checkpoint, may be null
    std::optional<Plan> plan;       ///< of the project, else none
    std::optional<Plan> autosaved;  ///< as it was left when the program ended, however it ended
    QString project_file;           ///< NAME.rankscope.json; empty: none
    std::shared_ptr<const Project> project; ///< as it is in that file
};

struct Evaluation {
    PerplexityResult before;
    PerplexityResult after;
};

/// The state that views share: model, calibration, plan with its undo steps, run, selection. Lives on the GUI
/// thread; computes nothing and reads no file; what it holds of core is immutable.
class Session : public QObject {
    Q_OBJECT

public:
    explicit Session(QObject* parent = nullptr);

    // The checkpoint
    // -----------------------------------------------------------------------------------------------
    void open(OpenedModel opened);
    void close();
    const std::shared_ptr<const Model>& model() const { return opened_.model; }
    bool isSample() const { return opened_.sample; }
    const QString& workFolder() const { return opened_.work_folder; }
    QString title() const; ///< project, folder name, "Sample model", or empty
    const QString& projectFile() const { return opened_.project_file; }
    const std::shared_ptr<const Project>& project() const { return opened_.project; }
    void setProject(const QString& file, std::shared_ptr<const Project> project);

    // Calibration
    // --------------------------------------------------------------------------------------------------
    void setCalibration(std::shared_ptr<const CalibrationStore> calibration, InputFiguresByGroup figures);
    const std::shared_ptr<const CalibrationStore>& calibration() const { return opened_.calibration; }
    /// Of the layer's input; nothing without calibration.
    std::optional<InputFigures> figures(const QString& layer) const;

    // The plan
    // -----------------------------------------------------------------------------------------------------
    const Plan& plan() const { return plan_; }
    const LayerPlan* planRow(const QString& layer) const;
    void resetPlan(Plan plan); ///< without an undo step: a newly opened checkpoint
    /// One undo step. Edits with the same merge key ≥ 0 that follow each other become one step (dragging).
    void editPlan(const QString& text, Plan next, int merge_key = -1);
    /// The rank of one layer; several calls until endRankDrag() are one undo step.
    Status setRank(const QString& layer, int rank);
    void endRankDrag();
    int dragKey() const { return drag_; } ///< merge key of edits that belong to one drag
    std::optional<int> rank(const QString& layer) const;
    QUndoStack& undoStack() { return undo_; }

    // Spectra: cached, since they give the predicted error
    // --------------------------------------------------------
    /// Names what the spectrum depends on: layer, grid of its plan row, calibration.
    QString spectrumKey(const QString& layer) const;
    void addSpectrum(const QString& key, std::shared_ptr<const LayerSpectrum> spectrum);
    std::shared_ptr<const LayerSpectrum> spectrum(const QString& layer) const;
    std::optional<double> predictedError(const LayerPlan& row) const;

    // Runs
    // ---------------------------------------------------------------------------------------------------------
    void setRun(std::shared_ptr<const Run> run);
    const std::shared_ptr<const Run>& run() const { return opened_.run; }
    void setEvaluation(std::optional<Evaluation> evaluation);
    const std::optional<Evaluation>& evaluation() const { return evaluation_; }

    // Comparison: the open checkpoint is A, the other file or run B
    // -----------------------------------------------------------------------------------------------------
    void setComparison(std::shared_ptr<const Comparison> comparison); ///< null: none
    const std::shared_ptr<const Comparison>& comparison() const { return comparison_; }
    /// Relative difference of a layer's weights, ‖A − B‖ / ‖A‖, as far as it is known.
    void addDifference(const QString& layer, double difference);
    std::optional<double> difference(const QString& layer) const;

    // Selection
    // ----------------------------------------------------------------------------------------------------
    const Selection& selection() const { return selection_; }
    void selectTensor(const QString& tensor);
    void selectLayer(const QString& layer);
    void selectChannel(int channel);
    void selectNeighbour(int step); ///< next or previous linear
    bool canGoBack() const { return position_ > 0; }
    bool canGoForward() const { return position_ + 1 < history_.size(); }
    void goBack();
    void goForward();

Q_SIGNALS:
    void modelChanged();
    void projectChanged();
    void calibrationChanged();
    void planChanged();
    void spectraChanged(const QString& layer);
    void runChanged();
    void evaluationChanged();
    void comparisonChanged();
    void differencesChanged();
    void selectionChanged(const rankscope::Selection& selection);

private:
    friend class PlanCommand;
    void applyPlan(const Plan& plan);
    void select(const Selection& selection, bool remember);

    OpenedModel opened_;
    Plan plan_;
    QUndoStack undo_;
    int drag_ = 0;
    QHash<QString, std::shared_ptr<const LayerSpectrum>> spectra_;
    std::optional<Evaluation> evaluation_;
    std::shared_ptr<const Comparison> comparison_;
    QHash<QString, double> differences_;
    Selection selection_;
    QVector<Selection> history_;
    qsizetype position_ = -1;
};

} // namespace rankscope
