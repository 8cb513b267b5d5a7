// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/run_index.h"

#include "core/methods/trace_json.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <memory>
#include <utility>

namespace rankscope {
namespace {

constexpr int k_schema_version = 1;
constexpr int k_busy_timeout_ms = 5000;

constexpr char k_schema[] =
    "CREATE TABLE layers(layer TEXT PRIMARY KEY, method TEXT NOT NULL, parameters TEXT NOT NULL,"
    " seconds REAL, bits_per_weight REAL, quantization_scale REAL, relative_error REAL,"
    " relative_activation_error REAL, ratio_qx REAL, ratio_lrx REAL, backend TEXT NOT NULL,"
    " trace TEXT NOT NULL) WITHOUT ROWID;"
    "PRAGMA user_version = 1;";
constexpr char k_insert[] = "INSERT OR REPLACE INTO layers VALUES(?,?,?,?,?,?,?,?,?,?,?,?)";
constexpr char k_select[] = "SELECT layer, method, parameters, seconds, bits_per_weight, quantization_scale,"
                            " relative_error, relative_activation_error, ratio_qx, ratio_lrx, backend, trace"
                            " FROM layers ORDER BY layer";

struct StatementDeleter {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, StatementDeleter>;

Statement prepare(sqlite3* database, const char* sql)
{
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(database, sql, -1, &statement, nullptr);
    return Statement(statement);
}

void bind_text(sqlite3_stmt* statement, int column, std::string_view text)
{
    // The null destructor is SQLITE_STATIC: every text outlives the step.
    sqlite3_bind_text(statement, column, text.data(), static_cast<int>(text.size()), nullptr);
}

std::string column_text(sqlite3_stmt* statement, int column)
{
    const unsigned char* text = sqlite3_column_text(statement, column);
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, column));
    return text ? std::string(text, text + size) : std::string();
}

std::vector<IterationReport> trace_from_json(const Json& json)
{
    std::vector<IterationReport> trace;
    if (const Json::Array* list = json.array_if()) {
        for (const Json& entry : *list) {
            IterationReport report;
            report.step = static_cast<int>(entry["step"].integer());
            report.stage = entry["stage"].string();
            report.relative_activation_error = entry["relative_activation_error"].number();
            report.quantization_scale = entry["quantization_scale"].number();
            report.ratio_qx = entry["ratio_qx"].number();
            report.ratio_lrx = entry["ratio_lrx"].number();
            trace.push_back(std::move(report));
        }
    }
    return trace;
}

Result<LayerResult> row_of(sqlite3_stmt* statement)
{
    LayerResult result;
    result.layer = column_text(statement, 0);
    result.method = column_text(statement, 1);
    auto parameters = Json::parse(column_text(statement, 2));
    auto trace = Json::parse(column_text(statement, 11));
    if (!parameters || !trace)
        return (parameters ? trace.error() : parameters.error()).in(result.layer);
    result.parameters = std::move(*parameters);
    result.seconds = sqlite3_column_double(statement, 3);
    result.bits_per_weight = sqlite3_column_double(statement, 4);
    result.quantization_scale = sqlite3_column_double(statement, 5);
    result.quality.relative_error = sqlite3_column_double(statement, 6);
    result.quality.relative_activation_error = sqlite3_column_double(statement, 7);
    result.quality.ratio_qx = sqlite3_column_double(statement, 8);
    result.quality.ratio_lrx = sqlite3_column_double(statement, 9);
    result.backend = column_text(statement, 10);
    result.trace = trace_from_json(*trace);
    return result;
}

} // namespace

RunIndex::RunIndex(RunIndex&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)), file_(std::move(other.file_))
{}

RunIndex& RunIndex::operator=(RunIndex&& other) noexcept
{
    if (this != &other) {
        sqlite3_close(database_);
        database_ = std::exchange(other.database_, nullptr);
        file_ = std::move(other.file_);
    }
    return *this;
}

RunIndex::~RunIndex() { sqlite3_close(database_); }

