// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <QString>

namespace rankscope {

/// Where the sample model lies: beside the installed program, in $RANKSCOPE_SAMPLE, or in the source tree
/// that the program was built from. Looks at the disk: for jobs. Errors: Io.
Result<QString> sampleFolder();

/// The built-in text of that name, or the file that was chosen. Looks at the disk: for jobs. Errors: Io.
Result<QString> textFile(const QString& chosen, const char* built_in);

/// Where calibrations and runs go when --workdir names no other place: the user's cache.
QString defaultWorkRoot();
/// The folder of one checkpoint below `root`, by the hash of its headers.
QString workFolder(const QString& root, const QString& checkpoint_hash);

/// SHA-256 of a file as hexadecimal text. Reads the disk: for jobs. Errors: Io.
Result<QString> fileHash(const QString& file);

/// A folder's size on disk in bytes, and the free bytes of the drive that `folder` (or its nearest existing
/// parent) is on.
quint64 folderBytes(const QString& folder);
quint64 freeBytes(const QString& folder);

} // namespace rankscope
