// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/sha256.h"
#include "core/checkpoint/detail/gguf_header.h"
#include "core/tensor/mapped_file.h"

#include <array>

namespace rankscope::detail {
namespace {

class GgufCheckpoint : public CheckpointReader {
public:
    static Result<std::unique_ptr<GgufCheckpoint>> open(const std::filesystem::path& path,
                                                        const std::filesystem::path& file)
    {
        auto mapping = MappedFile::open(file);
        if (!mapping)
            return mapping.error();
        auto header = parse_gguf_header((*mapping)->bytes());
        if (auto whole = (*mapping)->check(); !whole)
            return whole.error();
        if (!header)
            return header.error().in(file.string());
        Sha256 hash;
        hash.update(std::string_view(reinterpret_cast<const char*>((*mapping)->bytes().data()),
                                     header->header_bytes));
        std::unique_ptr<GgufCheckpoint> checkpoint(new GgufCheckpoint);
        checkpoint->path_ = path;
        checkpoint->files_[0] = file;
        checkpoint->mapping_ = std::move(*mapping);
        checkpoint->tensors_ = std::move(header->tensors);
        checkpoint->metadata_ = std::move(header->metadata);
        checkpoint->header_hash_ = hash.finish_hex();
        return checkpoint;
    }

    const std::filesystem::path& path() const override { return path_; }
    std::span<const std::filesystem::path> files() const override { return files_; }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return metadata_; }
    std::string header_hash() const override { return header_hash_; }

    Result<TensorView> view(std::string_view name) const override
    {
        const TensorInfo* tensor = find(name);
        if (!tensor)
            return bad_input("there is no tensor \"" + std::string(name) + "\"", files_[0].string());
        if (auto whole = mapping_->check(); !whole)
            return whole.error();
        return TensorView{tensor->dtype, tensor->shape,
                          mapping_->bytes().subspan(static_cast<std::size_t>(tensor->offset),
                                                    static_cast<std::size_t>(tensor->bytes)),
                          tensor->block};
    }

private:
    GgufCheckpoint() = default;

    std::filesystem::path path_;
    std::array<std::filesystem::path, 1> files_;
    std::shared_ptr<const MappedFile> mapping_;
    std::vector<TensorInfo> tensors_;
    Json metadata_;
    std::string header_hash_;
};

} // namespace

Result<std::unique_ptr<CheckpointReader>> open_gguf_file(const std::filesystem::path& path,
                                                         const std::filesystem::path& file)
{
    auto checkpoint = GgufCheckpoint::open(path, file);
    if (!checkpoint)
        return checkpoint.error();
    return std::unique_ptr<CheckpointReader>(std::move(*checkpoint));
}

} // namespace rankscope::detail
