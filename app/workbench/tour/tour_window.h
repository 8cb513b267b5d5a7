// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/latest_wins.h"
#include "app/workbench/session.h"
#include "app/workbench/tour/tour_view.h"

#include <QTimer>
#include <QWidget>

class QCheckBox;
class QComboBox;
class QLabel;
class QPushButton;
class QScrollArea;
class QSlider;
class QSpinBox;
class QToolButton;

namespace rankscope {

/// Guided tours in a window of their own, beside the workbench: pages with pictures, a formula, a question
/// with a hidden answer, all computed by the methods on one layer of the open model. Space plays, ◀ ▶ turn
/// pages, ▲ ▼ step frames, F11 presents. Never modal.
class TourWindow : public QWidget {
    Q_OBJECT

public:
    TourWindow(Session& session, JobRunner& runner, std::shared_ptr<Device> device,
               QWidget* parent = nullptr);
    ~TourWindow() override;

    /// Starts a tour of tourNames() at its first page; waits for a model and its calibration if need be.
    void start(const QString& id);
    QString tour() const;
    int page() const { return page_; }
    int pageCount() const;
    int frame() const { return frame_; } ///< of the page
    const TourPointer& shown() const { return show_; }
    bool ready() const { return show_ && !waiting_; }
    bool playing() const { return play_timer_.isActive(); }
    bool presenting() const { return presenting_; }
    bool answerShown() const;
    TourCanvas& canvas() { return *canvas_; }
    FormulaPanel& formulaPanel() { return *formula_; }

    void setPage(int page, int frame = 0);
    void setPlaying(bool playing);
    void setPresenting(bool presenting);
    void setReducedMotion(bool reduced);
    /// .pdf: a document, anything else: a folder of PNG files.
    Status exportTo(const QString& place);

Q_SIGNALS:
    void tourReady(); ///< computed and on show
    void failed(const rankscope::Error& error);
    void said(const QString& text);
    void calibrationWanted();

protected:
    void keyPressEvent(QKeyEvent* event) override;
    void closeEvent(QCloseEvent* event) override;
    void showEvent(QShowEvent* event) override;

private:
    QWidget* buildHeader();
    QWidget* buildSide();
    QWidget* buildControls();
    void fillLayers();
    void request();
    void take(const Result<TourPointer>& answer);
    void wait(const QString& message);
    void showPage();
    void stepFrame(int step);
    void setPosition(int position); ///< over all frames of all pages
    int position() const;
    void fillScrubBar();
    int playInterval() const;
    void setAnswerShown(bool shown);
    void changeOutliers(int count);
    void chooseExport(bool pdf);
    void applyLook();
    bool paintsDark() const;

    Session& session_;
    std::shared_ptr<Device> device_;
    LatestWins latest_;
    QVector<TourScript> scripts_;
    TourPointer show_;
    QString layer_; ///< chosen by hand; empty: the tour's own choice
    int page_ = 0;
    int frame_ = 0;
    int outliers_ = 0;
    bool waiting_ = false;
    bool presenting_ = false;
    QTimer play_timer_;
    QTimer change_timer_; ///< a number that is being typed or spun is not computed at every step

    QWidget* header_ = nullptr;
    QWidget* controls_ = nullptr;
    QComboBox* tour_box_ = nullptr;
    QComboBox* layer_box_ = nullptr;
    QCheckBox* light_box_ = nullptr;
    QCheckBox* motion_box_ = nullptr;
    TourCanvas* canvas_ = nullptr;
    QScrollArea* side_ = nullptr;
    QLabel* page_label_ = nullptr;
    QLabel* title_ = nullptr;
    QLabel* text_ = nullptr;
    FormulaPanel* formula_ = nullptr;
    QWidget* adjust_row_ = nullptr;
    QSpinBox* outliers_box_ = nullptr;
    QLabel* question_ = nullptr;
    QPushButton* answer_button_ = nullptr;
    QLabel* answer_ = nullptr;
    QToolButton* play_button_ = nullptr;
    QSlider* scrub_ = nullptr;
    QComboBox* speed_box_ = nullptr;
    QPushButton* calibrate_ = nullptr;
    PointerRing* ring_ = nullptr;
};

} // namespace rankscope
