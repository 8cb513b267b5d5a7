// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace rankscope::cli {

class Session;

/// Options of the program itself, accepted before and after the subcommand.
struct GlobalOptions {
    int threads = 0;
    std::string backend = "auto";
    std::string memory;
    std::uint64_t seed = 0;
    bool json = false;
    bool quiet = false;
    bool verbose = false;
};

/// What a subcommand prints: a text for people, or one document with --json.
struct Output {
    // Out of line: inlined moves of the variant make GCC 12 warn of members that are never read.
    Output();
    Output(const Output& other);
    Output(Output&& other) noexcept;
    Output& operator=(const Output& other);
    Output& operator=(Output&& other) noexcept;
    ~Output();

    Json document;
    std::string text;
};

using Action = std::function<Result<Output>(Session&)>;

/// The program with its subcommands: each file of this folder adds its own.
struct Program {
    CLI::App app;
    GlobalOptions global;
    std::map<const CLI::App*, Action> actions;

    /// A subcommand with its options still to be added.
    CLI::App* add(const std::string& name, const std::string& description, Action action);
};

void add_info(Program& program);
void add_tokenize(Program& program);
void add_logits(Program& program);
void add_calibrate(Program& program);
void add_rotate(Program& program);
void add_stats(Program& program);
void add_methods(Program& program);
void add_plan(Program& program);
void add_compress(Program& program);
void add_project(Program& program);
void add_evaluate(Program& program);
void add_compare(Program& program);
void add_export(Program& program);
void add_decompose(Program& program);
void add_smooth(Program& program);
void add_sweep(Program& program);
void add_devices(Program& program);
void add_demo(Program& program);
void add_reference(Program& program);

/// Options that several subcommands have, worded once.
CLI::Option* add_path(CLI::App* command, std::filesystem::path& path);
CLI::Option* add_force(CLI::App* command, bool& force);

} // namespace rankscope::cli
