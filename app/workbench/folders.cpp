// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/folders.h"

#include "app/workbench/text.h"

#include <QCoreApplication>
#include <QCryptographicHash>
#include <QDir>
#include <QDirIterator>
#include <QFile>
#include <QStandardPaths>
#include <QStorageInfo>

#include <algorithm>

namespace rankscope {

Result<QString> sampleFolder()
{
    const QStringList places = {
        qEnvironmentVariable("RANKSCOPE_SAMPLE"),
        QCoreApplication::applicationDirPath() + QStringLiteral("/../share/rankscope/sample"),
        QStringLiteral(RANKSCOPE_SAMPLE_DIR),
    };
    for (const QString& place : places) {
        if (!place.isEmpty() && QFile::exists(place + QStringLiteral("/model.safetensors")))
            return QDir::cleanPath(place);
    }
    return io_error("The sample model is not installed", toStd(places.at(1)),
                    "Install it again, or set RANKSCOPE_SAMPLE to the folder that holds it");
}

Result<QString> textFile(const QString& chosen, const char* built_in)
{
    if (!chosen.isEmpty())
        return chosen;
    const auto sample = sampleFolder();
    if (!sample)
        return sample.error();
    return *sample + QLatin1Char('/') + QString::fromLatin1(built_in);
}

QString defaultWorkRoot() { return QStandardPaths::writableLocation(QStandardPaths::CacheLocation); }

QString workFolder(const QString& root, const QString& checkpoint_hash)
{
    return QDir::cleanPath(root + QLatin1Char('/') + checkpoint_hash.left(16));
}

Result<QString> fileHash(const QString& file)
{
    QFile source(file);
    if (!source.open(QIODevice::ReadOnly))
        return io_error("The file cannot be read: " + toStd(source.errorString()), toStd(file),
                        "Choose another file");
    QCryptographicHash hash(QCryptographicHash::Sha256);
    if (!hash.addData(&source))
        return io_error("The file cannot be read to its end: " + toStd(source.errorString()), toStd(file));
    return QString::fromLatin1(hash.result().toHex());
}

quint64 folderBytes(const QString& folder)
{
    quint64 bytes = 0;
    for (QDirIterator files(folder, QDir::Files | QDir::Hidden, QDirIterator::Subdirectories);
         files.hasNext();) {
        files.next();
        bytes += static_cast<quint64>(files.fileInfo().size());
    }
    return bytes;
}

quint64 freeBytes(const QString& folder)
{
    QDir place(folder);
    while (!place.exists() && !place.isRoot())
        place.setPath(QFileInfo(place.absolutePath()).path());
    return static_cast<quint64>(std::max<qint64>(0, QStorageInfo(place).bytesAvailable()));
}

} // namespace rankscope
