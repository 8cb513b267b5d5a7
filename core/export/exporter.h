// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/run/run.h"

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

struct ExporterInfo {
    std::string id;      ///< "hf"
    std::string title;   ///< "Hugging Face, dense"
    std::string summary; ///< what it holds and which client loads it
};

struct ExportOptions {
    bool replace = false;    ///< an earlier export in that place gives way
    bool requantize = false; ///< although the checkpoint's own weights were rounded before
};

/// One output format. States what it can hold, estimates its size, writes aside and renames when whole.
class Exporter {
public:
    virtual ~Exporter() = default;
    virtual const ExporterInfo& info() const = 0;
    /// Why this run cannot be held by this format, or success.
    virtual Status accepts(const Run& run, const Model& model) const = 0;
    /// Why weights would be rounded a second time, which `requantize` consents to. Success: the checkpoint's own are
    /// exact, or the format holds none.
    virtual Status source_is_exact(const Run& run, const Model& model) const = 0;
    virtual Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const = 0;
    virtual Status write(const Run& run, const Model& model, const std::filesystem::path& folder,
                         const ExportOptions& options, Monitor& monitor) const = 0;
    /// Opens what was written with our readers, rebuilds every tensor and compares. Errors: which tensor
    /// differs.
    virtual Status check(const Run& run, const Model& model, const std::filesystem::path& folder,
                         Monitor& monitor) const = 0;
};

/// Of all tensors of the model's checkpoint, as they are stored.
std::uint64_t checkpoint_bytes(const Model& model);

/// All formats in the order shown; adding one is a file and a line in export/registry.cpp.
std::span<const Exporter* const> exporters();
Result<const Exporter*> require_exporter(std::string_view id);

} // namespace rankscope
