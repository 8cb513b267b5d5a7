// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/plot_view.h"

#include "app/workbench/plots/axis_ticker.h"
#include "app/workbench/plots/flow_layout.h"
#include "app/workbench/plots/plot_overlay.h"
#include "app/workbench/plots/plot_table.h"
#include "app/workbench/plots/qcp.h"

#include <QAccessible>
#include <QApplication>
#include <QClipboard>
#include <QFileDialog>
#include <QHelpEvent>
#include <QLabel>
#include <QMenu>
#include <QTextDocumentFragment>
#include <QToolTip>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr int k_ring = 3; ///< room for the focus ring around the plot
constexpr int k_big_step = 16;
constexpr double k_zoom_step = 0.7;

void style_axis(QCPAxis* axis, const QColor& line, const QColor& text, const QColor& grid, const QFont& font)
{
    axis->setBasePen(QPen(line, 1.0));
    axis->setTickPen(QPen(line, 1.0));
    axis->setSubTickPen(QPen(line, 1.0));
    axis->setTickLabelColor(text);
    axis->setLabelColor(text);
    axis->setTickLabelFont(font);
    axis->setLabelFont(font);
    axis->grid()->setPen(QPen(grid, 1.0));
    axis->grid()->setZeroLinePen(QPen(grid, 1.0));
    axis->grid()->setSubGridVisible(false);
}

void set_ticker_length(QCPAxis* axis, int pixels)
{
    if (const auto ticker = axis->ticker().dynamicCast<AxisTicker>())
        ticker->setLength(pixels);
}

QCPRange inside(const QCPRange& wanted, double lower, double upper, bool logarithmic)
{
    if (logarithmic || !(upper > lower))
        return wanted.bounded(lower, upper);
    QCPRange range = wanted;
    const double smallest = 1e-5 * (upper - lower); // beyond that doubles and ticks run out
    if (range.size() < smallest)
        range = QCPRange(range.center() - smallest / 2, range.center() + smallest / 2);
    return range.bounded(lower, upper);
}

} // namespace

PlotView::PlotView(QWidget* parent) : QWidget(parent)
{
    setFocusPolicy(Qt::StrongFocus);
    setMinimumSize(280, 200);
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(4);
    controls_ = new FlowLayout(8);
    controls_->setContentsMargins(8, 6, 8, 0);
    layout->addLayout(controls_);

    plot_ = new QCustomPlot(this);
    auto* framed = new QVBoxLayout;
    framed->setContentsMargins(k_ring, k_ring, k_ring, k_ring);
    framed->addWidget(plot_);
    layout->addLayout(framed, 1);

    readout_ = new QLabel(this);
    readout_->setObjectName(QStringLiteral("plotReadout"));
    readout_->setWordWrap(true);
    readout_->setContentsMargins(8, 0, 8, 6);
    readout_->setTextInteractionFlags(Qt::TextSelectableByMouse);
    readout_->setTextFormat(Qt::PlainText);
    layout->addWidget(readout_);

    buildPlot();
    overlay_ = new PlotOverlay(plot_);
    connect(overlay_, &PlotOverlay::linkActivated, this, &PlotView::messageLinkActivated);
    applyTheme(Theme::instance().dark());
    connect(&Theme::instance(), &Theme::changed, this, [this] { applyTheme(Theme::instance().dark()); });
}

PlotView::~PlotView() = default;

