// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/sparse_model.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/tensor/tensor_view.h"

#include <string>
#include <utility>
#include <vector>

namespace rankscope::test {
namespace {

namespace fs = std::filesystem;

using Entries = std::vector<std::pair<std::string, Shape>>;

Entries tensors_of(const SparseShape& shape)
{
    const std::int64_t kv_width = shape.hidden / shape.heads * shape.kv_heads;
    Entries tensors = {{"model.embed_tokens.weight", {shape.vocabulary, shape.hidden}}};
    for (std::int64_t block = 0; block < shape.blocks; ++block) {
        const std::string prefix = "model.layers." + std::to_string(block) + ".";
        const auto add = [&](const char* name, const Shape& sides) {
            tensors.emplace_back(prefix + name + ".weight", sides);
        };
        add("input_layernorm", {shape.hidden});
        add("self_attn.q_proj", {shape.hidden, shape.hidden});
        add("self_attn.k_proj", {kv_width, shape.hidden});
        add("self_attn.v_proj", {kv_width, shape.hidden});
        add("self_attn.o_proj", {shape.hidden, shape.hidden});
        add("post_attention_layernorm", {shape.hidden});
        add("mlp.gate_proj", {shape.intermediate, shape.hidden});
        add("mlp.up_proj", {shape.intermediate, shape.hidden});
        add("mlp.down_proj", {shape.hidden, shape.intermediate});
    }
    tensors.emplace_back("model.norm.weight", Shape{shape.hidden});
    tensors.emplace_back("lm_head.weight", Shape{shape.vocabulary, shape.hidden});
    return tensors;
}

Json config_of(const SparseShape& shape)
{
    Json config;
    config.set("model_type", "llama");
    config.set("hidden_size", shape.hidden);
    config.set("intermediate_size", shape.intermediate);
    config.set("num_hidden_layers", shape.blocks);
    config.set("num_attention_heads", shape.heads);
    config.set("num_key_value_heads", shape.kv_heads);
    config.set("vocab_size", shape.vocabulary);
    config.set("max_position_embeddings", 4096);
    config.set("rms_norm_eps", 1e-5);
    config.set("tie_word_embeddings", false);
    config.set("torch_dtype", "bfloat16");
    return config;
}

/// One file: the header, then a hole as long as the data.
Result<std::uint64_t> write_shard(const fs::path& file, Entries::const_iterator first,
                                  Entries::const_iterator last)
{
    Json header;
    std::int64_t offset = 0;
    for (auto entry = first; entry != last; ++entry) {
        const std::int64_t bytes = element_count(entry->second) * 2;
        Json::Array sides(entry->second.begin(), entry->second.end());
        Json tensor;
        tensor.set("dtype", "BF16");
        tensor.set("shape", std::move(sides));
        tensor.set("data_offsets", Json::Array{offset, offset + bytes});
        header.set(entry->first, std::move(tensor));
        offset += bytes;
    }
    std::string json = header.dump();
    json.append((8 - json.size() % 8) % 8, ' ');
    std::string bytes;
    for (std::size_t i = 0; i < 8; ++i)
        bytes += static_cast<char>(json.size() >> (8 * i) & 0xFFU);
    bytes += json;
    if (auto written = write_text_file(file, bytes, true); !written)
        return written.error();
    std::error_code problem;
    fs::resize_file(file, bytes.size() + static_cast<std::uint64_t>(offset), problem);
    if (problem)
        return io_error("the file cannot be made longer: " + problem.message(), file.string());
    return std::uint64_t{bytes.size()};
}

} // namespace

Result<std::uint64_t> write_sparse_model(const fs::path& folder, const SparseShape& shape)
{
    std::error_code problem;
    fs::create_directories(folder, problem);
    if (auto written = write_text_file(folder / "config.json", config_of(shape).dump(2), true); !written)
        return written.error();
    const Entries tensors = tensors_of(shape);
    std::uint64_t header_bytes = 0;
    Json map;
    const auto shards = static_cast<std::size_t>(shape.shards);
    for (std::size_t shard = 0; shard < shards; ++shard) {
        const auto at = [&](std::size_t part) {
            return tensors.begin() + static_cast<std::ptrdiff_t>(tensors.size() * part / shards);
        };
        const std::string name = shards == 1 ? "model.safetensors"
                                             : "model-" + std::to_string(shard + 1) + "-of-"
                                                   + std::to_string(shards) + ".safetensors";
        const auto bytes = write_shard(folder / name, at(shard), at(shard + 1));
        if (!bytes)
            return bytes;
        header_bytes += *bytes;
        for (auto tensor = at(shard); tensor != at(shard + 1); ++tensor)
            map.set(tensor->first, name);
    }
    if (shards > 1) {
        Json index;
        index.set("weight_map", std::move(map));
        if (auto written = write_text_file(folder / "model.safetensors.index.json", index.dump(), true);
            !written)
            return written.error();
    }
    return header_bytes;
}

} // namespace rankscope::test
