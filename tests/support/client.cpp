// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/client.h"

#include <QProcess>

namespace rankscope::test {

QString client_python() { return qEnvironmentVariable("RANKSCOPE_CLIENT_PYTHON"); }

Result<Json> json_from(const QString& program, const QStringList& arguments)
{
    constexpr int k_limit_ms = 500000;
    QProcess process;
    process.start(program, arguments);
    const bool ended = process.waitForFinished(k_limit_ms);
    const std::string said = process.readAllStandardError().right(4000).toStdString();
    if (!ended)
        return internal_error("it did not end: " + process.errorString().toStdString() + "\n" + said,
                              program.toStdString());
    auto json = Json::parse(process.readAllStandardOutput().toStdString());
    if (!json || process.exitStatus() != QProcess::NormalExit)
        return internal_error("it ended with status " + std::to_string(process.exitCode())
                                  + " and no answer:\n" + said,
                              program.toStdString());
    return json;
}

} // namespace rankscope::test
