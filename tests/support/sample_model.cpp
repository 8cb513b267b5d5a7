// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/sample_model.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/calibration/calibration_store.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/plan/layer_plan.h"
#include "tests/support/test_paths.h"

#include <cstdio>
#include <cstdlib>

namespace rankscope::test {

namespace fs = std::filesystem;

std::shared_ptr<const Model> sample_model()
{
    auto model = Model::open(sample_folder());
    if (!model) {
        std::fprintf(stderr, "the sample cannot be opened: %s\n", model.error().sentence().c_str());
        std::abort();
    }
    return *model;
}

Status copy_sample(const fs::path& folder, const std::function<void(std::string_view, Matrix&)>& change,
                   DType dtype)
{
    auto reader = CheckpointReader::open(sample_folder());
    if (!reader)
        return reader.error();
    fs::create_directories(folder);
    for (const char* name :
         {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"})
        fs::copy_file(sample_folder() / name, folder / name);
    std::vector<TensorSource> tensors;
    for (const TensorInfo& info : (*reader)->tensors()) {
        auto matrix = (*reader)->read(info.name);
        if (!matrix)
            return matrix.error();
        change(info.name, *matrix);
        TensorSource source = tensor_source(info.name, *matrix, dtype);
        source.shape = info.shape;
        tensors.push_back(std::move(source));
    }
    return write_safetensors(folder / "model.safetensors", std::move(tensors), {{"format", "pt"}}, false);
}

Status shard_sample(const fs::path& folder)
{
    constexpr std::size_t k_shards = 3;
    if (auto copied = copy_sample(folder, [](std::string_view, Matrix&) {}); !copied)
        return copied;
    const auto reader = CheckpointReader::open(folder);
    if (!reader)
        return reader.error();
    const auto& tensors = (*reader)->tensors();
    Json map;
    for (std::size_t shard = 0; shard < k_shards; ++shard) {
        const std::string name = "model-0000" + std::to_string(shard + 1) + "-of-00003.safetensors";
        std::vector<TensorSource> part;
        for (std::size_t i = tensors.size() * shard / k_shards; i < tensors.size() * (shard + 1) / k_shards; ++i) {
            auto matrix = (*reader)->read(tensors[i].name);
            if (!matrix)
                return matrix.error();
            part.push_back(tensor_source(tensors[i].name, *matrix, DType::F32));
            part.back().shape = tensors[i].shape;
            map.set(tensors[i].name, name);
        }
        if (auto written = write_safetensors(folder / name, std::move(part), {{"format", "pt"}}, false); !written)
            return written;
    }
    fs::remove(folder / "model.safetensors");
    Json index;
    index.set("weight_map", std::move(map));
    return write_text_file(folder / "model.safetensors.index.json", index.dump(), true);
}

Result<std::shared_ptr<const Run>>
make_sample_run(const std::shared_ptr<const Model>& model, const fs::path& folder, std::string_view method,
                const std::map<std::string, ParameterValue, std::less<>>& parameters,
                const ActivationQuantization& rounding)
{
    const auto backend = make_cpu_backend();
    CalibrationOptions options;
    options.samples = 8;
    options.length = 128;
    options.activations = rounding;
    const fs::path text = sample_folder() / "calibration.txt";
    if (auto made = calibrate(model, text, folder / "calibration", options, *backend, silent_monitor());
        !made)
        return made.error();
    auto calibration = CalibrationStore::open(folder / "calibration");
    if (!calibration)
        return calibration.error();
    auto plan = uniform_plan(*model, method, parameters, 0);
    if (!plan)
        return plan.error();
    if (auto done = Run::execute(model, *plan, *calibration, folder / "run", {}, *backend, silent_monitor());
        !done)
        return done.error();
    return Run::open(folder / "run");
}

std::map<std::string, std::string> folder_contents(const fs::path& folder)
{
    std::map<std::string, std::string> contents;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (!entry.is_regular_file())
            continue;
        auto text = read_text_file(entry.path());
        contents[fs::relative(entry.path(), folder).string()] = text ? *text : text.error().sentence();
    }
    return contents;
}

} // namespace rankscope::test
