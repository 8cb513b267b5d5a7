// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a whole GGUF file. Tensors must lie inside it and decode; its metadata may become a config, a
// tokenizer and names, or be refused in words.
#include "core/checkpoint/detail/gguf_header.h"
#include "core/model/gguf_model.h"
#include "core/model/model_config.h"
#include "core/model/tokenizer.h"
#include "tests/fuzz/memory_reader.h"

using namespace rankscope;

namespace {

void check_tensors(const detail::GgufHeader& header, std::span<const std::byte> file)
{
    std::uint64_t reached = header.header_bytes;
    std::vector<TensorInfo> by_place = header.tensors;
    std::sort(by_place.begin(), by_place.end(), [](const TensorInfo& a, const TensorInfo& b) {
        return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
    });
    for (const TensorInfo& tensor : by_place) {
        if (tensor.offset > file.size() || tensor.bytes > file.size() - tensor.offset)
            __builtin_trap();
        if (tensor.bytes > 0) { // an empty one may stand anywhere
            if (tensor.offset < reached)
                __builtin_trap();
            reached = tensor.offset + tensor.bytes;
        }
        const TensorView view{
            tensor.dtype, tensor.shape,
            file.subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes)),
            tensor.block};
        if (view.to_matrix().size() != element_count(tensor.shape))
            __builtin_trap();
    }
}

void read_tokenizer(const CheckpointReader& reader)
{
    const auto json = gguf_tokenizer(reader);
    if (!json)
        return fuzz::check_refusal(json.error());
    const auto tokenizer = Tokenizer::parse(*json);
    if (!tokenizer)
        return fuzz::check_refusal(tokenizer.error());
    const auto ids = (*tokenizer)->encode("a b\xC3\xA4 1");
    if (ids)
        (*tokenizer)->decode(*ids);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
    auto header = detail::parse_gguf_header(file);
    if (!header) {
        fuzz::check_refusal(header.error());
        return 0;
    }
    check_tensors(*header, file);
    auto reader =
        std::make_unique<fuzz::MemoryReader>(file, std::move(header->tensors), std::move(header->metadata));
    if (const auto config = gguf_config(*reader)) {
        if (const auto parsed = ModelConfig::parse(*config); !parsed)
            fuzz::check_refusal(parsed.error());
    } else {
        fuzz::check_refusal(config.error());
    }
    read_tokenizer(*reader);
    const auto renamed = gguf_with_hugging_face_names(std::move(reader));
    if (!renamed)
        return 0;
    for (const TensorInfo& tensor : (*renamed)->tensors()) {
        if (const auto matrix = (*renamed)->read(tensor.name); !matrix)
            fuzz::check_refusal(matrix.error());
    }
    return 0;
}
