// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/detail/pass_folder.h"

#include "core/base/atomic_file.h"
#include "core/calibration/hidden_states.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr char k_record[] = "pass.json";
constexpr char k_lock[] = "lock";

fs::path unfinished_name(const fs::path& out)
{
    fs::path name = out.has_filename() ? out : out.parent_path();
    name += ".unfinished";
    return name;
}

/// What a pass may leave in its folder, also when it was killed in the middle of writing.
bool is_of_a_pass(const std::string& name)
{
    const auto begins = [&](std::string_view part) { return name.rfind(part, 0) == 0; };
    return name == k_lock || begins(k_record) || begins("hidden-") || begins("block-")
           || begins("calibration.json");
}

/// "samples (64 there, 128 now)": the first setting that differs.
std::string first_difference(const Json& there, const Json& now)
{
    if (const Json::Object* members = now.object_if()) {
        for (const auto& [key, value] : *members) {
            if (there[key].dump() != value.dump())
                return key + " (" + there[key].dump() + " there, " + value.dump() + " now)";
        }
    }
    return "the format";
}

} // namespace

Result<PassFolder> PassFolder::open(const fs::path& out, const Json& settings, const Options& options)
{
    PassFolder folder;
    folder.out_ = out.has_filename() ? out : out.parent_path();
    folder.part_ = unfinished_name(out);
    folder.settings_ = settings;
    folder.replace_ = options.replace;
    std::error_code problem;
    const bool taken =
        fs::exists(out, problem) && !(fs::is_directory(out, problem) && fs::is_empty(out, problem));
    if (taken && !options.replace)
        return bad_input("it exists already", out.string(),
                         "Use --force to replace it, or choose another name");
    fs::create_directories(folder.part_, problem);
    if (problem) {
        errno = problem.value();
        return errno_error("create the folder", folder.part_.string());
    }
    for (const fs::directory_entry& entry : fs::directory_iterator(folder.part_, problem)) {
        if (is_of_a_pass(entry.path().filename().string()))
            continue;
        const std::string place = std::exchange(folder.part_, {}).string();
        return bad_input("this folder holds something that is no part of a calibration ("
                             + entry.path().filename().string() + ")",
                         place, "Move it away, or choose another name for the calibration");
    }
    if (auto locked = folder.lock(); !locked)
        return locked.error();
    if (auto taken_over = folder.take_over(settings, options); !taken_over)
        return taken_over.error();
    return folder;
}

Status PassFolder::lock()
{
    lock_ = ::open((part_ / k_lock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock_ < 0)
        return errno_error("create a file", part_.string());
    if (::flock(lock_, LOCK_EX | LOCK_NB) == 0)
        return {};
    ::close(std::exchange(lock_, -1));
    fs::path busy = std::exchange(part_, {}); // not ours to remove
    return bad_input("another calibration is writing here", busy.string(),
                     "Wait for it, or choose another folder");
}

/// What an earlier pass left is continued, replaced or refused.
Status PassFolder::take_over(const Json& settings, const Options& options)
{
    remove_unfinished_files(part_);
    std::error_code problem;
    const fs::path record = part_ / k_record;
    auto json = fs::exists(record, problem) ? Json::read(record) : Result<Json>(Json());
    const int finished = json ? static_cast<int>((*json)["finished_blocks"].integer(0)) : 0;
    if (finished <= 0)
        return refuse_or_remove({}, true);
    const std::string blocks = std::to_string(finished) + (finished == 1 ? " block is" : " blocks are");
    if (!options.resume)
        return refuse_or_remove(bad_input("an interrupted calibration lies here, " + blocks + " finished",
                                          part_.string(),
                                          "Go on with it with --resume, or start again with --force"),
                                options.replace);
    if ((*json)["settings"].dump() != settings.dump())
        return refuse_or_remove(
            bad_input("the interrupted calibration here differs from this one in "
                          + first_difference((*json)["settings"], settings),
                      part_.string(), "Repeat the command that was interrupted, or start again with --force"),
            options.replace);
    progress_.finished_blocks = finished;
    progress_.generation = (*json)["generation"].integer(0) == 1 ? 1 : 0;
    progress_.tensors = (*json)["tensors"];
    return {};
}

Status PassFolder::refuse_or_remove(const Error& error, bool replace)
{
    if (!replace) {
        part_.clear(); // it stays as it is
        return error;
    }
    std::error_code problem;
    for (const fs::directory_entry& entry : fs::directory_iterator(part_, problem)) {
        if (entry.path().filename() != k_lock)
            fs::remove_all(entry.path(), problem);
    }
    return {};
}

PassFolder::PassFolder(PassFolder&& other) noexcept { *this = std::move(other); }

PassFolder& PassFolder::operator=(PassFolder&& other) noexcept
{
    std::swap(out_, other.out_);
    std::swap(part_, other.part_);
    std::swap(settings_, other.settings_);
    std::swap(progress_, other.progress_);
    std::swap(replace_, other.replace_);
    std::swap(lock_, other.lock_);
    return *this;
}

PassFolder::~PassFolder()
{
    if (progress_.finished_blocks == 0)
        discard();
    if (lock_ >= 0)
        ::close(lock_);
}

void PassFolder::discard() noexcept
{
    std::error_code ignored;
    if (!part_.empty())
        fs::remove_all(std::exchange(part_, {}), ignored);
    progress_ = {};
}

Status PassFolder::record(Progress progress)
{
    Json json;
    json.set("settings", settings_);
    json.set("finished_blocks", progress.finished_blocks);
    json.set("generation", progress.generation);
    json.set("tensors", progress.tensors);
    if (auto written = write_text_file(part_ / k_record, json.dump() + "\n", true); !written)
        return written;
    progress_ = std::move(progress);
    return {};
}

Status PassFolder::commit()
{
    std::error_code problem;
    for (int generation = 0; generation < 2; ++generation)
        fs::remove(HiddenStates::generation_file(part_, generation), problem);
    auto folder = AtomicFolder::adopt(out_, part_, replace_);
    if (!folder)
        return folder.error();
    if (auto committed = folder->commit(); !committed)
        return committed;
    // Last, so that no moment is without a whole record or a whole calibration.
    fs::remove(out_ / k_record, problem);
    fs::remove(out_ / k_lock, problem);
    part_.clear();
    return {};
}

} // namespace rankscope
