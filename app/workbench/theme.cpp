// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/theme.h"

#include <QApplication>
#include <QEvent>
#include <QFile>
#include <QIconEngine>
#include <QPainter>
#include <QPixmapCache>
#include <QProxyStyle>
#include <QStyleOption>
#include <QSvgRenderer>
#include <QTimer>
#include <QToolTip>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

/// Outside any namespace, as Q_INIT_RESOURCE wants it: the linker drops resources of a static library unless
/// asked.
static void keep_resources() { Q_INIT_RESOURCE(resources); }

namespace rankscope {
namespace {

/// Fusion with a focus ring that can be seen from the last row and targets that can be hit.
class WorkbenchStyle : public QProxyStyle {
public:
    WorkbenchStyle() : QProxyStyle(QStringLiteral("fusion")) {}

    void drawPrimitive(PrimitiveElement element, const QStyleOption* option, QPainter* painter,
                       const QWidget* widget) const override
    {
        switch (element) {
        case PE_FrameFocusRect:
            if (option->state & State_KeyboardFocusChange)
                stroke(painter, option->rect, Theme::Token::Accent, 2.0);
            return;
        case PE_IndicatorCheckBox:
            drawCheckBox(option, painter);
            return;
        case PE_PanelButtonCommand:
        case PE_FrameLineEdit:
            QProxyStyle::drawPrimitive(element, option, painter, widget);
            outline(option, painter);
            return;
        default:
            QProxyStyle::drawPrimitive(element, option, painter, widget);
        }
    }

    void drawComplexControl(ComplexControl control, const QStyleOptionComplex* option, QPainter* painter,
                            const QWidget* widget) const override
    {
        QProxyStyle::drawComplexControl(control, option, painter, widget);
        if (control == CC_SpinBox || control == CC_ComboBox)
            outline(option, painter);
    }

    int pixelMetric(PixelMetric metric, const QStyleOption* option, const QWidget* widget) const override
    {
        switch (metric) {
        case PM_SliderThickness:
        case PM_SliderControlThickness:
            return 24;
        case PM_SplitterWidth:
            return 6;
        case PM_DockWidgetSeparatorExtent:
            return 6;
        default:
            return QProxyStyle::pixelMetric(metric, option, widget);
        }
    }

    int styleHint(StyleHint hint, const QStyleOption* option, const QWidget* widget,
                  QStyleHintReturn* data) const override
    {
        if (hint == SH_EtchDisabledText || hint == SH_DitherDisabledText)
            return 0;
        return QProxyStyle::styleHint(hint, option, widget, data);
    }

private:
    static void stroke(QPainter* painter, const QRect& rect, Theme::Token token, double width)
    {
        painter->save();
        painter->setRenderHint(QPainter::Antialiasing);
        painter->setBrush(Qt::NoBrush);
        painter->setPen(QPen(Theme::instance().color(token), width));
        const double inset = width / 2.0;
        painter->drawRoundedRect(QRectF(rect).adjusted(inset, inset, -inset, -inset), 2.5, 2.5);
        painter->restore();
    }

    /// Fusion outlines with a darker shade of the window, which no one sees on a dark one.
    static void outline(const QStyleOption* option, QPainter* painter)
    {
        const bool focus = (option->state & State_HasFocus) && (option->state & State_Enabled);
        const Theme::Token token = focus                           ? Theme::Token::Accent
                                   : option->state & State_Enabled ? Theme::Token::Outline
                                                                   : Theme::Token::Border;
        stroke(painter, option->rect, token, focus ? 2.0 : 1.0);
    }

    static void drawCheckBox(const QStyleOption* option, QPainter* painter)
    {
        const Theme& theme = Theme::instance();
        const bool enabled = option->state & State_Enabled;
        const bool set = option->state & (State_On | State_NoChange);
        const QRectF box = QRectF(option->rect).adjusted(0.5, 0.5, -0.5, -0.5);
        const QColor full =
            enabled ? option->palette.color(QPalette::Highlight) : theme.color(Theme::Token::Border);
        painter->save();
        painter->setRenderHint(QPainter::Antialiasing);
        painter->setPen(
            QPen(set ? full : theme.color(enabled ? Theme::Token::Outline : Theme::Token::Border), 1.0));
        painter->setBrush(set ? full : theme.color(enabled ? Theme::Token::Base : Theme::Token::Window));
        painter->drawRoundedRect(box, 2.5, 2.5);
        painter->setPen(
            QPen(Qt::white, std::max(1.6, box.width() / 8.0), Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin));
        const auto at = [&box](double x, double y) {
            return QPointF(box.left() + x * box.width(), box.top() + y * box.height());
        };
        if (option->state & State_NoChange)
            painter->drawLine(at(0.25, 0.5), at(0.75, 0.5));
        else if (option->state & State_On)
            painter->drawPolyline(QPolygonF{at(0.22, 0.52), at(0.42, 0.72), at(0.78, 0.28)});
        painter->restore();
    }
};

/// Draws an SVG whose strokes are `currentColor`, in the color that the palette gives to the mode asked for.
class TintedSvgEngine : public QIconEngine {
public:
    TintedSvgEngine(QString name, QByteArray svg) : name_(std::move(name)), svg_(std::move(svg)) {}