void PlotView::buildPlot()
{
    plot_->setFocusPolicy(Qt::NoFocus); // keys belong to the view around it
    plot_->setLocale(QLocale::c());
    plot_->setNoAntialiasingOnDrag(true);
    if (qEnvironmentVariableIsSet("SSH_CONNECTION")
        && QGuiApplication::platformName() == QLatin1String("xcb"))
        plot_->setNotAntialiasedElements(QCP::aeAll); // X11 over a network: smooth edges do not compress
    plot_->setInteractions(QCP::iRangeDrag | QCP::iRangeZoom);
    plot_->axisRect()->setRangeZoom(Qt::Horizontal);
    plot_->setAutoAddPlottableToLegend(false);
    plot_->addLayer(QStringLiteral("cursor"), plot_->layer(QStringLiteral("overlay")), QCustomPlot::limBelow);
    cursor_layer_ = plot_->layer(QStringLiteral("cursor"));
    cursor_layer_->setMode(QCPLayer::lmBuffered);

    // Title and legend stand above the axes, so that neither can cover data.
    QCPLayoutGrid* grid = plot_->plotLayout();
    grid->insertRow(0);
    grid->insertRow(0);
    grid->setRowSpacing(2);
    title_ = new QCPTextElement(plot_);
    title_->setTextFlags(Qt::AlignLeft | Qt::AlignVCenter);
    title_->setMargins(QMargins(8, 4, 8, 0));
    grid->addElement(0, 0, title_);
    QCPLegend* legend = plot_->legend;
    plot_->axisRect()->insetLayout()->take(legend);
    auto* row = new QCPLayoutGrid;
    grid->addElement(1, 0, row);
    row->addElement(0, 0, legend);
    row->addElement(0, 1, new QCPLayoutElement(plot_)); // takes the rest of the width
    row->setColumnStretchFactor(0, 0.0001);
    legend->setFillOrder(QCPLegend::foColumnsFirst);
    legend->setVisible(true);
    legend->setBorderPen(Qt::NoPen);
    legend->setBrush(Qt::NoBrush);
    legend->setMargins(QMargins(8, 0, 8, 2));
    legend->setRowSpacing(0);
    legend->setColumnSpacing(16);
    legend->setIconSize(30, 12);
    grid->setRowStretchFactor(0, 0.0001);
    grid->setRowStretchFactor(1, 0.0001);

    for (QCPAxis* axis : plot_->axisRect()->axes()) {
        axis->setTickLengthIn(0);
        axis->setTickLengthOut(4);
        axis->setSubTickLengthIn(0);
        axis->setSubTickLengthOut(2);
        connect(axis, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), this,
                [this, axis] { clampRange(axis); });
    }
    plot_->installEventFilter(this);
    connect(plot_, &QCustomPlot::beforeReplot, this, [this] {
        replot_pending_ = true;
        const QRect inner = plot_->axisRect()->rect();
        set_ticker_length(plot_->xAxis, inner.width() > 0 ? inner.width() : plot_->width());
        set_ticker_length(plot_->yAxis, inner.height() > 0 ? inner.height() : plot_->height());
        elideTitle();
        arrangeLegend();
    });
    connect(plot_, &QCustomPlot::afterReplot, this, [this] { replot_pending_ = false; });
    connect(plot_, &QCustomPlot::afterLayout, this, [this] { layoutChanged(); });
}

void PlotView::applyTheme(bool dark)
{
    using Token = Theme::Token;
    paint_dark_ = dark;
    QFont small = font();
    if (small.pointSizeF() > 0)
        small.setPointSizeF(small.pointSizeF() * 0.95);
    QFont heading = font();
    heading.setWeight(QFont::DemiBold);
    plot_->setBackground(QBrush(ink(Token::Base)));
    plot_->axisRect()->setBackground(QBrush(ink(Token::Base)));
    for (QCPAxis* axis : plot_->axisRect()->axes())
        style_axis(axis, ink(Token::Muted), ink(Token::Text), ink(Token::Grid), small);
    plot_->legend->setFont(small);
    plot_->legend->setTextColor(ink(Token::Text));
    title_->setFont(heading);
    title_->setTextColor(ink(Token::Text));
    if (footer_ != nullptr) {
        footer_->setFont(small);
        footer_->setTextColor(ink(Token::Muted));
    }
    restyle();
    replotLater();
    update();
}

QString PlotView::summary() const { return message_.isEmpty() ? title_text_ : message_; }

QVector<QStringList> PlotView::table() const { return {}; }

void PlotView::inkAxis(QCPAxis* axis) const
{
    const QFont font = plot_->xAxis->tickLabelFont();
    axis->setTickLabelColor(ink(Theme::Token::Text));
    axis->setLabelColor(ink(Theme::Token::Text));
    axis->setTickLabelFont(font);
    axis->setLabelFont(font);
    axis->setBasePen(QPen(ink(Theme::Token::Muted)));
    axis->setTickPen(QPen(ink(Theme::Token::Muted)));
    axis->setSubTickPen(Qt::NoPen);
}

QCPColorScale* PlotView::addColorScale()
{
    QCPLayoutGrid* grid = plot_->plotLayout();
    int row = 0;
    for (int i = 0; i < grid->rowCount(); ++i)
        if (grid->element(i, 0) == plot_->axisRect())
            row = i;
    auto* scale = new QCPColorScale(plot_);
    grid->addElement(row, 1, scale);
    scale->setType(QCPAxis::atRight);
    scale->setBarWidth(12);
    scale->setRangeDrag(false);
    scale->setRangeZoom(false);
    auto* same = new QCPMarginGroup(plot_);
    plot_->axisRect()->setMarginGroup(QCP::msTop | QCP::msBottom, same);
    scale->setMarginGroup(QCP::msTop | QCP::msBottom, same);
    return scale;
}

