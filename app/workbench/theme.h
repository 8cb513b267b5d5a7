// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QColor>
#include <QHash>
#include <QIcon>
#include <QObject>
#include <QPalette>
#include <QVector>

class QApplication;

namespace rankscope {

/// The one source of colours, icons and style of the workbench. Lives on the GUI thread.
///
/// Its style sheet knows these dynamic properties: `card` (true) on a frame; `banner` ("info", "warning",
/// "error", "success") on a frame; `muted` (true), `heading` (true) and `tone` ("error", "success") on a
/// label. After changing one on a visible widget, polish it again.
class Theme : public QObject {
    Q_OBJECT
public:
    enum class Choice { System, Light, Dark };
    Q_ENUM(Choice)
    enum class Token {
        Base,   ///< background of plots, tables, editors
        Window, ///< background of windows, docks, tool bars
        Text,
        Muted, ///< secondary text
        Accent,
        Error,
        Success,
        Grid,
        Border,          ///< of cards and tables
        Outline,         ///< of controls: 3:1 on base and window
        SeriesWeight,    ///< W, solid
        SeriesQuantized, ///< Q, dashed
        SeriesLowRank,   ///< L·R, dash-dot
        SeriesResidual,  ///< W − Q, dotted
        Outlier,         ///< outlier channels, always with ▲
    };
    Q_ENUM(Token)

    static Theme& instance();

    /// Sets style, palette and style sheet of the whole program. System is light or dark as the desktop's
    /// palette is, and follows it from then on. May be called again at any time.
    void apply(QApplication& application, Choice choice);
    Choice choice() const { return choice_; }
    bool dark() const { return dark_; }

    QColor color(Token token) const { return color(token, dark_); }
    static QColor color(Token token, bool dark);

    /// Magnitude ramp (cividis family) at 0…1; outside is clamped, NaN is transparent.
    static QColor magnitude(double share);
    /// Signed ramp (blue – neutral – orange) at −1…1, zero at the neutral colour; outside clamped, NaN
    /// transparent.
    static QColor signedValue(double share, bool dark);

    /// resources/icons/<name>.svg drawn in the palette's text colour (accent when checked, muted when
    /// disabled); crisp at any device pixel ratio. Follows later theme changes by itself. An unknown name
    /// gives a null icon.
    QIcon icon(const QString& name) const;

    /// The palette of one scheme (tests, previews).
    static QPalette palette(bool dark);

Q_SIGNALS:
    void changed(); ///< after every palette change: repaint what was coloured by hand

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    Theme();
    void setScheme(QApplication& application, bool dark);
    bool systemIsDark(QApplication& application);

    Choice choice_ = Choice::System;
    bool dark_ = false;
    bool applied_ = false;
    bool applying_ = false;
    mutable QHash<QString, QIcon> icons_;
};

} // namespace rankscope