    void paint(QPainter* painter, const QRect& rect, QIcon::Mode mode, QIcon::State state) override
    {
        const qreal ratio = painter->device() ? painter->device()->devicePixelRatio() : 1.0;
        painter->drawPixmap(rect, pixmap((QSizeF(rect.size()) * ratio).toSize(), mode, state));
    }

    QPixmap pixmap(const QSize& size, QIcon::Mode mode, QIcon::State state) override
    {
        if (size.isEmpty())
            return {};
        const QColor color = tint(mode, state);
        const QString key = QStringLiteral("rankscope-icon:%1:%2x%3:%4")
                                .arg(name_)
                                .arg(size.width())
                                .arg(size.height())
                                .arg(color.rgba(), 8, 16);
        QPixmap result;
        if (QPixmapCache::find(key, &result))
            return result;
        QImage image(size, QImage::Format_ARGB32_Premultiplied);
        image.fill(Qt::transparent);
        QSvgRenderer renderer(QByteArray(svg_).replace("currentColor", color.name().toLatin1()));
        QPainter painter(&image);
        const qreal side = std::min(size.width(), size.height());
        renderer.render(&painter, QRectF((size.width() - side) / 2, (size.height() - side) / 2, side, side));
        painter.end();
        result = QPixmap::fromImage(image);
        QPixmapCache::insert(key, result);
        return result;
    }

    QIconEngine* clone() const override { return new TintedSvgEngine(name_, svg_); }
    QString key() const override { return QStringLiteral("rankscope-tinted"); }
    QString iconName() override { return name_; }
    bool isNull() override { return svg_.isEmpty(); }

private:
    static QColor tint(QIcon::Mode mode, QIcon::State state)
    {
        const Theme& theme = Theme::instance();
        if (mode == QIcon::Disabled) {
            const QColor ink = theme.color(Theme::Token::Muted);
            const QColor ground = theme.color(Theme::Token::Window);
            return QColor((ink.red() + ground.red()) / 2, (ink.green() + ground.green()) / 2,
                          (ink.blue() + ground.blue()) / 2);
        }
        if (mode == QIcon::Selected)
            return Theme::palette(theme.dark()).color(QPalette::HighlightedText);
        return theme.color(state == QIcon::On ? Theme::Token::Accent : Theme::Token::Text);
    }