void PlotView::setAxis(Qt::Orientation orientation, AxisKind kind, const QString& label)
{
    QCPAxis* axis = orientation == Qt::Horizontal ? plot_->xAxis : plot_->yAxis;
    const bool logarithmic = kind == AxisKind::Log || kind == AxisKind::LogWhole;
    const bool whole = kind == AxisKind::Whole || kind == AxisKind::LogWhole;
    axis->setTicker(QSharedPointer<AxisTicker>::create(logarithmic, whole));
    axis->setScaleType(logarithmic ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
    axis->setLabel(label);
}

void PlotView::setTitle(const QString& title)
{
    title_text_ = title;
    elideTitle();
}

/// The middle of a long layer name goes first: block number and role are at its ends.
void PlotView::elideTitle()
{
    const QString shown = QFontMetrics(title_->font())
                              .elidedText(title_text_, Qt::ElideMiddle, std::max(plot_->width() - 24, 40));
    if (shown != title_->text())
        title_->setText(shown);
}

void PlotView::setReadout(const QString& text)
{
    readout_text_ = text;
    QStringList parts{note_, text};
    parts.removeAll(QString());
    readout_->setText(parts.join(QStringLiteral("  ·  ")));
}

void PlotView::setNote(const QString& note)
{
    if (note == note_)
        return;
    note_ = note;
    setReadout(readout_text_);
    updateDescription();
}

QString PlotView::readout() const { return readout_->text(); }

void PlotView::setLimits(double x_min, double x_max, double y_min, double y_max)
{
    const bool same_x = limits_[0] == x_min && limits_[1] == x_max;
    limits_[0] = x_min;
    limits_[1] = x_max;
    limits_[2] = y_min;
    limits_[3] = y_max;
    if (!same_x)
        plot_->xAxis->setRange(x_min, x_max);
    plot_->yAxis->setRange(y_min, y_max);
    replotLater();
}

void PlotView::clampRange(QCPAxis* axis)
{
    if (clamping_)
        return;
    clamping_ = true;
    const bool horizontal = axis->orientation() == Qt::Horizontal;
    const double lower = limits_[horizontal ? 0 : 2];
    const double upper = limits_[horizontal ? 1 : 3];
    axis->setRange(inside(axis->range(), lower, upper, axis->scaleType() == QCPAxis::stLogarithmic));
    clamping_ = false;
}

void PlotView::fit()
{
    plot_->xAxis->setRange(limits_[0], limits_[1]);
    plot_->yAxis->setRange(limits_[2], limits_[3]);
    replotLater();
}

bool PlotView::isFitted() const
{
    const auto whole = [](const QCPRange& range, double lower, double upper) {
        const double slack = 1e-6 * (upper - lower);
        return range.lower <= lower + slack && range.upper >= upper - slack;
    };
    return whole(plot_->xAxis->range(), limits_[0], limits_[1])
           && whole(plot_->yAxis->range(), limits_[2], limits_[3]);
}

void PlotView::zoom(double factor)
{
    for (QCPAxis* axis : {plot_->xAxis, plot_->yAxis}) {
        if (axis == plot_->yAxis && !zooms_both_)
            break;
        const QCPRange range = axis->range();
        axis->scaleRange(factor, axis->scaleType() == QCPAxis::stLogarithmic
                                     ? std::sqrt(range.lower * range.upper)
                                     : range.center());
    }
    replotLater();
}

/// As many columns as the widest entry allows: on a narrow window the legend gets rows, never cut-off names.
void PlotView::arrangeLegend()
{
    QCPLegend* legend = plot_->legend;
    int items = 0;
    int widest = 1;
    for (int i = 0; i < legend->itemCount(); ++i) {
        const QCPAbstractLegendItem* item = legend->item(i); // null for an empty cell of the last row
        if (item == nullptr)
            continue;
        ++items;
        widest = std::max(widest, item->minimumOuterSizeHint().width());
    }
    if (items == 0)
        return;
    const int columns = std::clamp((plot_->width() - 16) / (widest + legend->columnSpacing()), 1, items);
    if (legend->wrap() == columns && legend->columnCount() == columns)
        return;
    legend->setWrap(columns);
    legend->setFillOrder(QCPLegend::foColumnsFirst, true);
}

void PlotView::setHasData(bool has_data)
{
    has_data_ = has_data;
    if (!has_data)
        return;
    message_.clear();
    overlay_->setMessage({});
    readout_->show();
}

void PlotView::updateDescription()
{
    // The message may carry links; those who listen to it get the words.
    const QString sentence =
        message_.isEmpty() ? summary() : QTextDocumentFragment::fromHtml(message_).toPlainText();
    setAccessibleName(title_text_.isEmpty() ? tr("Plot") : title_text_);
    if (accessibleDescription() == sentence)
        return;
    setAccessibleDescription(sentence);
    plot_->setAccessibleName(accessibleName());
    plot_->setAccessibleDescription(sentence);
    QAccessibleEvent event(this, QAccessible::DescriptionChanged);
    QAccessible::updateAccessibility(&event);
}

void PlotView::replotLater()
{
    replot_pending_ = true;
    plot_->replot(QCustomPlot::rpQueuedReplot);
}

void PlotView::replotCursor()
{
    if (!replot_pending_)
        cursor_layer_->replot();
}

void PlotView::showMessage(const QString& text)
{
    message_ = text;
    overlay_->setMessage(text);
    readout_->setVisible(text.isEmpty());
    updateDescription();
}

QString PlotView::message() const { return message_; }

void PlotView::setBusy(bool busy)
{
    busy_ = busy;
    overlay_->setBusy(busy);
}

void PlotView::copyImage() { QGuiApplication::clipboard()->setPixmap(plot_->toPixmap(0, 0, 2.0)); }

void PlotView::copyCommand()
{
    if (!command_.isEmpty())
        QGuiApplication::clipboard()->setText(command_);
}

void PlotView::showTable()
{
    if (table_dialog_)
        table_dialog_->close();
    table_dialog_ = new PlotTable(title_text_.isEmpty() ? tr("Values") : title_text_, table(), window());
    table_dialog_->show();
}

void PlotView::exportDialog()
{
    auto* dialog = new QFileDialog(this, tr("Export plot"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setAcceptMode(QFileDialog::AcceptSave);
    dialog->setNameFilters({tr("PDF document (*.pdf)"), tr("PNG image (*.png)"), tr("SVG drawing (*.svg)"),
                            tr("CSV table (*.csv)")});
    dialog->setDefaultSuffix(QStringLiteral("pdf"));
    connect(dialog, &QFileDialog::filterSelected, dialog, [dialog](const QString& filter) {
        dialog->setDefaultSuffix(filter.section(QStringLiteral("*."), 1).chopped(1));
    });
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& file) {
        QString error;
        if (exportTo(file, &error)) {
            Q_EMIT exported(file);
        } else {
            setReadout(error);
            Q_EMIT exportFailed(error);
        }
    });
    dialog->open();
}

bool PlotView::eventFilter(QObject* watched, QEvent* event)
{
    if (watched == plot_ && handleMouse(event))
        return true;
    return QWidget::eventFilter(watched, event);
}

bool PlotView::handleMouse(QEvent* event)
{
    switch (event->type()) {
    case QEvent::MouseButtonPress: {
        const auto* mouse = static_cast<QMouseEvent*>(event);
        if (mouse->button() != Qt::LeftButton || !has_data_)
            return false;
        press_ = mouse->position();
        pressed_ = true;
        drag_taken_ = pointerPressed(press_);
        return drag_taken_;
    }
    case QEvent::MouseMove: {
        const auto* mouse = static_cast<QMouseEvent*>(event);
        return has_data_ && pointerMoved(mouse->position(), drag_taken_ ? mouse->buttons() : Qt::NoButton)
               && drag_taken_;
    }
    case QEvent::MouseButtonRelease: {
        const auto* mouse = static_cast<QMouseEvent*>(event);
        if (mouse->button() != Qt::LeftButton || !pressed_)
            return false;
        pressed_ = false;
        if (drag_taken_) {
            drag_taken_ = false;
            pointerReleased(mouse->position());
            return true;
        }
        if ((mouse->position() - press_).manhattanLength() < QApplication::startDragDistance())
            pointerClicked(mouse->position());
        return false;
    }
    case QEvent::MouseButtonDblClick:
        fit();
        return true;
    case QEvent::Wheel: {
        const bool vertical = static_cast<QWheelEvent*>(event)->modifiers() & Qt::ShiftModifier;
        for (QCPAxisRect* rect : plot_->axisRects())
            rect->setRangeZoom(vertical      ? Qt::Orientations(Qt::Vertical)
                               : zooms_both_ ? Qt::Horizontal | Qt::Vertical
                                             : Qt::Orientations(Qt::Horizontal));
        return false;
    }
    case QEvent::ToolTip: {
        const auto* help = static_cast<QHelpEvent*>(event);
        const QString text = has_data_ && message_.isEmpty() ? toolTipAt(help->pos()) : QString();
        QToolTip::showText(help->globalPos(), text, plot_);
        return true;
    }
    default:
        return false;
    }
}

void PlotView::keyPressEvent(QKeyEvent* event)
{
    const int step = event->modifiers() & Qt::ShiftModifier ? k_big_step : 1;
    const auto arrow = [this](int steps, Qt::Orientation orientation) {
        if (!has_data_ || cursorKey(steps, orientation))
            return;
        QCPAxis* axis = orientation == Qt::Horizontal ? plot_->xAxis : plot_->yAxis;
        const double share = steps / 20.0;
        const QCPRange range = axis->range();
        if (axis->scaleType() == QCPAxis::stLogarithmic)
            axis->setRange(range * std::pow(range.upper / range.lower, share));
        else
            axis->moveRange(share * range.size());
        replotLater();
    };
    switch (event->key()) {
    case Qt::Key_Left:
        return arrow(-step, Qt::Horizontal);
    case Qt::Key_Right:
        return arrow(step, Qt::Horizontal);
    case Qt::Key_Up:
        return arrow(step, Qt::Vertical);
    case Qt::Key_Down:
        return arrow(-step, Qt::Vertical);
    case Qt::Key_Plus:
    case Qt::Key_Equal:
        return zoom(k_zoom_step);
    case Qt::Key_Minus:
        return zoom(1.0 / k_zoom_step);
    case Qt::Key_Home:
        return fit();
    case Qt::Key_Return:
    case Qt::Key_Enter:
        if (!has_data_ || !activateCursor())
            QWidget::keyPressEvent(event);
        return;
    case Qt::Key_Escape:
        if (has_data_ && leave())
            return;
        if (has_data_ && !isFitted())
            return fit();
        break;
    default:
        break;
    }
    QWidget::keyPressEvent(event);
}

void PlotView::contextMenuEvent(QContextMenuEvent* event)
{
    auto* menu = new QMenu(this);
    menu->setObjectName(QStringLiteral("plotMenu"));
    menu->setAttribute(Qt::WA_DeleteOnClose);
    const Theme& theme = Theme::instance();
    const auto add = [&](const QString& icon, const QString& text, auto slot) {
        QAction* action = menu->addAction(theme.icon(icon), text, this, slot);
        action->setEnabled(has_data_);
        return action;
    };
    add(QStringLiteral("export"), tr("Export…"), &PlotView::exportDialog);
    add(QStringLiteral("table"), tr("View as table"), &PlotView::showTable);
    add(QStringLiteral("copy"), tr("Copy image"), &PlotView::copyImage);
    add(QStringLiteral("copy"), tr("Copy readout"),
        [this] { QGuiApplication::clipboard()->setText(readout()); });
    add(QStringLiteral("copy"), tr("Copy as command"), &PlotView::copyCommand)
        ->setEnabled(has_data_ && !command_.isEmpty());
    menu->addSeparator();
    add(QStringLiteral("fit"), tr("Show all"), &PlotView::fit)->setShortcut(Qt::Key_Home);
    extendMenu(menu);
    menu->popup(event->globalPos());
}

void PlotView::paintEvent(QPaintEvent*)
{
    QPainter painter(this);
    painter.fillRect(plot_->geometry().adjusted(-k_ring, -k_ring, k_ring, k_ring), ink(Theme::Token::Base));
    if (!hasFocus())
        return;
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(QPen(ink(Theme::Token::Accent), 2.0));
    painter.drawRoundedRect(QRectF(plot_->geometry()).adjusted(-1.5, -1.5, 1.5, 1.5), 3.0, 3.0);
}

void PlotView::focusInEvent(QFocusEvent* event)
{
    QWidget::focusInEvent(event);
    update();
}

void PlotView::focusOutEvent(QFocusEvent* event)
{
    QWidget::focusOutEvent(event);
    update();
}

void PlotView::changeEvent(QEvent* event)
{
    QWidget::changeEvent(event);
    if (event->type() == QEvent::FontChange)
        applyTheme(paint_dark_);
}

void PlotView::showEvent(QShowEvent* event)
{
    QWidget::showEvent(event);
    applyTheme(Theme::instance().dark());
}

} // namespace rankscope
