// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>

namespace rankscope {
namespace {

const Json& null_json()
{
    static const Json null;
    return null;
}

/// Builds our value from nlohmann's event parser, which leaves duplicate keys and depth to us.
class Builder : public nlohmann::json_sax<nlohmann::json> {
public:
    Builder(Json& root, const JsonLimits& limits) : root_(root), limits_(limits) {}

    bool null() override { return add(Json()); }
    bool boolean(bool value) override { return add(Json(value)); }
    bool number_integer(number_integer_t value) override { return add(Json(std::int64_t{value})); }
    bool number_unsigned(number_unsigned_t value) override { return add(Json(std::uint64_t{value})); }
    bool number_float(number_float_t value, const string_t&) override { return add(Json(value)); }
    bool string(string_t& value) override { return add(Json(std::move(value))); }
    bool binary(binary_t&) override { return fail("binary data is not JSON"); }
    bool start_object(std::size_t) override { return open(Json(Json::Object{})); }
    bool end_object() override { return close(); }
    bool start_array(std::size_t) override { return open(Json(Json::Array{})); }
    bool end_array() override { return close(); }
    bool key(string_t& name) override
    {
        if (stack_.back()->find(name))
            return fail("the key \"" + name + "\" appears twice in one object");
        key_ = std::move(name);
        return true;
    }
    bool parse_error(std::size_t position, const std::string&,
                     const nlohmann::detail::exception& problem) override
    {
        std::string text = problem.what();
        if (const auto colon = text.find(": "); colon != std::string::npos)
            text = text.substr(colon + 2);
        return fail("not valid JSON at byte " + std::to_string(position) + " (" + text + ")");
    }

    std::string message;

private:
    bool fail(std::string text)
    {
        message = std::move(text);
        return false;
    }
    Json* place(Json value)
    {
        if (stack_.empty()) {
            root_ = std::move(value);
            return &root_;
        }
        if (auto* array = stack_.back()->array_if()) {
            array->push_back(std::move(value));
            return &array->back();
        }
        return &stack_.back()->set(key_, std::move(value));
    }
    bool add(Json value)
    {
        if (++values_ > limits_.max_values)
            return fail("more than " + std::to_string(limits_.max_values) + " values");
        place(std::move(value));
        return true;
    }
    bool open(Json value)
    {
        if (stack_.size() >= limits_.max_depth)
            return fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
        if (++values_ > limits_.max_values)
            return fail("more than " + std::to_string(limits_.max_values) + " values");
        stack_.push_back(place(std::move(value)));
        return true;
    }
    bool close()
    {
        stack_.pop_back();
        return true;
    }

