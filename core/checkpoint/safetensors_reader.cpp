// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/sha256.h"
#include "core/checkpoint/detail/safetensors_checkpoint.h"
#include "core/checkpoint/detail/safetensors_header.h"

#include <algorithm>

namespace rankscope::detail {
Result<std::unique_ptr<SafetensorsCheckpoint>>
SafetensorsCheckpoint::open(const std::filesystem::path& path, std::vector<std::filesystem::path> files)
{
    std::unique_ptr<SafetensorsCheckpoint> checkpoint(new SafetensorsCheckpoint);
    checkpoint->path_ = path;
    checkpoint->files_ = std::move(files);
    Sha256 hash;
    for (std::size_t i = 0; i < checkpoint->files_.size(); ++i) {
        const std::filesystem::path& file = checkpoint->files_[i];
        auto mapping = MappedFile::open(file);
        if (!mapping)
            return mapping.error();
        auto header = parse_safetensors_header((*mapping)->bytes());
        if (auto whole = (*mapping)->check(); !whole)
            return whole.error();
        if (!header)
            return header.error().in(file.string());
        hash.update(header->bytes);
        for (TensorInfo& tensor : header->tensors) {
            tensor.file = static_cast<int>(i);
            checkpoint->tensors_.push_back(std::move(tensor));
        }
        if (checkpoint->metadata_.is_null())
            checkpoint->metadata_ = std::move(header->metadata);
        checkpoint->mappings_.push_back(std::move(*mapping));
    }
    checkpoint->header_hash_ = hash.finish_hex();
    if (auto sorted = checkpoint->sort_and_check(); !sorted)
        return sorted.error();
    return checkpoint;
}

Status SafetensorsCheckpoint::sort_and_check()
{
    std::sort(tensors_.begin(), tensors_.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    const auto twice =
        std::adjacent_find(tensors_.begin(), tensors_.end(),
                           [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
    if (twice == tensors_.end())
        return {};
    const auto file_name = [this](const TensorInfo& tensor) {
        return files_[static_cast<std::size_t>(tensor.file)].filename().string();
    };
    return bad_input("the tensor is in two files, " + file_name(*twice) + " and "
                         + file_name(*std::next(twice)),
                     path_.string() + ": tensor " + twice->name, "Keep the shards of one download only");
}

Result<TensorView> SafetensorsCheckpoint::view(std::string_view name) const
{
    const TensorInfo* tensor = find(name);
    if (!tensor)
        return bad_input("there is no tensor \"" + std::string(name) + "\"", path_.string());
    const auto file = static_cast<std::size_t>(tensor->file);
    if (auto whole = mappings_[file]->check(); !whole)
        return whole.error();
    return TensorView{tensor->dtype, tensor->shape,
                      mappings_[file]->bytes().subspan(static_cast<std::size_t>(tensor->offset),
                                                       static_cast<std::size_t>(tensor->bytes))};
}

Result<std::unique_ptr<CheckpointReader>> open_safetensors_file(const std::filesystem::path& path,
                                                                const std::filesystem::path& file)
{
    auto checkpoint = SafetensorsCheckpoint::open(path, {file});
    if (!checkpoint)
        return checkpoint.error();
    return std::unique_ptr<CheckpointReader>(std::move(*checkpoint));
}

} // namespace rankscope::detail
