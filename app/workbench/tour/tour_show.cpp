// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/tour_show.h"

#include "app/workbench/text.h"

#include <QFile>

namespace rankscope {

Result<QVector<TourScript>> tourScripts()
{
    QVector<TourScript> scripts;
    for (const LessonInfo& lesson : lessons()) {
        QFile file(QStringLiteral(":/tours/%1.json").arg(QString::fromLatin1(lesson.id)));
        if (!file.open(QIODevice::ReadOnly))
            return internal_error("the script of this tour is missing from the program", lesson.id);
        const QByteArray text = file.readAll();
        const auto json =
            Json::parse(std::string_view(text.constData(), static_cast<std::size_t>(text.size())));
        if (!json)
            return json.error().in(lesson.id);
        auto script = tour_script(*json);
        if (!script)
            return script.error();
        scripts.append(std::move(*script));
    }
    return scripts;
}

QStringList tourNames()
{
    QStringList names;
    for (const LessonInfo& lesson : lessons())
        names << QString::fromLatin1(lesson.id);
    return names;
}

Result<TourPointer> prepareTour(const TourRequest& request, Backend& backend, JobMonitor& monitor)
{
    const auto map = channel_map(*request.calibration, *request.model, monitor);
    if (!map)
        return map.error();
    const LinearLayer* layer = request.model->find_linear(toStd(request.layer));
    if (!layer) {
        const auto found = most_telling_layer(*map, *request.model);
        if (!found)
            return found.error();
        layer = *found;
    }
    if (!layer)
        return bad_input("This checkpoint has no linear layer");
    auto input = lesson_input(*request.calibration, *request.model, *layer);
    if (!input)
        return input.error();
    input->map = &*map;
    input->outliers = request.outliers;
    const LessonInfo* lesson = find_lesson(request.script.id);
    if (!lesson)
        return usage_error("There is no tour of that name", request.script.id);
    auto taught = lesson->teach(*input, backend, monitor);
    if (!taught)
        return taught.error();
    auto script = tour_on(request.script, *taught);
    if (!script)
        return script.error();
    return TourPointer(std::make_shared<TourShow>(TourShow{std::move(*taught), std::move(*script)}));
}

} // namespace rankscope
