// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QtTest>

/// Fails with the error's sentence when a Result or Status holds one.
#define VERIFY_OK(expression)                                                                                \
    do {                                                                                                     \
        const auto& outcome_ = (expression);                                                                 \
        QVERIFY2(outcome_, outcome_ ? "" : outcome_.error().sentence().c_str());                             \
    } while (false)
