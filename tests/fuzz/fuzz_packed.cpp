// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a config.json (or the schema of an hf-qlr folder), a zero byte, and a safetensors file with
// packed layers.
#include "core/checkpoint/detail/packed_format.h"
#include "core/checkpoint/detail/safetensors_header.h"
#include "core/checkpoint/packed_checkpoint.h"
#include "tests/fuzz/memory_reader.h"

using namespace rankscope;

namespace {

constexpr std::int64_t k_small = 1 << 18; ///< weights that are worth decoding here

void read_all(const CheckpointReader& reader)
{
    for (const TensorInfo& tensor : reader.tensors()) {
        if (!tensor.is_quantized() || element_count(tensor.shape) > k_small)
            continue;
        const auto weight = reader.read(tensor.name);
        if (!weight)
            fuzz::check_refusal(weight.error());
        else if (weight->rows() != tensor.shape[0] || weight->cols() != tensor.shape[1]
                 || !weight->allFinite())
            __builtin_trap();
    }
}

void read_schema(const CheckpointReader& stored, const Json& schema)
{
    const auto linears = detail::qlr_linears(stored, schema, "schema");
    if (!linears)
        return fuzz::check_refusal(linears.error());
    for (const detail::PackedLinear& linear : *linears) {
        if (linear.out * linear.in > k_small)
            continue;
        const auto weight = linear.decode(stored, linear);
        if (!weight)
            fuzz::check_refusal(weight.error());
        else if (weight->rows() != linear.out || weight->cols() != linear.in)
            __builtin_trap();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const std::size_t end = std::min(input.find('\0'), size);
    const auto config = Json::parse(input.substr(0, end), JsonLimits{1 << 20, 64, 100'000});
    if (!config || end == size)
        return 0;
    const auto file =
        std::span<const std::byte>(reinterpret_cast<const std::byte*>(data), size).subspan(end + 1);
    auto header = detail::parse_safetensors_header(file);
    if (!header)
        return 0;
    auto stored =
        std::make_unique<fuzz::MemoryReader>(file, std::move(header->tensors), std::move(header->metadata));
    read_schema(*stored, *config);
    const auto reader = with_dense_layers(std::move(stored), "folder", *config);
    if (!reader)
        fuzz::check_refusal(reader.error());
    else
        read_all(**reader);
    return 0;
}
