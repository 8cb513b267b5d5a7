// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/settings.h"

#include <QCoreApplication>
#include <QSettings>

namespace rankscope::settings {

namespace {
const QLatin1String k_recent("recent_files");
const QLatin1String k_theme("theme");
const QLatin1String k_motion("reduced_motion");
const QLatin1String k_hints("answered_hints");
const QLatin1String k_layout("layout");
const QLatin1String k_geometry("geometry");
} // namespace

void nameProgram()
{
    QCoreApplication::setApplicationName(QStringLiteral("rankscope"));
    QCoreApplication::setApplicationVersion(QStringLiteral(RANKSCOPE_VERSION));
    QSettings::setDefaultFormat(QSettings::IniFormat);
    QCoreApplication::setOrganizationName(QStringLiteral("rankscope"));
}

QStringList recentFiles() { return QSettings().value(k_recent).toStringList().mid(0, k_most_recent); }

void addRecentFile(const QString& path)
{
    QStringList files = recentFiles();
    files.removeAll(path);
    files.prepend(path);
    QSettings().setValue(k_recent, files.mid(0, k_most_recent));
}

void removeRecentFile(const QString& path)
{
    QStringList files = recentFiles();
    files.removeAll(path);
    QSettings().setValue(k_recent, files);
}

Theme::Choice themeChoice()
{
    const QString name = QSettings().value(k_theme).toString();
    if (name == QLatin1String("light"))
        return Theme::Choice::Light;
    return name == QLatin1String("dark") ? Theme::Choice::Dark : Theme::Choice::System;
}

void setThemeChoice(Theme::Choice choice)
{
    QSettings().setValue(k_theme, choice == Theme::Choice::Light  ? QStringLiteral("light")
                                  : choice == Theme::Choice::Dark ? QStringLiteral("dark")
                                                                  : QStringLiteral("system"));
}

bool reducedMotion() { return QSettings().value(k_motion, false).toBool(); }
void setReducedMotion(bool reduced) { QSettings().setValue(k_motion, reduced); }

bool hintAnswered(const QString& id) { return QSettings().value(k_hints).toStringList().contains(id); }

void setHintAnswered(const QString& id)
{
    QStringList answered = QSettings().value(k_hints).toStringList();
    if (!answered.contains(id))
        QSettings().setValue(k_hints, answered << id);
}

QByteArray layout() { return QSettings().value(k_layout).toByteArray(); }
void setLayout(const QByteArray& state) { QSettings().setValue(k_layout, state); }
QByteArray geometry() { return QSettings().value(k_geometry).toByteArray(); }
void setGeometry(const QByteArray& geometry) { QSettings().setValue(k_geometry, geometry); }

} // namespace rankscope::settings
