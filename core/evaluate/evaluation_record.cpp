// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/evaluation_record.h"

#include "core/base/atomic_file.h"

#include <algorithm>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr char k_folder[] = "evaluations";
constexpr std::size_t k_hash_digits = 12; ///< of the text's hash, enough to tell a person's texts apart

} // namespace

Status record_evaluation(const fs::path& run_folder, const Json& document)
{
    const std::string protocol = document["protocol"].string();
    const std::string hash = document["text_hash"].string();
    if (protocol.empty() || protocol.find('/') != std::string::npos || hash.size() < k_hash_digits
        || hash.find_first_not_of("0123456789abcdef") != std::string::npos || !document["length"].is_integer()
        || !document["perplexity"].is_number())
        return bad_input("an evaluation needs its protocol, length, text and perplexity",
                         run_folder.string());
    std::error_code problem;
    fs::create_directories(run_folder / k_folder, problem);
    if (problem)
        return io_error("the folder cannot be made: " + problem.message(), (run_folder / k_folder).string());
    const std::string name = protocol + "-" + std::to_string(document["length"].integer()) + "-"
                             + hash.substr(0, k_hash_digits) + ".json";
    return write_text_file(run_folder / k_folder / name, document.dump(2) + "\n", true);
}

Result<std::vector<Json>> recorded_evaluations(const fs::path& run_folder)
{
    std::vector<fs::path> files;
    std::error_code problem;
    for (const auto& entry : fs::directory_iterator(run_folder / k_folder, problem)) {
        if (entry.path().extension() == ".json")
            files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    std::vector<Json> found;
    for (const fs::path& file : files) {
        auto document = Json::read(file);
        if (!document)
            return document.error();
        if (!(*document)["perplexity"].is_number())
            return bad_input("it holds no perplexity", file.string(), "Delete it and evaluate the run again");
        found.push_back(std::move(*document));
    }
    return found;
}

} // namespace rankscope
