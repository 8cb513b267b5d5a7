// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rankscope {

/// What a parser accepts from a file that nobody vouches for.
struct JsonLimits {
    std::size_t max_bytes = std::size_t{256} << 20;
    std::size_t max_depth = 64;
    std::size_t max_values = 20'000'000; ///< a list of zeros takes thirty times its text in memory
};

/// A JSON value. Objects are sorted by key, so that the same content writes the same bytes.
class Json {
public:
    using Array = std::vector<Json>;
    using Object = std::map<std::string, Json, std::less<>>;

    Json() = default;
    Json(std::nullptr_t) {}
    Json(bool value) : value_(value) {}
    Json(int value) : value_(std::int64_t{value}) {}
    Json(std::int64_t value) : value_(value) {}
    Json(std::uint64_t value); ///< beyond int64 it is kept as a double
    Json(double value) : value_(value) {}
    Json(const char* value) : value_(std::string(value)) {}
    Json(std::string value) : value_(std::move(value)) {}
    Json(std::string_view value) : value_(std::string(value)) {}
    Json(Array value) : value_(std::move(value)) {}
    Json(Object value) : value_(std::move(value)) {}

    bool is_null() const { return value_.index() == 0; }
    bool is_bool() const { return value_.index() == 1; }
    bool is_integer() const { return value_.index() == 2; }
    bool is_number() const { return value_.index() == 2 || value_.index() == 3; }
    bool is_string() const { return value_.index() == 4; }
    bool is_array() const { return value_.index() == 5; }
    bool is_object() const { return value_.index() == 6; }

    /// Typed access with a fallback for another type; never throws.
    bool boolean(bool fallback = false) const;
    std::int64_t integer(std::int64_t fallback = 0) const; ///< a double without fraction counts as an integer
    double number(double fallback = 0.0) const;
    std::string string(std::string_view fallback = {}) const;
    const std::string* string_if() const { return std::get_if<std::string>(&value_); }
    const Array* array_if() const { return std::get_if<Array>(&value_); }
    Array* array_if() { return std::get_if<Array>(&value_); }
    const Object* object_if() const { return std::get_if<Object>(&value_); }
    Object* object_if() { return std::get_if<Object>(&value_); }

    /// Member of an object, or null if this is no object or has no such key.
    const Json* find(std::string_view key) const;
    /// Member of an object, or a null value.
    const Json& operator[](std::string_view key) const;
    /// Member of an object, created if need be; turns a null into an object.
    Json& set(std::string_view key, Json value);
    /// Appends to an array; turns a null into an array.
    void push_back(Json value);

    bool operator==(const Json&) const = default;

    /// Strict parsing: UTF-8, one document, no duplicate keys, no comments, bounded depth and size.
    /// Errors: BadInput with the byte offset.
    static Result<Json> parse(std::string_view text, const JsonLimits& limits = {});
    /// Reads and parses a whole file. Errors: Io, BadInput (naming the file).
    static Result<Json> read(const std::filesystem::path& file, const JsonLimits& limits = {});

    /// indent < 0: one line. Doubles are written with the shortest text that reads back the same; NaN as
    /// null.
    std::string dump(int indent = -1) const;

private:
    std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

/// A whole file as bytes. Errors: Io; NoSpace when larger than `max_bytes`.
Result<std::string> read_text_file(const std::filesystem::path& file,
                                   std::size_t max_bytes = std::size_t{1} << 31);

} // namespace rankscope
