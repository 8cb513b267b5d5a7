// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>

#include <filesystem>
#include <string>
#include <string_view>

namespace rankscope {

/// Core speaks UTF-8 std::string, Qt speaks QString: the only place where one becomes the other.
inline QString toQString(std::string_view text)
{
    return QString::fromUtf8(text.data(), static_cast<qsizetype>(text.size()));
}
inline std::string toStd(const QString& text)
{
    const QByteArray bytes = text.toUtf8();
    return {bytes.constData(), static_cast<std::size_t>(bytes.size())};
}
inline std::filesystem::path toPath(const QString& text) { return {toStd(text)}; }
inline QString pathText(const std::filesystem::path& path) { return toQString(path.native()); }

} // namespace rankscope
