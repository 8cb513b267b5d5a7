// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/command.h"

#include "tests/support/test_paths.h"

#include <QDebug>
#include <QJsonDocument>
#include <QProcess>

#include <sys/resource.h>

#include <cstdlib>

namespace rankscope::test {

std::filesystem::path cli_program()
{
    const char* folder = std::getenv("RANKSCOPE_BIN");
    return (folder ? std::filesystem::path(folder) : program_folder()) / "rankscope-cli";
}

CommandResult run_cli(const QStringList& arguments, std::uint64_t file_size_limit)
{
    constexpr int k_timeout_ms = 300'000; // a loaded machine is slow, but no command here takes long
    QProcess process;
    if (file_size_limit > 0) {
        process.setChildProcessModifier([file_size_limit] {
            const rlimit limit{file_size_limit, file_size_limit};
            setrlimit(RLIMIT_FSIZE, &limit);
        });
    }
    process.start(QString::fromStdString(cli_program().string()), arguments);
    CommandResult result;
    if (process.waitForFinished(k_timeout_ms) && process.exitStatus() == QProcess::NormalExit)
        result.status = process.exitCode();
    result.output = process.readAllStandardOutput();
    result.errors = process.readAllStandardError();
    return result;
}

QJsonObject document(const QStringList& arguments)
{
    const CommandResult result = run_cli(arguments + QStringList{"--json"});
    QJsonParseError problem;
    const QJsonDocument json =
        QJsonDocument::fromJson(result.output, &problem); // refuses anything after the document
    if (result.status != 0 || problem.error != QJsonParseError::NoError || !json.isObject()) {
        qWarning() << arguments << result.status << result.output.left(500) << result.errors
                   << problem.errorString();
        return {};
    }
    return json.object();
}

} // namespace rankscope::test