Error RunIndex::failure(std::string_view operation) const
{
    const std::string message = fmt::format("could not {} ({})", operation, sqlite3_errmsg(database_));
    switch (sqlite3_errcode(database_) & 0xff) {
    case SQLITE_FULL:
        return {ErrorKind::NoSpace, "the disk is full: " + message, file_.string(),
                "Free some space, then go on with --resume"};
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:
        return bad_input(message, file_.string(),
                         "The run's index is damaged: start the run again with --force");
    default:
        return io_error(message, file_.string());
    }
}

Status RunIndex::execute(const char* sql) const
{
    if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
        return failure("use the run's index");
    return {};
}

Result<RunIndex> RunIndex::create(const std::filesystem::path& file)
{
    sqlite3* database = nullptr;
    const int code =
        sqlite3_open_v2(file.c_str(), &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    RunIndex index(database, file);
    if (code != SQLITE_OK)
        return index.failure("create the run's index");
    if (auto made = index.execute(k_schema); !made)
        return made.error();
    return index;
}

Result<RunIndex> RunIndex::open(const std::filesystem::path& file, bool writable)
{
    // A reader too opens for writing where it may: a journal that a killed run left behind must be rolled
    // back first.
    sqlite3* database = nullptr;
    int code = sqlite3_open_v2(file.c_str(), &database, SQLITE_OPEN_READWRITE, nullptr);
    if (code != SQLITE_OK && !writable) {
        sqlite3_close(database);
        code = sqlite3_open_v2(file.c_str(), &database, SQLITE_OPEN_READONLY, nullptr);
    }
    RunIndex index(database, file);
    if (code != SQLITE_OK)
        return index.failure("open the run's index");
    sqlite3_busy_timeout(database, k_busy_timeout_ms);
    // EXTRA also syncs the folder after a transaction: a row that was committed is there after a power cut.
    if (auto durable = index.execute("PRAGMA synchronous = EXTRA"); !durable)
        return durable.error();
    const Statement version = prepare(database, "PRAGMA user_version");
    if (!version || sqlite3_step(version.get()) != SQLITE_ROW)
        return index.failure("read the run's index");
    if (const int found = sqlite3_column_int(version.get(), 0); found != k_schema_version)
        return bad_input(
            fmt::format("version {} of the run's index is not known, only {}", found, k_schema_version),
            file.string(), "Use the version of the program that made the run");
    return index;
}

Status RunIndex::insert(const LayerResult& result)
{
    const Statement statement = prepare(database_, k_insert);
    if (!statement)
        return failure("write to the run's index");
    const std::string parameters = result.parameters.dump();
    const std::string trace = trace_to_json(result.trace).dump();
    bind_text(statement.get(), 1, result.layer);
    bind_text(statement.get(), 2, result.method);
    bind_text(statement.get(), 3, parameters);
    sqlite3_bind_double(statement.get(), 4, result.seconds);
    sqlite3_bind_double(statement.get(), 5, result.bits_per_weight);
    sqlite3_bind_double(statement.get(), 6, result.quantization_scale);
    sqlite3_bind_double(statement.get(), 7, result.quality.relative_error);
    sqlite3_bind_double(statement.get(), 8, result.quality.relative_activation_error);
    sqlite3_bind_double(statement.get(), 9, result.quality.ratio_qx);
    sqlite3_bind_double(statement.get(), 10, result.quality.ratio_lrx);
    bind_text(statement.get(), 11, result.backend);
    bind_text(statement.get(), 12, trace);
    if (sqlite3_step(statement.get()) != SQLITE_DONE)
        return failure("write to the run's index");
    return {};
}

Status RunIndex::remove(std::string_view layer)
{
    const Statement statement = prepare(database_, "DELETE FROM layers WHERE layer = ?");
    if (!statement)
        return failure("write to the run's index");
    bind_text(statement.get(), 1, layer);
    if (sqlite3_step(statement.get()) != SQLITE_DONE)
        return failure("write to the run's index");
    return {};
}

Result<std::vector<LayerResult>> RunIndex::rows() const
{
    const Statement statement = prepare(database_, k_select);
    if (!statement)
        return failure("read the run's index");
    std::vector<LayerResult> results;
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) {
        auto row = row_of(statement.get());
        if (!row)
            return row.error().in(file_.string());
        results.push_back(std::move(*row));
    }
    if (code != SQLITE_DONE)
        return failure("read the run's index");
    return results;
}

} // namespace rankscope
