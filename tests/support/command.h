// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QByteArray>
#include <QJsonObject>
#include <QStringList>

#include <cstdint>
#include <filesystem>

namespace rankscope::test {

/// What a program left behind.
struct CommandResult {
    int status = -1; ///< exit status; −1 when it crashed or did not start
    QByteArray output;
    QByteArray errors;
};

/// Runs rankscope-cli from $RANKSCOPE_BIN (or the build's bin folder). `file_size_limit` > 0 keeps the
/// program from writing larger files, as a full drive would.
CommandResult run_cli(const QStringList& arguments, std::uint64_t file_size_limit = 0);
/// The one JSON document that the command prints with --json; empty, after a warning, unless it succeeds.
QJsonObject document(const QStringList& arguments);
/// Path of rankscope-cli.
std::filesystem::path cli_program();

} // namespace rankscope::test
