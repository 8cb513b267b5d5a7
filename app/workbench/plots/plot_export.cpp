// SPDX-License-Identifier: GPL-3.0-or-later
// The part of PlotView that writes files.
#include "app/workbench/plots/plot_view.h"

#include "app/workbench/plots/qcp.h"
#include "core/base/atomic_file.h"

#include <QBuffer>
#include <QFileInfo>
#include <QLayout>
#include <QPageSize>
#include <QPdfWriter>
#include <QSvgGenerator>

#include <algorithm>

namespace rankscope {
namespace {

constexpr QSize k_default_size{960, 600};
constexpr double k_png_scale = 2.0;

QString csv_cell(QString cell)
{
    if (cell.contains(QLatin1Char('"')) || cell.contains(QLatin1Char(','))
        || cell.contains(QLatin1Char('\n'))) {
        cell.replace(QLatin1Char('"'), QStringLiteral("\"\""));
        return QLatin1Char('"') + cell + QLatin1Char('"');
    }
    return cell;
}

void draw_vector(QCustomPlot* plot, QPaintDevice* device)
{
    QCPPainter painter;
    if (!painter.begin(device))
        return;
    painter.setMode(QCPPainter::pmVectorized);
    painter.setMode(QCPPainter::pmNoCaching);
    painter.setMode(QCPPainter::pmNonCosmetic); // a hairline would vanish in print
    plot->toPainter(&painter, plot->width(), plot->height());
    painter.end();
}

} // namespace

QByteArray PlotView::csv() const
{
    QByteArray text;
    const QVector<QStringList> rows = table();
    for (const QStringList& row : rows) {
        QStringList cells;
        std::transform(row.cbegin(), row.cend(), std::back_inserter(cells), csv_cell);
        text += cells.join(QLatin1Char(',')).toUtf8();
        text += '\n';
    }
    return text;
}

/// The picture as a file's content. Drawings for paper are light whatever the screen is; the readout goes
/// with them.
QByteArray PlotView::render(const QString& suffix)
{
    if (!testAttribute(Qt::WA_WState_Created) && !testAttribute(Qt::WA_Resized))
        resize(k_default_size);
    ensurePolished();
    layout()->activate();
    const bool on_screen_dark = Theme::instance().dark();
    footer_ = new QCPTextElement(plot_, readout());
    footer_->setTextFlags(Qt::AlignLeft | Qt::AlignVCenter | Qt::TextWordWrap);
    footer_->setMargins(QMargins(8, 2, 8, 4));
    plot_->plotLayout()->addElement(plot_->plotLayout()->rowCount(), 0, footer_);
    plot_->plotLayout()->setRowStretchFactor(plot_->plotLayout()->rowCount() - 1, 0.0001);
    applyTheme(on_screen_dark && suffix == QLatin1String("png"));
    // Left to itself the element takes one line, however many the text needs.
    const QRect room(0, 0, plot_->width() - 16, plot_->height());
    footer_->setMinimumSize(
        0,
        QFontMetrics(footer_->font()).boundingRect(room, Qt::AlignLeft | Qt::TextWordWrap, readout()).height()
            + 8);
    plot_->replot(QCustomPlot::rpRefreshHint); // lays out and pools for this size

    QByteArray bytes;
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    if (suffix == QLatin1String("png")) {
        plot_->toPixmap(0, 0, k_png_scale).save(&buffer, "PNG");
    } else if (suffix == QLatin1String("svg")) {
        QSvgGenerator svg;
        svg.setOutputDevice(&buffer);
        svg.setSize(plot_->size());
        svg.setViewBox(plot_->rect());
        svg.setResolution(logicalDpiX());
        svg.setTitle(title_text_);
        svg.setDescription(summary());
        draw_vector(plot_, &svg);
    } else {
        QPdfWriter pdf(&buffer);
        pdf.setResolution(logicalDpiX());
        pdf.setPageSize(QPageSize(QSizeF(plot_->size()) * 72.0 / logicalDpiX(), QPageSize::Point, {},
                                  QPageSize::ExactMatch));
        pdf.setPageMargins(QMarginsF());
        pdf.setTitle(title_text_);
        pdf.setCreator(QStringLiteral("Rankscope " RANKSCOPE_VERSION));
        draw_vector(plot_, &pdf);
    }
    plot_->plotLayout()->remove(footer_);
    plot_->plotLayout()->simplify();
    footer_ = nullptr;
    applyTheme(on_screen_dark);
    return bytes;
}

bool PlotView::exportTo(const QString& file, QString* error)
{
    const auto failed = [error](const QString& sentence) {
        if (error != nullptr)
            *error = sentence;
        return false;
    };
    const QString suffix = QFileInfo(file).suffix().toLower();
    static const QStringList known = {QStringLiteral("pdf"), QStringLiteral("png"), QStringLiteral("svg"),
                                      QStringLiteral("csv")};
    if (!known.contains(suffix))
        return failed(
            tr("%1: plots are written as .pdf, .png, .svg or .csv. Choose one of these endings.").arg(file));
    if (!has_data_)
        return failed(tr("%1 was not written: the plot is empty.").arg(file));
    const QByteArray bytes = suffix == QLatin1String("csv") ? csv() : render(suffix);
    if (bytes.isEmpty())
        return failed(tr("%1 was not written: the plot could not be drawn.").arg(file));
    const Status written =
        write_text_file(std::filesystem::path(QFile::encodeName(file).toStdString()),
                        std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())), true);
    if (!written)
        return failed(QString::fromStdString(written.error().sentence()));
    return true;
}

} // namespace rankscope
