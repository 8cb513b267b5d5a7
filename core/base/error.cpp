// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/error.h"

#include <cerrno>
#include <cstring>

namespace rankscope {

Error Error::in(std::string_view place) const
{
    Error copy = *this;
    copy.where = where.empty() ? std::string(place) : std::string(place) + ": " + where;
    return copy;
}

std::string Error::sentence() const
{
    std::string text = where.empty() ? message : where + ": " + message;
    if (!text.empty() && text.back() != '.' && text.back() != '?')
        text += '.';
    if (!remedy.empty()) {
        text += ' ' + remedy;
        if (text.back() != '.')
            text += '.';
    }
    return text;
}

int exit_status(ErrorKind kind)
{
    switch (kind) {
    case ErrorKind::Internal:
        return 1;
    case ErrorKind::Usage:
        return 2;
    case ErrorKind::BadInput:
    case ErrorKind::Io:
        return 3;
    case ErrorKind::NoSpace:
        return 4;
    case ErrorKind::NoDevice:
        return 5;
    case ErrorKind::Cancelled:
        return 130;
    }
    return 1;
}

Error bad_input(std::string message, std::string where, std::string remedy)
{
    return {ErrorKind::BadInput, std::move(message), std::move(where), std::move(remedy)};
}

Error usage_error(std::string message, std::string where, std::string remedy)
{
    return {ErrorKind::Usage, std::move(message), std::move(where), std::move(remedy)};
}

Error io_error(std::string message, std::string where, std::string remedy)
{
    return {ErrorKind::Io, std::move(message), std::move(where), std::move(remedy)};
}

Error internal_error(std::string message, std::string where, std::string remedy)
{
    return {ErrorKind::Internal, std::move(message), std::move(where), std::move(remedy)};
}

Error errno_error(std::string_view operation, std::string_view path)
{
    const int code = errno;
    const std::string reason = std::strerror(code);
    if (code == ENOSPC || code == EDQUOT)
        return {ErrorKind::NoSpace, "the disk is full: could not " + std::string(operation),
                std::string(path), "Free some space or choose another drive; nothing was left half-written."};
    if (code == EFBIG)
        return {ErrorKind::NoSpace,
                "the file would be larger than the drive or a limit allows: could not " + std::string(operation),
                std::string(path), "Choose another drive or raise the limit; nothing was left half-written."};
    if (code == ENOMEM)
        return {ErrorKind::NoSpace, "not enough memory to " + std::string(operation), std::string(path),
                "Close other programs or lower --memory."};
    std::string remedy;
    if (code == EACCES || code == EPERM || code == EROFS)
        remedy = "Choose a folder that you may write to, or change its permissions.";
    else if (code == ENOENT)
        remedy = "Check the path.";
    return {ErrorKind::Io, "could not " + std::string(operation) + " (" + reason + ")", std::string(path),
            remedy};
}

} // namespace rankscope
