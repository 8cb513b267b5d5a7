// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/theme.h"

#include <QPointer>
#include <QString>
#include <QStringList>
#include <QVariantMap>
#include <QVector>
#include <QWidget>

class QCPAxis;
class QCPColorScale;
class QCPGraph;
class QCPItemText;
class QCPLayer;
class QCPTextElement;
class QCustomPlot;
class QDialog;
class QLabel;
class QLayout;
class QMenu;

namespace rankscope {

class PlotOverlay;

/// One plot with its controls above and a readout below. Follows Theme, can be read, copied, exported and
/// driven by keyboard alone. Subclasses draw into plot() and describe themselves in summary(), table() and
/// readout().
///
/// Keys: ←/→ (Shift: ×16) and ↑/↓ move what the subclass calls its cursor, + and − zoom, Home fits, Enter
/// selects, Esc leaves (a drag first, then the zoom).
class PlotView : public QWidget {
    Q_OBJECT
public:
    explicit PlotView(QWidget* parent = nullptr);
    ~PlotView() override;

    /// One sentence that says what the picture shows; it is the accessible description.
    virtual QString summary() const;
    /// What is drawn, as text: the header first, then one row per value. Empty without data.
    virtual QVector<QStringList> table() const;

    /// Writes the plot as .pdf, .svg (both on white, for paper), .png (as on screen, 2×) or the table as
    /// .csv. The file appears whole or not at all; an existing one is replaced. On failure false and one
    /// sentence in `error`.
    bool exportTo(const QString& file, QString* error);

    /// Shows a sentence instead of data, until the next data or an empty text. Links in it arrive as
    /// messageLinkActivated.
    void showMessage(const QString& text);
    QString message() const;
    /// Dims the old picture while a new one is computed.
    void setBusy(bool busy);
    bool busy() const { return busy_; }
    /// The line below the plot.
    QString readout() const;

    /// What of a layer the controls ask for, where it takes a computation: goes with the request for the next
    /// picture and into the command.
    virtual QVariantMap options() const { return {}; }
    virtual void setOptions(const QVariantMap&) {} ///< unknown ones are ignored; emits nothing
    /// What the controls ask for of the other side of a comparison: goes with the request for that, and into
    /// the command while there is one. Set by setOptions(), too.
    virtual QVariantMap compareOptions() const { return {}; }
    /// A sentence before the readout: what of a comparison cannot be drawn. Empty: none.
    void setNote(const QString& note);
    /// The command line that draws this picture; empty: there is none.
    void setCommand(const QString& command) { command_ = command; }
    const QString& command() const { return command_; }

public Q_SLOTS:
    void fit(); ///< whole data in view
    void exportDialog();
    void showTable();
    void copyImage();
    void copyCommand();

Q_SIGNALS:
    void optionsChanged(); ///< by the user's hand
    void messageLinkActivated(const QString& link);
    void exported(const QString& file);
    void exportFailed(const QString& sentence);

protected:
    QCustomPlot* plot() const { return plot_; }
    QCPLayer* cursorLayer() const
    {
        return cursor_layer_;
    } ///< buffered: moving a cursor repaints only this layer
    QLayout* controls() const { return controls_; }

    /// Colours of the scheme in use: the theme's, or light during an export for paper.
    QColor ink(Theme::Token token) const { return Theme::color(token, paint_dark_); }
    bool paintsDark() const { return paint_dark_; }
    /// Ink and font of the plot's own axes for one beside them: of a color scale, of a panel. For restyle().
    void inkAxis(QCPAxis* axis) const;
    /// At the right of the axes and as high as they are; neither dragged nor zoomed.
    QCPColorScale* addColorScale();

    enum class AxisKind { Linear, Whole, Log, LogWhole };
    void setAxis(Qt::Orientation orientation, AxisKind kind, const QString& label);
    void setTitle(const QString& title);
    void setReadout(const QString& text);
    /// The whole data range; fit() goes there, zoom and pan never leave it.
    void setLimits(double x_min, double x_max, double y_min, double y_max);
    /// The wheel and + − zoom both axes (a map of cells), not only the horizontal one.
    void setZoomsBothAxes(bool both) { zooms_both_ = both; }
    void setHasData(bool has_data);
    bool hasData() const { return has_data_; }
    void updateDescription(); ///< call when summary() changed
    void replotLater();
    void replotCursor(); ///< only the cursor layer, at once; nothing where a whole replot is under way anyway

    virtual void restyle() {} ///< colours of graphs and items by ink(); axes, grid, legend are done already
    virtual void layoutChanged() {
    } ///< after each layout, before drawing: pool the data to the pixels there are
    virtual void extendMenu(QMenu*) {}
    virtual bool cursorKey(int steps, Qt::Orientation)
    {
        Q_UNUSED(steps)
        return false;
    }                                               ///< true: handled
    virtual bool activateCursor() { return false; } ///< Enter
    virtual bool leave() { return false; }          ///< Esc
    /// Mouse over the axis rect in plot() coordinates; true takes the event away from pan and zoom.
    virtual bool pointerPressed(const QPointF&) { return false; }
    virtual bool pointerMoved(const QPointF&, Qt::MouseButtons) { return false; }
    virtual bool pointerReleased(const QPointF&) { return false; }
    virtual void pointerClicked(const QPointF&) {} ///< press and release without a drag
    virtual QString toolTipAt(const QPointF&) const { return {}; }

    bool eventFilter(QObject* watched, QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    void contextMenuEvent(QContextMenuEvent* event) override;
    void paintEvent(QPaintEvent* event) override;
    void focusInEvent(QFocusEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;
    void changeEvent(QEvent* event) override;
    void showEvent(QShowEvent* event) override;

private:
    void buildPlot();
    void applyTheme(bool dark);
    void clampRange(QCPAxis* axis);
    void zoom(double factor);
    bool isFitted() const;
    void arrangeLegend();
    void elideTitle();
    QByteArray render(const QString& suffix);
    QByteArray csv() const;
    void updateOverlay();
    bool handleMouse(QEvent* event);

    QCustomPlot* plot_ = nullptr;
    QCPLayer* cursor_layer_ = nullptr;
    QCPTextElement* title_ = nullptr;
    QCPTextElement* footer_ = nullptr; ///< the readout, in exports only
    QLayout* controls_ = nullptr;
    QLabel* readout_ = nullptr;
    PlotOverlay* overlay_ = nullptr;
    QPointer<QDialog> table_dialog_;
    QString title_text_;
    QString message_;
    QString note_;
    QString readout_text_;
    QString command_;
    double limits_[4] = {0.0, 1.0, 0.0, 1.0};
    QPointF press_;
    bool pressed_ = false;
    bool drag_taken_ = false;
    bool zooms_both_ = false;
    bool busy_ = false;
    bool has_data_ = false;
    bool paint_dark_ = false;
    bool clamping_ = false;
    bool replot_pending_ = true;
};

} // namespace rankscope
