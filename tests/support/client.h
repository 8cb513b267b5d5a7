// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"

#include <QStringList>

namespace rankscope::test {

/// $RANKSCOPE_CLIENT_PYTHON: a Python with torch, transformers, safetensors and what else a test names; empty
/// where it is not set.
QString client_python();
inline constexpr char k_no_client[] =
    "set RANKSCOPE_CLIENT_PYTHON to a Python with torch, transformers, peft and safetensors";

/// What a child process says on its standard output, as JSON. Errors: why not, with the end of its standard
/// error.
Result<Json> json_from(const QString& program, const QStringList& arguments);

} // namespace rankscope::test
