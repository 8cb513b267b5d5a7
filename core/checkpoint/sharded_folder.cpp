// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/detail/safetensors_checkpoint.h"

#include <map>

namespace rankscope::detail {
namespace {

/// Tensor → file name, as the index says.
using WeightMap = std::map<std::string, std::string, std::less<>>;

constexpr std::size_t k_max_shards = 10'000;

/// An index is as foreign as the shards: a file name must not lead out of the folder.
bool is_plain_file_name(const std::string& name)
{
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos
           && name.find('\0') == std::string::npos && name.size() < 256;
}

Result<WeightMap> read_index(const std::filesystem::path& index_file)
{
    const auto json = Json::read(index_file);
    if (!json)
        return json.error();
    const auto* entries = (*json)["weight_map"].object_if();
    if (!entries)
        return bad_input("\"weight_map\" is missing or no object", index_file.string());
    if (entries->empty())
        return bad_input("\"weight_map\" names no tensor", index_file.string());
    WeightMap map;
    for (const auto& [tensor, file] : *entries) {
        const std::string* name = file.string_if();
        if (!name || !is_plain_file_name(*name))
            return bad_input("\"weight_map\" gives no plain file name for this tensor",
                             index_file.string() + ": tensor " + tensor);
        map.emplace(tensor, *name);
    }
    return map;
}

/// Shard names in order, each with the number of its tensors.
std::map<std::string, std::size_t> count_shards(const WeightMap& map)
{
    std::map<std::string, std::size_t> shards;
    for (const auto& entry : map)
        ++shards[entry.second];
    return shards;
}

Status compare(const CheckpointReader& reader, const WeightMap& map, const std::filesystem::path& index_file)
{
    const auto shard_of = [&reader](const TensorInfo& tensor) {
        return reader.files()[static_cast<std::size_t>(tensor.file)].filename().string();
    };
    for (const auto& [name, shard] : map) {
        const TensorInfo* tensor = reader.find(name);
        if (!tensor)
            return bad_input("the index says that this tensor is in " + shard + ", which does not hold it",
                             index_file.string() + ": tensor " + name, "Download that shard again");
        if (shard_of(*tensor) != shard)
            return bad_input("the index says that this tensor is in " + shard + ", but it is in "
                                 + shard_of(*tensor),
                             index_file.string() + ": tensor " + name, "Download the index again");
    }
    for (const TensorInfo& tensor : reader.tensors()) {
        if (map.find(tensor.name) == map.end())
            return bad_input(shard_of(tensor) + " holds this tensor, but the index does not name it",
                             index_file.string() + ": tensor " + tensor.name, "Download the index again");
    }
    return {};
}

} // namespace

Result<std::unique_ptr<CheckpointReader>> open_sharded_folder(const std::filesystem::path& path,
                                                              const std::filesystem::path& index_file)
{
    const auto map = read_index(index_file);
    if (!map)
        return map.error();
    const auto shards = count_shards(*map);
    if (shards.size() > k_max_shards)
        return bad_input("the index names " + std::to_string(shards.size()) + " files, more than the "
                             + std::to_string(k_max_shards) + " that are accepted",
                         index_file.string());
    std::vector<std::filesystem::path> files;
    for (const auto& [name, tensors] : shards) {
        const std::filesystem::path file = index_file.parent_path() / name;
        std::error_code problem;
        if (!std::filesystem::exists(file, problem))
            return bad_input("this shard is missing; it holds " + std::to_string(tensors)
                                 + " of the tensors that " + index_file.filename().string() + " names",
                             file.string(), "Download the file into the same folder");
        files.push_back(file);
    }
    auto checkpoint = SafetensorsCheckpoint::open(path, std::move(files));
    if (!checkpoint)
        return checkpoint.error();
    if (auto same = compare(**checkpoint, *map, index_file); !same)
        return same.error();
    return std::unique_ptr<CheckpointReader>(std::move(*checkpoint));
}

} // namespace rankscope::detail
