// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/detail/tensor_hashes.h"

#include "core/base/sha256.h"
#include "core/base/thread_pool.h"
#include "core/model/norm.h"

#include <sys/stat.h>

#include <optional>

namespace rankscope {
namespace {

void add_if_there(const Model& model, const std::string& name, std::vector<std::string>& names)
{
    if (!name.empty() && model.checkpoint().find(name))
        names.push_back(name);
}

/// In pieces, so that a gigabyte can be cancelled.
std::string hash_bytes(std::span<const std::byte> bytes, Monitor& monitor)
{
    constexpr std::size_t k_piece = 8 << 20;
    Sha256 hash;
    for (std::size_t first = 0; first < bytes.size(); first += k_piece) {
        monitor.throw_if_cancelled();
        const auto piece = bytes.subspan(first, std::min(k_piece, bytes.size() - first));
        hash.update(piece.data(), piece.size());
    }
    return hash.finish_hex();
}

Result<std::string> hash_tensor(const CheckpointReader& reader, const std::string& name, Monitor& monitor)
{
    const auto view = reader.view(name);
    if (!view) { // packed or turned: it has no bytes of its own, and what it says is what counts
        const auto values = reader.read(name);
        if (!values)
            return values.error();
        return hash_bytes(std::as_bytes(std::span(values->data(), static_cast<std::size_t>(values->size()))),
                          monitor);
    }
    std::string hash = hash_bytes(view->bytes, monitor);
    if (auto whole = reader.confirm(name); !whole)
        return whole.error();
    return hash;
}

} // namespace

std::vector<std::string> block_tensors(const Model& model, int block)
{
    std::vector<std::string> names;
    for (const LinearLayer& layer : model.linears()) {
        if (layer.block != block)
            continue;
        add_if_there(model, layer.weight(), names);
        if (model.architecture().has_bias(model.config(), layer.role))
            add_if_there(model, layer.bias(), names);
    }
    const BlockNames own = model.architecture().block_names(model.config(), block);
    for (const std::string* norm : {&own.attention_norm, &own.mlp_norm, &own.attention_result_norm,
                                    &own.mlp_result_norm, &own.query_norm, &own.key_norm}) {
        add_if_there(model, *norm, names);
        if (!norm->empty())
            add_if_there(model, norm_bias(*norm), names);
    }
    add_if_there(model, own.router, names);
    add_if_there(model, own.shared_gate, names);
    return names;
}

std::vector<std::string> embedding_tensors(const Model& model)
{
    std::vector<std::string> names;
    add_if_there(model, model.architecture().embedding(), names);
    add_if_there(model, model.architecture().positions(), names);
    return names;
}

Result<TensorHashes> hash_tensors(const CheckpointReader& reader, const std::vector<std::string>& names,
                                  Monitor& monitor)
{
    std::vector<Result<std::string>> hashes(names.size(), Error{});
    parallel_for(0, static_cast<std::int64_t>(names.size()), [&](std::int64_t i) {
        const auto place = static_cast<std::size_t>(i);
        hashes[place] = hash_tensor(reader, names[place], monitor);
    });
    TensorHashes result;
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (!hashes[i])
            return hashes[i].error();
        result[names[i]] = *hashes[i];
    }
    return result;
}

std::vector<FileStamp> file_stamps(const CheckpointReader& reader)
{
    std::vector<FileStamp> stamps;
    for (const std::filesystem::path& file : reader.files()) {
        struct stat info {};
        if (::stat(file.c_str(), &info) == 0)
            stamps.push_back({static_cast<std::uint64_t>(info.st_size),
                              std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec});
        else
            stamps.push_back({0, -1});
    }
    return stamps;
}

} // namespace rankscope
