// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/detail/gguf_header.h"
#include "core/checkpoint/detail/safetensors_checkpoint.h"
#include "core/checkpoint/detail/safetensors_header.h"
#include "core/checkpoint/qlr_format.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <fstream>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr char k_single_name[] = "model.safetensors";
constexpr char k_index_name[] = "model.safetensors.index.json";

/// What a format is recognised by: the first bytes of a file, never its name.
struct Probe {
    std::string front;        ///< up to 16 bytes
    std::uint64_t length = 0; ///< the first 8 of them as safetensors' header length; 0 if there are fewer
};

using Opener = Result<std::unique_ptr<CheckpointReader>> (*)(const fs::path& path, const fs::path& file);

/// One row a format; a new reader adds its row in front of safetensors, which has no magic and comes last.
struct Format {
    bool (*matches)(const Probe&);
    Opener open;
};

/// Whether the first 8 bytes cannot be the length of a safetensors header, so that a magic word may be read
/// from them.
bool beyond_safetensors(const Probe& probe) { return probe.length > detail::k_max_safetensors_header; }

bool starts_with(const Probe& probe, std::string_view magic)
{
    return beyond_safetensors(probe) && std::string_view(probe.front).substr(0, magic.size()) == magic;
}

Error foreign_error(const fs::path& file, const std::string& what)
{
    return bad_input("this is " + what + ", which is not read", file.string(),
                     "Convert the model to safetensors");
}

constexpr std::array k_formats = {
    Format{[](const Probe& probe) { return starts_with(probe, "GGUF"); }, detail::open_gguf_file},
    Format{
        [](const Probe& probe) { return starts_with(probe, "PK\x03\x04") || starts_with(probe, "\x80\x02"); },
        [](const fs::path&, const fs::path& file) -> Result<std::unique_ptr<CheckpointReader>> {
            return foreign_error(file, "a PyTorch file (pickle)");
        }},
    Format{[](const Probe& probe) {
               const auto first = probe.front.find_first_not_of(" \t\r\n");
               return beyond_safetensors(probe) && first != std::string::npos && probe.front[first] == '{';
           },
           detail::open_sharded_folder},
    Format{[](const Probe&) { return true; }, detail::open_safetensors_file},
};

Result<Probe> probe_file(const fs::path& file)
{
    errno = 0;
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return errno_error("open the file", file.string());
    char front[16];
    stream.read(front, sizeof front);
    Probe probe;
    probe.front.assign(front, static_cast<std::size_t>(stream.gcount()));
    for (std::size_t i = 0; probe.front.size() >= 8 && i < 8; ++i)
        probe.length |= std::uint64_t{static_cast<unsigned char>(probe.front[i])} << (8 * i);
    return probe;
}

/// The file of a Hugging Face folder that leads to its tensors.
Result<fs::path> file_of_folder(const fs::path& folder)
{
    std::error_code problem;
    for (const char* name : {k_single_name, k_index_name, k_qlr_weights_file}) {
        if (fs::exists(folder / name, problem))
            return folder / name;
    }
    return bad_input(std::string("there is neither ") + k_single_name + " nor " + k_index_name
                         + " in this folder",
                     folder.string(), "Choose the folder that a model was downloaded to");
}

} // namespace

Result<std::unique_ptr<CheckpointReader>> CheckpointReader::open(const fs::path& path)
{
    std::error_code problem;
    fs::path file = path;
    if (fs::is_directory(path, problem)) {
        auto found = file_of_folder(path);
        if (!found)
            return found.error();
        file = std::move(*found);
    }
    if (fs::exists(file, problem) && !fs::is_regular_file(file, problem)) // a pipe would block the first read
        return io_error("this is no regular file", file.string());
    const auto probe = probe_file(file);
    if (!probe)
        return probe.error();
    for (const Format& format : k_formats) {
        if (format.matches(*probe))
            return format.open(path, file);
    }
    return internal_error("no checkpoint format took the file", file.string());
}

} // namespace rankscope