    Json& root_;
    JsonLimits limits_;
    std::vector<Json*> stack_; // pointers stay valid: a container grows only while it is on top of the stack
    std::string key_;
    std::size_t values_ = 0;
};

void write_string(std::string& out, const std::string& text)
{
    // nlohmann knows the escapes; invalid UTF-8 is replaced rather than thrown at the user.
    out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void write_number(std::string& out, double value)
{
    if (!std::isfinite(value)) {
        out += "null";
        return;
    }
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
    out += text;
    if (text.find_first_of(".e") == std::string_view::npos)
        out += ".0";
}

void write(std::string& out, const Json& value, int indent, int level)
{
    const auto new_line = [&](int depth) {
        if (indent >= 0) {
            out += '\n';
            out.append(static_cast<std::size_t>(indent * depth), ' ');
        }
    };
    if (value.is_null()) {
        out += "null";
    } else if (value.is_bool()) {
        out += value.boolean() ? "true" : "false";
    } else if (value.is_integer()) {
        out += std::to_string(value.integer());
    } else if (value.is_number()) {
        write_number(out, value.number());
    } else if (const auto* text = value.string_if()) {
        write_string(out, *text);
    } else if (const auto* array = value.array_if()) {
        out += '[';
        for (std::size_t i = 0; i < array->size(); ++i) {
            if (i)
                out += ',';
            new_line(level + 1);
            write(out, (*array)[i], indent, level + 1);
        }
        if (!array->empty())
            new_line(level);
        out += ']';
    } else if (const auto* object = value.object_if()) {
        out += '{';
        bool first = true;
        for (const auto& [key, member] : *object) {
            if (!first)
                out += ',';
            first = false;
            new_line(level + 1);
            write_string(out, key);
            out += indent >= 0 ? ": " : ":";
            write(out, member, indent, level + 1);
        }
        if (!object->empty())
            new_line(level);
        out += '}';
    }
}

} // namespace

Json::Json(std::uint64_t value)
{
    if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        value_ = static_cast<std::int64_t>(value);
    else
        value_ = static_cast<double>(value);
}

bool Json::boolean(bool fallback) const
{
    const auto* value = std::get_if<bool>(&value_);
    return value ? *value : fallback;
}

std::int64_t Json::integer(std::int64_t fallback) const
{
    if (const auto* value = std::get_if<std::int64_t>(&value_))
        return *value;
    if (const auto* value = std::get_if<double>(&value_);
        value && std::nearbyint(*value) == *value && std::abs(*value) < 9e15)
        return static_cast<std::int64_t>(*value);
    return fallback;
}

double Json::number(double fallback) const
{
    if (const auto* value = std::get_if<std::int64_t>(&value_))
        return static_cast<double>(*value);
    const auto* value = std::get_if<double>(&value_);
    return value ? *value : fallback;
}

std::string Json::string(std::string_view fallback) const
{
    const auto* value = std::get_if<std::string>(&value_);
    return value ? *value : std::string(fallback);
}

const Json* Json::find(std::string_view key) const
{
    const auto* object = object_if();
    if (!object)
        return nullptr;
    const auto found = object->find(key);
    return found == object->end() ? nullptr : &found->second;
}

const Json& Json::operator[](std::string_view key) const
{
    const Json* member = find(key);
    return member ? *member : null_json();
}

Json& Json::set(std::string_view key, Json value)
{
    if (!is_object())
        value_ = Object{};
    return std::get<Object>(value_).insert_or_assign(std::string(key), std::move(value)).first->second;
}

void Json::push_back(Json value)
{
    if (!is_array())
        value_ = Array{};
    std::get<Array>(value_).push_back(std::move(value));
}

Result<Json> Json::parse(std::string_view text, const JsonLimits& limits)
{
    if (text.size() > limits.max_bytes)
        return bad_input("the JSON text has " + std::to_string(text.size()) + " bytes, more than the "
                         + std::to_string(limits.max_bytes) + " that are accepted");
    Json root;
    Builder builder(root, limits);
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder))
        return bad_input(builder.message.empty() ? "not valid JSON" : builder.message);
    return root;
}

Result<Json> Json::read(const std::filesystem::path& file, const JsonLimits& limits)
{
    auto text = read_text_file(file, limits.max_bytes);
    if (!text)
        return text.error();
    auto value = parse(*text, limits);
    if (!value)
        return value.error().in(file.string());
    return value;
}

std::string Json::dump(int indent) const
{
    std::string out;
    write(out, *this, indent, 0);
    return out;
}

Result<std::string> read_text_file(const std::filesystem::path& file, std::size_t max_bytes)
{
    std::error_code problem;
    if (std::filesystem::is_directory(file, problem))
        return io_error("this is a folder, a file was expected", file.string());
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return errno_error("open the file", file.string());
    std::string text;
    char block[1 << 16];
    while (stream.read(block, sizeof block) || stream.gcount() > 0) {
        text.append(block, static_cast<std::size_t>(stream.gcount()));
        if (text.size() > max_bytes)
            return bad_input("the file has more than " + std::to_string(max_bytes)
                                 + " bytes, which is too large here",
                             file.string());
    }
    if (stream.bad())
        return errno_error("read the file", file.string());
    return text;
}

} // namespace rankscope
