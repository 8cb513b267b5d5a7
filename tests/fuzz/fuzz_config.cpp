// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a config.json. What is accepted must have sizes that the forward pass can multiply.
#include "core/model/architecture.h"

using namespace rankscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const auto json = Json::parse(std::string_view(reinterpret_cast<const char*>(data), size),
                                  JsonLimits{1 << 20, 64, 100'000});
    if (!json)
        return 0;
    const auto config = ModelConfig::parse(*json);
    if (!config)
        return 0;
    const auto architecture = architecture_for(*config);
    if (!architecture)
        return 0;
    const auto rotation = (*architecture)->rotation(*config);
    if (!rotation || static_cast<Index>(rotation->frequencies.size()) * 2 > config->head_dim)
        __builtin_trap();
    if (config->heads % config->kv_heads != 0 || config->hidden < 1 || config->blocks < 1)
        __builtin_trap();
    for (const LinearLayer& layer : (*architecture)->linears(*config)) {
        if (layer.out < 1 || layer.in < 1 || layer.input_group.empty())
            __builtin_trap();
    }
    return 0;
}
