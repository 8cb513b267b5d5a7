// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/error.h"

#include <cassert>
#include <type_traits>
#include <utility>
#include <variant>

namespace rankscope {

/// Either a value or an Error. Expected failures travel this way; exceptions do not cross a job's border.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : content_(std::in_place_index<1>, std::move(error)) {}
    /// A value that converts to T (for example unique_ptr<Derived> to unique_ptr<Base>).
    template <class U>
    requires(
        std::is_convertible_v<
            U&&,
            T> && !std::is_same_v<std::remove_cvref_t<U>, T> && !std::is_same_v<std::remove_cvref_t<U>, Error> && !std::is_same_v<std::remove_cvref_t<U>, Result>)
        Result(U&& value)
        : content_(std::in_place_index<0>, T(std::forward<U>(value)))
    {}

    bool has_value() const { return content_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    T& value() & { return (assert(has_value()), *std::get_if<0>(&content_)); }
    const T& value() const& { return (assert(has_value()), *std::get_if<0>(&content_)); }
    T&& value() && { return (assert(has_value()), std::move(*std::get_if<0>(&content_))); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    const Error& error() const { return (assert(!has_value()), *std::get_if<1>(&content_)); }

private:
    std::variant<T, Error> content_;
};

/// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), failed_(true) {}

    bool has_value() const { return !failed_; }
    explicit operator bool() const { return !failed_; }
    const Error& error() const { return (assert(failed_), error_); }

private:
    Error error_;
    bool failed_ = false;
};

using Status = Result<void>;

} // namespace rankscope
