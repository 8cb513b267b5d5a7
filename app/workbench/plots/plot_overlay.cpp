// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/plot_overlay.h"

#include "app/workbench/theme.h"

#include <QEvent>
#include <QLabel>
#include <QPainter>
#include <QVBoxLayout>

namespace rankscope {

PlotOverlay::PlotOverlay(QWidget* plot) : QWidget(plot)
{
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(24, 24, 24, 24);
    label_ = new QLabel(this);
    label_->setObjectName(QStringLiteral("plotMessage"));
    label_->setAlignment(Qt::AlignCenter);
    label_->setWordWrap(true);
    label_->setTextInteractionFlags(Qt::TextBrowserInteraction);
    label_->setProperty("muted", true);
    layout->addWidget(label_);
    connect(label_, &QLabel::linkActivated, this, &PlotOverlay::linkActivated);
    plot->installEventFilter(this);
    setGeometry(plot->rect());
    updateState();
}

void PlotOverlay::setMessage(const QString& text)
{
    label_->setText(text);
    updateState();
}

void PlotOverlay::setBusy(bool busy)
{
    busy_ = busy;
    updateState();
}

void PlotOverlay::updateState()
{
    const bool message = !label_->text().isEmpty();
    label_->setVisible(message);
    setAttribute(Qt::WA_TransparentForMouseEvents, !message);
    setVisible(message || busy_);
    raise();
    update();
}

void PlotOverlay::paintEvent(QPaintEvent*)
{
    QColor veil = Theme::instance().color(Theme::Token::Base);
    if (label_->text().isEmpty())
        veil.setAlphaF(0.6F);
    QPainter(this).fillRect(rect(), veil);
}

bool PlotOverlay::eventFilter(QObject* watched, QEvent* event)
{
    if (watched == parent() && event->type() == QEvent::Resize)
        setGeometry(parentWidget()->rect());
    return QWidget::eventFilter(watched, event);
}

} // namespace rankscope