    QString name_;
    QByteArray svg_;
};

struct Shade {
    QRgb light, dark;
};

Shade shade(Theme::Token token)
{
    switch (token) {
    case Theme::Token::Base:
        return {0xFFFFFFFF, 0xFF16191D};
    case Theme::Token::Window:
        return {0xFFF6F7F9, 0xFF1F2328};
    case Theme::Token::Text:
        return {0xFF1B1F24, 0xFFE6E9ED};
    case Theme::Token::Muted:
        return {0xFF5B6570, 0xFF9AA4AF};
    case Theme::Token::Accent:
        return {0xFF1F5FBF, 0xFF7AB0FF};
    case Theme::Token::Error:
        return {0xFFB42318, 0xFFFF8A80};
    case Theme::Token::Success:
        return {0xFF1A7340, 0xFF5BD68A};
    case Theme::Token::Grid:
        return {0xFFE7EAEE, 0xFF2A2F36};
    case Theme::Token::Border:
        return {0xFFCDD3DA, 0xFF3C434C};
    case Theme::Token::Outline:
        return {0xFF848E9A, 0xFF727C87};
    case Theme::Token::SeriesWeight:
        return {0xFF0E2F70, 0xFF3F83F5};
    case Theme::Token::SeriesQuantized:
        return {0xFFB08D1E, 0xFFF5D547};
    case Theme::Token::SeriesLowRank:
        return {0xFF2E9E8A, 0xFF72E8C4};
    case Theme::Token::SeriesResidual:
        return {0xFFC850BC, 0xFFAF5FA6};
    case Theme::Token::Outlier:
        return {0xFF7A160C, 0xFFE0452F};
    }
    return {0xFF000000, 0xFFFFFFFF};
}

/// Linear interpolation between equally spaced stops in sRGB; the stops are close enough for that.
QColor ramp(std::span<const QRgb> stops, double share)
{
    if (std::isnan(share))
        return Qt::transparent;
    const double place = std::clamp(share, 0.0, 1.0) * static_cast<double>(stops.size() - 1);
    const auto below = std::min(static_cast<std::size_t>(place), stops.size() - 2);
    const double part = place - static_cast<double>(below);
    const auto mix = [part](int a, int b) { return static_cast<int>(std::lround(a + (b - a) * part)); };
    const QRgb a = stops[below];
    const QRgb b = stops[below + 1];
    return QColor(mix(qRed(a), qRed(b)), mix(qGreen(a), qGreen(b)), mix(qBlue(a), qBlue(b)));
}

QString mixed(const QColor& ink, const QColor& ground, double share)
{
    const auto mix = [share](int a, int b) {
        return static_cast<int>(std::lround(a * share + b * (1.0 - share)));
    };
    return QColor(mix(ink.red(), ground.red()), mix(ink.green(), ground.green()),
                  mix(ink.blue(), ground.blue()))
        .name();
}

QString styleSheet(bool dark)
{
    using Token = Theme::Token;
    const auto name = [dark](Token token) { return Theme::color(token, dark).name(); };
    const QColor base = Theme::color(Token::Base, dark);
    QString sheet =
        QStringLiteral("QFrame[card=\"true\"] { background: %1; border: 1px solid %2; border-radius: 6px; }"
                       "QFrame[banner] { border: 1px solid %2; border-left-width: 4px; border-radius: 4px; }"
                       "QLabel[muted=\"true\"] { color: %3; }"
                       "QLabel[heading=\"true\"] { font-weight: 600; }"
                       "QLabel[tone=\"error\"] { color: %4; }"
                       "QLabel[tone=\"success\"] { color: %5; }"
                       "QTableView, QTreeView { border: 1px solid %2; gridline-color: %6; }"
                       "QToolTip { background: %1; color: %7; border: 1px solid %2; padding: 4px; }")
            .arg(base.name(), name(Token::Border), name(Token::Muted), name(Token::Error),
                 name(Token::Success), name(Token::Grid), name(Token::Text));
    const std::array banners = {std::pair{"info", Token::Accent},
                                std::pair{"warning", Token::SeriesQuantized},
                                std::pair{"error", Token::Error}, std::pair{"success", Token::Success}};
    for (const auto& [banner, token] : banners) {
        const QColor ink = Theme::color(token, dark);
        sheet += QStringLiteral("QFrame[banner=\"%1\"] { background: %2; border-left-color: %3; }")
                     .arg(QLatin1String(banner), mixed(ink, base, dark ? 0.16 : 0.08), ink.name());
    }
    return sheet;
}

} // namespace

Theme::Theme() { keep_resources(); }

Theme& Theme::instance()
{
    static Theme theme;
    return theme;
}

QColor Theme::color(Token token, bool dark)
{
    const Shade both = shade(token);
    return QColor::fromRgb(dark ? both.dark : both.light);
}

QColor Theme::magnitude(double share)
{
    static constexpr std::array<QRgb, 6> stops = {0xFF00204D, 0xFF31446B, 0xFF666970,
                                                  0xFF958F78, 0xFFCBBA69, 0xFFFFEA46};
    return ramp(stops, share);
}

QColor Theme::signedValue(double share, bool dark)
{
    const std::array<QRgb, 5> stops = {0xFF0B3C6F, 0xFF4C8DC4, dark ? 0xFF2B2F34 : 0xFFF2F2F2, 0xFFE5934B,
                                       0xFF8C3A00};
    return ramp(stops, (share + 1.0) / 2.0);
}

QPalette Theme::palette(bool dark)
{
    const auto at = [dark](Token token) { return color(token, dark); };
    QPalette palette;
    palette.setColor(QPalette::Window, at(Token::Window));
    palette.setColor(QPalette::WindowText, at(Token::Text));
    palette.setColor(QPalette::Base, at(Token::Base));
    palette.setColor(QPalette::AlternateBase, dark ? QColor(0x1B, 0x1F, 0x24) : QColor(0xFA, 0xFB, 0xFC));
    palette.setColor(QPalette::ToolTipBase, at(Token::Base));
    palette.setColor(QPalette::ToolTipText, at(Token::Text));
    palette.setColor(QPalette::PlaceholderText, at(Token::Muted));
    palette.setColor(QPalette::Text, at(Token::Text));
    palette.setColor(QPalette::Button, dark ? QColor(0x2B, 0x30, 0x37) : QColor(0xF0, 0xF2, 0xF5));
    palette.setColor(QPalette::ButtonText, at(Token::Text));
    palette.setColor(QPalette::BrightText, at(Token::Error));
    palette.setColor(QPalette::Light, dark ? QColor(0x3A, 0x40, 0x49) : QColor(0xFF, 0xFF, 0xFF));
    palette.setColor(QPalette::Midlight, dark ? QColor(0x31, 0x37, 0x3F) : QColor(0xE7, 0xEA, 0xEE));
    palette.setColor(QPalette::Mid, dark ? QColor(0x25, 0x2A, 0x30) : QColor(0xB9, 0xC0, 0xC8));
    palette.setColor(QPalette::Dark, dark ? QColor(0x0F, 0x11, 0x14) : QColor(0x9A, 0xA3, 0xAD));
    palette.setColor(QPalette::Shadow, dark ? QColor(0x00, 0x00, 0x00) : QColor(0x6B, 0x74, 0x7E));
    palette.setColor(QPalette::Highlight, dark ? QColor(0x2F, 0x62, 0xB5) : QColor(0x1F, 0x5F, 0xBF));
    palette.setColor(QPalette::HighlightedText, Qt::white);
    palette.setColor(QPalette::Link, at(Token::Accent));
    palette.setColor(QPalette::LinkVisited, at(Token::SeriesResidual));

    // Greyed text stays readable: halfway between muted and the ground is not meant for anything one must
    // read.
    const QColor faint = dark ? QColor(0x74, 0x7D, 0x88) : QColor(0x86, 0x8F, 0x99);
    for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText,
                            QPalette::PlaceholderText, QPalette::HighlightedText, QPalette::Link})
        palette.setColor(QPalette::Disabled, role, faint);
    palette.setColor(QPalette::Disabled, QPalette::Base, at(Token::Window));
    palette.setColor(QPalette::Disabled, QPalette::Highlight, at(Token::Border));
    return palette;
}

