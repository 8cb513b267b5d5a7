// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/theme.h"

#include <QByteArray>
#include <QString>
#include <QStringList>

namespace rankscope::settings {

inline constexpr int k_most_recent = 12;

/// Names the program for QSettings and QStandardPaths; once, before anything is read.
void nameProgram();

QStringList recentFiles(); ///< newest first
void addRecentFile(const QString& path);
void removeRecentFile(const QString& path);

Theme::Choice themeChoice();
void setThemeChoice(Theme::Choice choice);

bool reducedMotion(); ///< asked for in the program itself
void setReducedMotion(bool reduced);

bool hintAnswered(const QString& id);
void setHintAnswered(const QString& id);

QByteArray layout(); ///< of the main window; empty: the default one
void setLayout(const QByteArray& state);
QByteArray geometry();
void setGeometry(const QByteArray& geometry);

} // namespace rankscope::settings
