// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/tour_export.h"

#include "app/workbench/text.h"
#include "app/workbench/theme.h"
#include "app/workbench/tour/formula.h"
#include "app/workbench/tour/tour_view.h"
#include "core/base/atomic_file.h"

#include <QBuffer>
#include <QDir>
#include <QGuiApplication>
#include <QImage>
#include <QPainter>
#include <QPdfWriter>

#include <algorithm>

namespace rankscope {
namespace {

constexpr QSizeF k_page(1280.0, 860.0);
constexpr double k_margin = 40.0;
constexpr double k_png_scale = 1.5;

QFont pageFont(double pixels, bool bold = false)
{
    QFont font = QGuiApplication::font();
    font.setPointSizeF(pixels * 72.0 / 96.0);
    font.setBold(bold);
    return font;
}

/// Wrapped text; returns the height it took.
double paragraph(QPainter& painter, const QRectF& room, const QString& text, const QFont& font,
                 Theme::Token token)
{
    painter.setFont(font);
    painter.setPen(Theme::color(token, false));
    const int flags = Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap;
    QRectF used;
    painter.drawText(room, flags, text, &used);
    return used.height();
}

/// All frames that belong on paper, in a grid.
void frames(QPainter& painter, const QRectF& area, const TourShow& show, const TourPage& page)
{
    std::vector<const TourFrame*> shown;
    for (const TourFrame& frame : page.frames)
        if (frame.printed)
            shown.push_back(&frame);
    const auto count = static_cast<int>(shown.size());
    const int columns = count > 1 ? 2 : 1;
    const int rows = (count + columns - 1) / columns;
    const double gap = 18.0;
    const double height = (area.height() - gap * (rows - 1)) / rows;
    for (int i = 0; i < count; ++i) {
        const bool alone = i == count - 1 && count % columns == 1;
        const double width = alone ? area.width() : (area.width() - gap) / columns;
        const QRectF room(area.left() + (i % columns) * (width + gap),
                          area.top() + (i / columns) * (height + gap), width, height);
        paintFrame(painter, room, show, *shown[static_cast<std::size_t>(i)], nullptr,
                   pageFont(count > 2 ? 11.0 : 13.0), false);
    }
}

} // namespace

void paintTourPage(QPainter& painter, const QSizeF& size, const TourShow& show, int number)
{
    const TourPage& page = show.script.pages[static_cast<std::size_t>(number)];
    painter.save();
    painter.scale(size.width() / k_page.width(), size.height() / k_page.height());
    painter.setRenderHint(QPainter::Antialiasing);
    painter.fillRect(QRectF({}, k_page), Qt::white);
    const QRectF room = QRectF({}, k_page).adjusted(k_margin, k_margin, -k_margin, -k_margin);
    paragraph(painter, room,
              QStringLiteral("%1 of %2 · %3")
                  .arg(number + 1)
                  .arg(show.script.pages.size())
                  .arg(toQString(show.script.title)),
              pageFont(13.0), Theme::Token::Muted);
    paragraph(painter, room.adjusted(0.0, 20.0, 0.0, 0.0), toQString(page.title), pageFont(24.0, true),
              Theme::Token::Text);
    const double split = room.left() + room.width() * 0.64;
    frames(painter, {room.left(), room.top() + 70.0, split - room.left() - 24.0, room.height() - 100.0}, show,
           page);
    QRectF side(split, room.top() + 70.0, room.right() - split, room.height() - 100.0);
    const Formula formula(toQString(page.formula));
    const QFont formula_font = pageFont(19.0);
    const double formula_height = formula.size(formula_font, side.width()).height();
    formula.paint(painter, side, formula_font,
                  {Theme::color(Theme::Token::Text, false), Theme::color(Theme::Token::Accent, false), {}});
    side.setTop(side.top() + formula_height + 14.0);
    const auto add = [&](const std::string& text, const QFont& font, Theme::Token token) {
        side.setTop(side.top() + paragraph(painter, side, toQString(text), font, token) + 14.0);
    };
    add(page.text, pageFont(15.0), Theme::Token::Text);
    add(page.question, pageFont(15.0, true), Theme::Token::Text);
    add(page.answer, pageFont(15.0), Theme::Token::Muted);
    paragraph(painter, {room.left(), room.bottom() - 18.0, room.width(), 20.0},
              QStringLiteral("%1 · Rankscope " RANKSCOPE_VERSION).arg(toQString(show.lesson.layer)),
              pageFont(11.0), Theme::Token::Muted);
    painter.restore();
}

Status exportTourPdf(const TourShow& show, const QString& file)
{
    QByteArray bytes;
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    QPdfWriter pdf(&buffer);
    pdf.setResolution(96);
    pdf.setPageSize(QPageSize(k_page * 72.0 / 96.0, QPageSize::Point, {}, QPageSize::ExactMatch));
    pdf.setPageMargins(QMarginsF());
    pdf.setTitle(toQString(show.script.title));
    pdf.setCreator(QStringLiteral("Rankscope " RANKSCOPE_VERSION));
    QPainter painter;
    if (!painter.begin(&pdf))
        return internal_error("The PDF could not be drawn", toStd(file));
    for (int page = 0; page < static_cast<int>(show.script.pages.size()); ++page) {
        if (page > 0)
            pdf.newPage();
        paintTourPage(painter, QSizeF(pdf.width(), pdf.height()), show, page);
    }
    painter.end();
    return write_text_file(toPath(file),
                           std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())), true);
}

Status exportTourPngs(const TourShow& show, const QString& folder)
{
    if (!QDir().mkpath(folder))
        return io_error("The folder cannot be made", toStd(folder), "Choose another one");
    for (int page = 0; page < static_cast<int>(show.script.pages.size()); ++page) {
        QImage image((k_page * k_png_scale).toSize(), QImage::Format_RGB32);
        // 96 dots an inch whatever the screen is, so that texts keep their place.
        image.setDotsPerMeterX(3780);
        image.setDotsPerMeterY(3780);
        QPainter painter(&image);
        paintTourPage(painter, image.size(), show, page);
        painter.end();
        QByteArray bytes;
        QBuffer buffer(&bytes);
        buffer.open(QIODevice::WriteOnly);
        image.save(&buffer, "PNG");
        const QString file =
            QStringLiteral("%1/page-%2.png").arg(folder).arg(page + 1, 2, 10, QLatin1Char('0'));
        if (const Status written = write_text_file(
                toPath(file), std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())),
                true);
            !written)
            return written;
    }
    return {};
}

} // namespace rankscope