void Theme::apply(QApplication& application, Choice choice)
{
    choice_ = choice;
    const bool dark = choice == Choice::System ? systemIsDark(application) : choice == Choice::Dark;
    if (!applied_) {
        application.setStyle(new WorkbenchStyle); // whatever QT_STYLE_OVERRIDE said
        application.installEventFilter(this);
    }
    setScheme(application, dark);
}

void Theme::setScheme(QApplication& application, bool dark)
{
    const bool repeated = applied_ && dark == dark_;
    applied_ = true;
    dark_ = dark;
    applying_ = true;
    const QPalette colors = palette(dark);
    application.setPalette(colors);
    QToolTip::setPalette(colors);
    if (!repeated)
        application.setStyleSheet(styleSheet(dark));
    applying_ = false;
    Q_EMIT changed();
}

/// Qt 6.4 has no call for the desktop's scheme: with our own palette taken away, the platform's is what is
/// left.
bool Theme::systemIsDark(QApplication& application)
{
    applying_ = true;
    if (applied_)
        application.setPalette(QPalette());
    const QPalette system = QApplication::palette();
    applying_ = false;
    return system.color(QPalette::Window).lightnessF() < system.color(QPalette::WindowText).lightnessF();
}

bool Theme::eventFilter(QObject* watched, QEvent* event)
{
    const bool news =
        event->type() == QEvent::ThemeChange || event->type() == QEvent::ApplicationPaletteChange;
    if (news && !applying_ && choice_ == Choice::System) {
        applying_ = true; // one answer to the burst of events that a desktop sends
        QTimer::singleShot(0, this, [this] {
            applying_ = false;
            if (auto* application = qobject_cast<QApplication*>(QCoreApplication::instance());
                application && choice_ == Choice::System)
                setScheme(*application, systemIsDark(*application));
        });
    }
    return QObject::eventFilter(watched, event);
}

QIcon Theme::icon(const QString& name) const
{
    const auto known = icons_.constFind(name);
    if (known != icons_.constEnd())
        return *known;
    QFile file(QStringLiteral(":/icons/%1.svg").arg(name));
    if (!file.open(QIODevice::ReadOnly))
        return {};
    const QIcon icon(new TintedSvgEngine(name, file.readAll()));
    icons_.insert(name, icon);
    return icon;
}

} // namespace rankscope
