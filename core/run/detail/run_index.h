// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/run/run.h"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

struct sqlite3;

namespace rankscope {

/// index.sqlite of a run: one row per finished layer, one transaction per row, so that what is in it survives
/// a kill at any moment. One thread at a time. Errors: Io, NoSpace, BadInput (no index, other version).
class RunIndex {
public:
    static Result<RunIndex> create(const std::filesystem::path& file);
    static Result<RunIndex> open(const std::filesystem::path& file, bool writable);
    RunIndex(RunIndex&& other) noexcept;
    RunIndex& operator=(RunIndex&& other) noexcept;
    ~RunIndex();

    Status insert(const LayerResult& result); ///< replaces an older row of that layer
    Status remove(std::string_view layer);
    Result<std::vector<LayerResult>> rows() const; ///< by layer name

private:
    RunIndex(sqlite3* database, std::filesystem::path file) : database_(database), file_(std::move(file)) {}
    Error failure(std::string_view operation) const;
    Status execute(const char* sql) const;

    sqlite3* database_ = nullptr;
    std::filesystem::path file_;
};

} // namespace rankscope
