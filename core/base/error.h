// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string>
#include <string_view>

namespace rankscope {

/// What went wrong, in the classes that the command line's exit statuses distinguish.
enum class ErrorKind {
    Internal,  ///< our own bug, or a library failed in a way it never should: exit status 1
    Usage,     ///< the request itself makes no sense (unknown option, rank beyond the matrix): 2
    BadInput,  ///< a file or its content cannot be used: 3
    Io,        ///< a path cannot be read or written (permissions, not found): 3
    NoSpace,   ///< not enough memory or disk: 4
    NoDevice,  ///< no such compute device, or it was lost: 5
    Cancelled, ///< stopped on request; finished work is kept: 130
};

/// A failure as a value, addressed to a person: what happened, where, what to do.
struct Error {
    ErrorKind kind = ErrorKind::Internal;
    std::string message; ///< a sentence without the final full stop: what is wrong and what was expected
    std::string where;   ///< file, tensor, line or stage; may be empty
    std::string remedy;  ///< a sentence saying what to do; may be empty

    /// The same error with `place` put in front of where it happened ("model.safetensors: tensor x").
    Error in(std::string_view place) const;
    /// Everything as one line: "where: message. Remedy."
    std::string sentence() const;
};

/// Exit status of the command line for an error (shared with the workbench's process).
int exit_status(ErrorKind kind);

Error bad_input(std::string message, std::string where = {}, std::string remedy = {});
Error usage_error(std::string message, std::string where = {}, std::string remedy = {});
Error io_error(std::string message, std::string where = {}, std::string remedy = {});
Error internal_error(std::string message, std::string where = {}, std::string remedy = {});
/// The sentence for the current errno of a failed file operation on `path`; a full disk becomes NoSpace.
Error errno_error(std::string_view operation, std::string_view path);

} // namespace rankscope
