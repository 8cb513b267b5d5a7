// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/tour_window.h"

#include "app/workbench/settings.h"
#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/tour_export.h"

#include <QApplication>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QKeyEvent>
#include <QMenu>
#include <QSignalBlocker>
#include <QSlider>
#include <QSpinBox>
#include <QStyle>

#include <QCheckBox>
#include <QComboBox>
#include <QLabel>
#include <QPushButton>
#include <QScrollArea>
#include <QToolButton>

#include <algorithm>

namespace rankscope {
namespace {

constexpr int k_frame_milliseconds = 3000; ///< a frame stays so long at speed 1
constexpr double k_presented_text = 1.5;
constexpr double k_reading_text = 1.15;
constexpr int k_settle_milliseconds = 250;

/// Whether the desktop asks for less motion: Qt tells it as animations of no duration.
bool desktopReducesMotion()
{
    return QApplication::style()->styleHint(QStyle::SH_Widget_Animation_Duration) <= 0
           || qEnvironmentVariableIsSet("SSH_CONNECTION");
}

} // namespace

TourWindow::TourWindow(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QWidget* parent)
    : QWidget(parent, Qt::Window), session_(session), device_(std::move(device)), latest_(runner)
{
    setObjectName(QStringLiteral("tour_window"));
    if (auto scripts = tourScripts())
        scripts_ = *scripts;
    canvas_ = new TourCanvas;
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    layout->addWidget(buildHeader());
    auto* middle = new QHBoxLayout;
    middle->setSpacing(0);
    middle->addWidget(canvas_, 62);
    middle->addWidget(buildSide(), 38);
    layout->addLayout(middle, 1);
    layout->addWidget(buildControls());
    ring_ = new PointerRing(this);
    play_timer_.setSingleShot(true);
    connect(&play_timer_, &QTimer::timeout, this, [this] {
        stepFrame(1);
        setPlaying(position() < scrub_->maximum());
    });
    change_timer_.setSingleShot(true);
    change_timer_.setInterval(k_settle_milliseconds);
    connect(&change_timer_, &QTimer::timeout, this, &TourWindow::request);
    connect(&session_, &Session::modelChanged, this, [this] {
        layer_.clear();
        outliers_ = 0;
        fillLayers();
        request();
    });
    connect(&session_, &Session::calibrationChanged, this, &TourWindow::request);
    connect(&Theme::instance(), &Theme::changed, this, &TourWindow::applyLook);
    setReducedMotion(desktopReducesMotion() || settings::reducedMotion());
    fillLayers();
    resize(1240, 760);
    applyLook();
}

TourWindow::~TourWindow() { latest_.drop(QStringLiteral("tour")); }

QWidget* TourWindow::buildHeader()
{
    header_ = new QWidget;
    auto* row = new QHBoxLayout(header_);
    row->setContentsMargins(12, 8, 12, 8);
    tour_box_ = new QComboBox;
    tour_box_->setObjectName(QStringLiteral("tour_choice"));
    tour_box_->setAccessibleName(QStringLiteral("Tour"));
    for (const TourScript& script : std::as_const(scripts_))
        tour_box_->addItem(toQString(script.title), toQString(script.id));
    connect(tour_box_, &QComboBox::activated, this, [this] { start(tour()); });
    layer_box_ = new QComboBox;
    layer_box_->setObjectName(QStringLiteral("tour_layer"));
    layer_box_->setAccessibleName(QStringLiteral("Layer that the tour is taught on"));
    layer_box_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    layer_box_->setMinimumContentsLength(30);
    connect(layer_box_, &QComboBox::activated, this, [this](int index) {
        layer_ = index == 0 ? QString() : layer_box_->itemText(index);
        outliers_ = 0;
        request();
    });
    light_box_ = new QCheckBox(QStringLiteral("Light when presenting"));
    light_box_->setChecked(true);
    connect(light_box_, &QCheckBox::toggled, this, &TourWindow::applyLook);
    motion_box_ = new QCheckBox(QStringLiteral("Less motion"));
    motion_box_->setToolTip(QStringLiteral("Pictures change at once instead of fading"));
    connect(motion_box_, &QCheckBox::toggled, this, [this](bool reduced) {
        canvas_->setReducedMotion(reduced);
        if (isVisible())
            settings::setReducedMotion(reduced);
    });
    auto* present = new QPushButton(QStringLiteral("Present (F11)"));
    connect(present, &QPushButton::clicked, this, [this] { setPresenting(true); });
    auto* save = new QToolButton;
    save->setObjectName(QStringLiteral("tour_export"));
    save->setText(QStringLiteral("Export"));
    save->setAccessibleName(QStringLiteral("Export the pages"));
    save->setIcon(Theme::instance().icon(QStringLiteral("export")));
    save->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    save->setPopupMode(QToolButton::InstantPopup);
    auto* menu = new QMenu(save);
    menu->addAction(QStringLiteral("Pages as &PDF…"), this, [this] { chooseExport(true); });
    menu->addAction(QStringLiteral("Pages as P&NG files…"), this, [this] { chooseExport(false); });
    save->setMenu(menu);
    row->addWidget(tour_box_);
    row->addWidget(layer_box_, 1);
    row->addWidget(motion_box_);
    row->addWidget(light_box_);
    row->addWidget(save);
    row->addWidget(present);
    return header_;
}

QWidget* TourWindow::buildSide()
{
    auto* content = new QWidget;
    auto* column = new QVBoxLayout(content);
    column->setContentsMargins(16, 12, 16, 12);
    column->setSpacing(12);
    const auto label = [&](const char* name) {
        auto* made = new QLabel;
        made->setObjectName(QString::fromLatin1(name));
        made->setWordWrap(true);
        made->setTextInteractionFlags(Qt::TextSelectableByMouse);
        column->addWidget(made);
        return made;
    };
    page_label_ = label("tour_page");
    page_label_->setProperty("muted", true);
    title_ = label("tour_title");
    formula_ = new FormulaPanel;
    column->addWidget(formula_);
    text_ = label("tour_text");
    adjust_row_ = new QWidget;
    auto* adjust = new QHBoxLayout(adjust_row_);
    adjust->setContentsMargins(0, 0, 0, 0);
    auto* name = new QLabel(QStringLiteral("Outlier channels &k"));
    outliers_box_ = new QSpinBox;
    outliers_box_->setObjectName(QStringLiteral("tour_outliers"));
    outliers_box_->setAccessibleName(QStringLiteral("Outlier channels k"));
    outliers_box_->setKeyboardTracking(false);
    name->setBuddy(outliers_box_);
    connect(outliers_box_, &QSpinBox::valueChanged, this, &TourWindow::changeOutliers);
    adjust->addWidget(name);
    adjust->addWidget(outliers_box_);
    adjust->addStretch(1);
    column->addWidget(adjust_row_);
    question_ = label("tour_question");
    answer_button_ = new QPushButton(QStringLiteral("Show answer"));
    answer_button_->setObjectName(QStringLiteral("tour_answer_button"));
    connect(answer_button_, &QPushButton::clicked, this, [this] { setAnswerShown(!answerShown()); });
    auto* answer_row = new QHBoxLayout;
    answer_row->addWidget(answer_button_);
    answer_row->addStretch(1);
    column->addLayout(answer_row);
    answer_ = label("tour_answer");
    calibrate_ = new QPushButton(QStringLiteral("Calibrate with the built-in text"));
    calibrate_->hide();
    connect(calibrate_, &QPushButton::clicked, this, &TourWindow::calibrationWanted);
    column->addWidget(calibrate_);
    column->addStretch(1);
    side_ = new QScrollArea;
    side_->setWidget(content);
    side_->setWidgetResizable(true);
    side_->setFrameShape(QFrame::NoFrame);
    side_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    side_->setMinimumWidth(300);
    side_->setFocusPolicy(Qt::NoFocus);
    return side_;
}

QWidget* TourWindow::buildControls()
{
    controls_ = new QWidget;
    auto* row = new QHBoxLayout(controls_);
    row->setContentsMargins(12, 8, 12, 8);
    const auto button = [&](const char* text, const char* name, const char* help) {
        auto* made = new QToolButton;
        made->setText(QString::fromUtf8(text));
        made->setObjectName(QString::fromLatin1(name));
        made->setAccessibleName(QString::fromUtf8(help));
        made->setToolTip(QString::fromUtf8(help));
        made->setMinimumSize(36, 28);
        made->setFocusPolicy(Qt::TabFocus); // a click leaves the keys to the tour
        row->addWidget(made);
        return made;
    };
    connect(button("◀", "tour_back", "Previous page (←)"), &QToolButton::clicked, this,
            [this] { setPage(page_ - 1); });
    play_button_ = button("Play", "tour_play", "Play (Space)");
    play_button_->setToolButtonStyle(Qt::ToolButtonTextOnly);
    connect(play_button_, &QToolButton::clicked, this, [this] { setPlaying(!playing()); });
    connect(button("▶", "tour_next", "Next page (→)"), &QToolButton::clicked, this,
            [this] { setPage(page_ + 1); });
    scrub_ = new QSlider(Qt::Horizontal);
    scrub_->setObjectName(QStringLiteral("tour_scrub"));
    scrub_->setAccessibleName(QStringLiteral("Place in the tour"));
    scrub_->setTickPosition(QSlider::TicksBelow);
    scrub_->setTickInterval(1);
    scrub_->setPageStep(1);
    scrub_->setFocusPolicy(Qt::TabFocus);
    connect(scrub_, &QSlider::valueChanged, this, &TourWindow::setPosition);
    row->addWidget(scrub_, 1);
    speed_box_ = new QComboBox;
    speed_box_->setObjectName(QStringLiteral("tour_speed"));
    speed_box_->setAccessibleName(QStringLiteral("Speed"));
    for (const auto& [text, factor] : {std::pair{"½×", 0.5}, {"1×", 1.0}, {"2×", 2.0}, {"4×", 4.0}})
        speed_box_->addItem(QString::fromUtf8(text), factor);
    speed_box_->setCurrentIndex(1);
    speed_box_->setFocusPolicy(Qt::TabFocus);
    row->addWidget(speed_box_);
    return controls_;
}

void TourWindow::fillLayers()
{
    layer_box_->clear();
    layer_box_->addItem(QStringLiteral("Layer with the clearest outliers"));
    if (const auto& model = session_.model())
        for (const LinearLayer& layer : model->linears())
            layer_box_->addItem(toQString(layer.name));
}

QString TourWindow::tour() const { return tour_box_->currentData().toString(); }

void TourWindow::start(const QString& id)
{
    const int index = tour_box_->findData(id);
    if (index < 0)
        return;
    tour_box_->setCurrentIndex(index);
    setWindowTitle(QStringLiteral("%1 – Rankscope tour").arg(tour_box_->currentText()));
    page_ = 0;
    frame_ = 0;
    outliers_ = 0;
    show_ = nullptr;
    request();
    canvas_->setFocus(Qt::OtherFocusReason);
}

void TourWindow::wait(const QString& message)
{
    waiting_ = true;
    canvas_->setMessage(message);
}

void TourWindow::request()
{
    if (tour_box_->currentIndex() < 0 || !isVisible())
        return;
    const bool needs_text = session_.model() && !session_.calibration();
    calibrate_->setVisible(needs_text && !session_.isSample());
    if (!session_.model())
        return wait(QStringLiteral(
            "Open a checkpoint, or the sample model: the tour is taught on one of its layers."));
    if (needs_text)
        return wait(
            session_.isSample()
                ? QStringLiteral("Watching what flows into each layer of the sample …")
                : QStringLiteral("No calibration yet. The tour needs to see what flows into the layer."));
    wait(QStringLiteral("Computing this tour …"));
    const TourRequest wanted{scripts_[tour_box_->currentIndex()], session_.model(), session_.calibration(),
                             layer_, outliers_};
    latest_.request<TourPointer>(
        QStringLiteral("tour"),
        {QStringLiteral("Tour: %1").arg(tour_box_->currentText()), JobLane::View, true}, this,
        [wanted, device = device_](JobMonitor& monitor) {
            return prepareTour(wanted, *device->cpu(), monitor);
        },
        [this](const Result<TourPointer>& answer) { take(answer); });
}

void TourWindow::take(const Result<TourPointer>& answer)
{
    if (!answer) {
        wait(answer.error().kind == ErrorKind::Cancelled
                 ? QStringLiteral("Stopped. Choose the tour or a layer again to go on.")
                 : QStringLiteral("This tour cannot be shown on this layer. %1")
                       .arg(toQString(answer.error().sentence())));
        if (answer.error().kind != ErrorKind::Cancelled)
            Q_EMIT failed(answer.error());
        return;
    }
    waiting_ = false;
    show_ = *answer;
    if (layer_.isEmpty())
        layer_box_->setItemText(0,
                                QStringLiteral("%1 (clearest outliers)").arg(toQString(show_->lesson.layer)));
    fillScrubBar();
    setPage(std::min(page_, pageCount() - 1), frame_);
    Q_EMIT tourReady();
}

int TourWindow::pageCount() const { return show_ ? static_cast<int>(show_->script.pages.size()) : 0; }

void TourWindow::fillScrubBar()
{
    int frames = 0;
    for (const TourPage& page : show_->script.pages)
        frames += static_cast<int>(page.frames.size());
    const QSignalBlocker quiet(scrub_);
    scrub_->setRange(0, frames - 1);
}

int TourWindow::position() const
{
    int place = frame_;
    for (int i = 0; show_ && i < page_; ++i)
        place += static_cast<int>(show_->script.pages[static_cast<std::size_t>(i)].frames.size());
    return place;
}

void TourWindow::setPosition(int position)
{
    if (!show_)
        return;
    int page = 0;
    for (; page + 1 < pageCount(); ++page) {
        const auto frames =
            static_cast<int>(show_->script.pages[static_cast<std::size_t>(page)].frames.size());
        if (position < frames)
            break;
        position -= frames;
    }
    setPage(page, position);
}

void TourWindow::stepFrame(int step) { setPosition(std::clamp(position() + step, 0, scrub_->maximum())); }

void TourWindow::setPage(int page, int frame)
{
    if (!show_ || page < 0 || page >= pageCount())
        return;
    const bool turned = page != page_;
    page_ = page;
    const auto frames = static_cast<int>(show_->script.pages[static_cast<std::size_t>(page)].frames.size());
    frame_ = std::clamp(frame, 0, frames - 1);
    if (turned || formula_->formula().spoken().isEmpty())
        setAnswerShown(false);
    showPage();
}

void TourWindow::showPage()
{
    const TourPage& page = show_->script.pages[static_cast<std::size_t>(page_)];
    const TourFrame& frame = page.frames[static_cast<std::size_t>(frame_)];
    page_label_->setText(QStringLiteral("%1 of %2 · picture %3 of %4 · %5")
                             .arg(page_ + 1)
                             .arg(pageCount())
                             .arg(frame_ + 1)
                             .arg(page.frames.size())
                             .arg(toQString(show_->lesson.layer)));
    title_->setText(toQString(page.title));
    text_->setText(toQString(page.text));
    formula_->setFormula(toQString(page.formula));
    formula_->setLit(toQString(frame.lit));
    question_->setText(toQString(page.question));
    answer_->setText(toQString(page.answer));
    adjust_row_->setVisible(page.adjust == "outliers");
    const auto most = show_->lesson.adjustable_to.find("outliers");
    if (const auto k = show_->lesson.figures.find("k");
        k != show_->lesson.figures.end() && most != show_->lesson.adjustable_to.end()) {
        const QSignalBlocker quiet(outliers_box_);
        outliers_box_->setRange(1, static_cast<int>(most->second));
        outliers_box_->setValue(static_cast<int>(k->second));
    }
    canvas_->setFrame(show_, page_, frame_);
    const QSignalBlocker quiet(scrub_);
    scrub_->setValue(position());
}

bool TourWindow::answerShown() const { return answer_->isVisibleTo(this); }

void TourWindow::setAnswerShown(bool shown)
{
    answer_->setVisible(shown);
    answer_button_->setText(shown ? QStringLiteral("Hide answer") : QStringLiteral("Show answer"));
}

void TourWindow::changeOutliers(int count)
{
    outliers_ = count;
    change_timer_.start();
}

int TourWindow::playInterval() const
{
    return static_cast<int>(k_frame_milliseconds / speed_box_->currentData().toDouble());
}

void TourWindow::setPlaying(bool playing)
{
    if (playing && ready()) {
        if (position() >= scrub_->maximum())
            setPosition(0);
        play_timer_.start(playInterval());
    } else {
        play_timer_.stop();
    }
    play_button_->setText(this->playing() ? QStringLiteral("Pause") : QStringLiteral("Play"));
    play_button_->setToolTip(this->playing() ? QStringLiteral("Pause (Space)")
                                             : QStringLiteral("Play (Space)"));
    play_button_->setAccessibleName(play_button_->toolTip());
}

void TourWindow::setPresenting(bool presenting)
{
    if (presenting == presenting_)
        return;
    presenting_ = presenting;
    header_->setVisible(!presenting);
    controls_->setVisible(!presenting);
    if (presenting)
        showFullScreen();
    else
        showNormal();
    applyLook();
    ring_->setShown(presenting);
    canvas_->setFocus(Qt::OtherFocusReason);
}

void TourWindow::setReducedMotion(bool reduced)
{
    motion_box_->setChecked(reduced);
    canvas_->setReducedMotion(reduced);
}

bool TourWindow::paintsDark() const
{
    return Theme::instance().dark() && !(presenting_ && light_box_->isChecked());
}

/// Colors and sizes; in presentation larger, and light if wished whatever the program is.
void TourWindow::applyLook()
{
    const bool dark = paintsDark();
    setPalette(Theme::palette(dark));
    setAutoFillBackground(true);
    QFont usual = QApplication::font();
    if (presenting_)
        usual.setPointSizeF(usual.pointSizeF() * k_presented_text);
    setFont(usual);
    for (QWidget* widget : {static_cast<QWidget*>(canvas_), static_cast<QWidget*>(formula_),
                            static_cast<QWidget*>(page_label_)})
        widget->setFont(usual);
    QFont reading = usual; // whole sentences, read beside a picture
    reading.setPointSizeF(usual.pointSizeF() * k_reading_text);
    text_->setFont(reading);
    answer_->setFont(reading);
    answer_button_->setFont(usual);
    calibrate_->setFont(usual);
    for (QWidget* widget : adjust_row_->findChildren<QWidget*>())
        widget->setFont(usual);
    QFont strong = reading;
    strong.setBold(true);
    question_->setFont(strong);
    strong.setPointSizeF(usual.pointSizeF() * 1.4);
    title_->setFont(strong);
    QPalette side = Theme::palette(dark);
    side_->viewport()->setPalette(side);
    side_->widget()->setPalette(side);
    for (QLabel* label : {page_label_, title_, text_, question_, answer_})
        label->setPalette(side);
    canvas_->setDark(dark);
    formula_->setDark(dark);
    canvas_->update();
}

void TourWindow::chooseExport(bool pdf)
{
    if (!ready())
        return;
    auto* dialog = new QFileDialog(this, pdf ? QStringLiteral("Export pages as PDF")
                                             : QStringLiteral("Folder for the pages"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    if (pdf) {
        dialog->setAcceptMode(QFileDialog::AcceptSave);
        dialog->setNameFilter(QStringLiteral("PDF (*.pdf)"));
        dialog->setDefaultSuffix(QStringLiteral("pdf"));
        dialog->selectFile(QStringLiteral("rankscope-tour-%1.pdf").arg(tour()));
    } else {
        dialog->setFileMode(QFileDialog::Directory);
        dialog->setOption(QFileDialog::ShowDirsOnly);
    }
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& place) {
        if (const Status done = exportTo(place); done)
            Q_EMIT said(QStringLiteral("Wrote %1").arg(place));
        else
            Q_EMIT failed(done.error());
    });
    dialog->open();
}

Status TourWindow::exportTo(const QString& place)
{
    if (!ready())
        return usage_error("The tour is not computed yet", toStd(place),
                           "Wait until its first page is there");
    return place.endsWith(QLatin1String(".pdf"), Qt::CaseInsensitive) ? exportTourPdf(*show_, place)
                                                                      : exportTourPngs(*show_, place);
}

void TourWindow::keyPressEvent(QKeyEvent* event)
{
    switch (event->key()) {
    case Qt::Key_Space:
        setPlaying(!playing());
        break;
    case Qt::Key_Left:
    case Qt::Key_PageUp:
        setPage(page_ - 1);
        break;
    case Qt::Key_Right:
    case Qt::Key_PageDown:
        setPage(page_ + 1);
        break;
    case Qt::Key_Up:
        stepFrame(-1);
        break;
    case Qt::Key_Down:
        stepFrame(1);
        break;
    case Qt::Key_Home:
        setPosition(0);
        break;
    case Qt::Key_End:
        setPosition(scrub_->maximum());
        break;
    case Qt::Key_A:
        setAnswerShown(!answerShown());
        break;
    case Qt::Key_F11:
        setPresenting(!presenting_);
        break;
    case Qt::Key_Escape:
        if (presenting_)
            setPresenting(false);
        else
            close();
        break;
    default:
        QWidget::keyPressEvent(event);
    }
}

void TourWindow::closeEvent(QCloseEvent* event)
{
    setPlaying(false);
    latest_.drop(QStringLiteral("tour"));
    if (presenting_)
        setPresenting(false);
    QWidget::closeEvent(event);
}

void TourWindow::showEvent(QShowEvent* event)
{
    QWidget::showEvent(event);
    if (!show_ && !waiting_)
        QTimer::singleShot(0, this, &TourWindow::request);
}

} // namespace rankscope
