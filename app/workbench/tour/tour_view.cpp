// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/tour_view.h"

#include "app/workbench/text.h"
#include "app/workbench/tour/picture_painter.h"

#include <QApplication>
#include <QMouseEvent>
#include <QPainter>
#include <QWindow>

#include <algorithm>

namespace rankscope {
namespace {

constexpr int k_fade_milliseconds = 220;
constexpr double k_formula_size = 1.35; ///< of the text beside it
constexpr int k_ring = 22;

} // namespace

void paintFrame(QPainter& painter, const QRectF& area, const TourShow& show, const TourFrame& frame,
                const TourFrame* before, const QFont& font, bool dark)
{
    const auto count = static_cast<double>(frame.pictures.size());
    const double gap = count > 1.0 ? QFontMetricsF(font).height() * 1.5 : 0.0;
    const bool side_by_side = area.width() > 1.1 * area.height();
    const double whole = side_by_side ? area.width() : area.height();
    const double one = (whole - gap * (count - 1.0)) / count;
    double start = 0.0;
    for (const std::string& name : frame.pictures) {
        const auto found = show.lesson.pictures.find(name);
        const QRectF room = side_by_side ? QRectF(area.left() + start, area.top(), one, area.height())
                                         : QRectF(area.left(), area.top() + start, area.width(), one);
        const bool fresh =
            before && !before->pictures.empty()
            && std::find(before->pictures.begin(), before->pictures.end(), name) == before->pictures.end();
        if (found != show.lesson.pictures.end())
            PicturePainter(painter, font, dark).paint(found->second, room, fresh);
        start += one + gap;
    }
}

TourCanvas::TourCanvas(QWidget* parent) : QWidget(parent)
{
    setObjectName(QStringLiteral("tour_canvas"));
    setAccessibleName(QStringLiteral("Picture of the tour"));
    setFocusPolicy(Qt::StrongFocus);
    setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
    fade_.setStartValue(0.0);
    fade_.setEndValue(1.0);
    fade_.setDuration(k_fade_milliseconds);
    connect(&fade_, &QVariantAnimation::valueChanged, this, [this] { update(); });
    connect(&fade_, &QVariantAnimation::finished, this, [this] { old_ = {}; });
}

const TourFrame* TourCanvas::frameAt(int page, int frame) const
{
    if (!show_ || page < 0 || page >= static_cast<int>(show_->script.pages.size()))
        return nullptr;
    const auto& frames = show_->script.pages[static_cast<std::size_t>(page)].frames;
    return frame >= 0 && frame < static_cast<int>(frames.size()) ? &frames[static_cast<std::size_t>(frame)]
                                                                 : nullptr;
}

void TourCanvas::setFrame(TourPointer show, int page, int frame)
{
    const TourFrame* last = frameAt(page_, frame_);
    before_ = last && page_ == page ? *last : TourFrame{};
    show_ = std::move(show);
    page_ = page;
    frame_ = frame;
    message_.clear();
    old_ = now_;
    now_ = {};
    fade_.stop();
    if (!old_.isNull() && !reduced_motion_ && isVisible())
        fade_.start();
    else
        old_ = {};
    QString text;
    if (const TourFrame* shown = frameAt(page_, frame_))
        for (const std::string& name : shown->pictures)
            text += toQString(describe(show_->lesson.pictures.at(name))) + QStringLiteral(". ");
    setAccessibleDescription(text.trimmed());
    update();
}

void TourCanvas::setMessage(const QString& text)
{
    message_ = text;
    setAccessibleDescription(text);
    update();
}

void TourCanvas::setDark(bool dark)
{
    if (dark_ == dark)
        return;
    dark_ = dark;
    now_ = {};
    update();
}

QPixmap TourCanvas::drawn()
{
    QPixmap picture(size() * devicePixelRatioF());
    picture.setDevicePixelRatio(devicePixelRatioF());
    picture.fill(Theme::color(Theme::Token::Base, dark_));
    if (const TourFrame* frame = frameAt(page_, frame_)) {
        QPainter painter(&picture);
        const double margin = QFontMetricsF(font()).height();
        paintFrame(painter, QRectF(rect()).adjusted(margin, margin, -margin, -0.5 * margin), *show_, *frame,
                   &before_, font(), dark_);
    }
    return picture;
}

void TourCanvas::paintEvent(QPaintEvent*)
{
    if (now_.isNull())
        now_ = drawn();
    QPainter painter(this);
    if (fading() && !old_.isNull()) {
        painter.drawPixmap(0, 0, old_);
        painter.setOpacity(fade_.currentValue().toDouble());
    }
    painter.drawPixmap(0, 0, now_);
    if (message_.isEmpty())
        return;
    painter.setOpacity(1.0);
    QColor veil = Theme::color(Theme::Token::Base, dark_);
    veil.setAlphaF(0.82F);
    painter.fillRect(rect(), veil);
    painter.setPen(Theme::color(Theme::Token::Text, dark_));
    painter.drawText(rect().adjusted(40, 20, -40, -20), Qt::AlignCenter | Qt::TextWordWrap, message_);
}

void TourCanvas::resizeEvent(QResizeEvent* event)
{
    now_ = {};
    old_ = {};
    QWidget::resizeEvent(event);
}

void TourCanvas::changeEvent(QEvent* event)
{
    if (event->type() == QEvent::FontChange)
        now_ = {};
    QWidget::changeEvent(event);
}

FormulaPanel::FormulaPanel(QWidget* parent) : QWidget(parent)
{
    setObjectName(QStringLiteral("tour_formula"));
    setAccessibleName(QStringLiteral("Formula"));
    QSizePolicy policy(QSizePolicy::Expanding, QSizePolicy::Minimum);
    policy.setHeightForWidth(true);
    setSizePolicy(policy);
}

QFont FormulaPanel::face() const
{
    QFont result = font();
    result.setPointSizeF(result.pointSizeF() * k_formula_size);
    return result;
}

void FormulaPanel::setFormula(const QString& source)
{
    formula_ = Formula(source);
    lit_.clear();
    setAccessibleDescription(formula_.spoken());
    updateGeometry();
    update();
}

void FormulaPanel::setLit(const QString& term)
{
    lit_ = term;
    update();
}

void FormulaPanel::setDark(bool dark)
{
    dark_ = dark;
    update();
}

int FormulaPanel::heightForWidth(int width) const
{
    return static_cast<int>(std::ceil(formula_.size(face(), width - 8).height())) + 16;
}

QSize FormulaPanel::sizeHint() const { return {360, heightForWidth(std::max(200, width()))}; }
QSize FormulaPanel::minimumSizeHint() const { return {200, heightForWidth(std::max(200, width()))}; }

void FormulaPanel::paintEvent(QPaintEvent*)
{
    QPainter painter(this);
    painter.setRenderHint(QPainter::Antialiasing);
    formula_.paint(
        painter, QRectF(rect()).adjusted(4, 8, -4, -8), face(),
        {Theme::color(Theme::Token::Text, dark_), Theme::color(Theme::Token::Accent, dark_), lit_});
}

PointerRing::PointerRing(QWidget* parent) : QWidget(parent)
{
    setObjectName(QStringLiteral("pointer_ring"));
    setAttribute(Qt::WA_TransparentForMouseEvents);
    setAttribute(Qt::WA_NoSystemBackground);
    hide();
}

void PointerRing::setShown(bool shown)
{
    if (shown == isVisible())
        return;
    setVisible(shown);
    if (shown) {
        resize(parentWidget()->size());
        raise();
        qApp->installEventFilter(this);
    } else {
        qApp->removeEventFilter(this);
    }
}

bool PointerRing::eventFilter(QObject* watched, QEvent* event)
{
    if (event->type() == QEvent::Resize && watched == parentWidget())
        resize(parentWidget()->size());
    // The window hears of every move, whatever widget lies below and whether it tracks the mouse.
    if (event->type() == QEvent::MouseMove && watched == window()->windowHandle()) {
        const QPoint old = place_;
        place_ = static_cast<QMouseEvent*>(event)->position().toPoint();
        const QPoint half(k_ring + 4, k_ring + 4);
        update(QRect(old - half, old + half));
        update(QRect(place_ - half, place_ + half));
    }
    return QWidget::eventFilter(watched, event);
}

void PointerRing::paintEvent(QPaintEvent*)
{
    QPainter painter(this);
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(QPen(QColor(255, 255, 255, 160), 6.0));
    painter.drawEllipse(place_, k_ring, k_ring);
    painter.setPen(QPen(Theme::color(Theme::Token::Outlier, false), 3.0));
    painter.drawEllipse(place_, k_ring, k_ring);
}

} // namespace rankscope
