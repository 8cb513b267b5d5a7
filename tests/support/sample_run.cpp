// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/sample_run.h"

#include "core/methods/method.h"
#include "tests/support/test_paths.h"

#include <QtGlobal>

#include <fstream>

namespace rankscope::test {

namespace fs = std::filesystem;

std::shared_ptr<const CalibrationStore> small_calibration(const fs::path& folder)
{
    const auto backend = make_cpu_backend();
    CalibrationOptions options;
    options.samples = 8;
    options.length = 64;
    options.replace = true;
    auto done = calibrate(sample_model(), sample_folder() / "calibration.txt", folder, options, *backend,
                          silent_monitor());
    if (!done)
        qFatal("%s", done.error().sentence().c_str());
    auto store = CalibrationStore::open(folder);
    if (!store)
        qFatal("%s", store.error().sentence().c_str());
    return *store;
}

Plan sample_plan(std::string_view method)
{
    std::map<std::string, ParameterValue, std::less<>> given = {{"bits", std::int64_t{2}},
                                                                {"group", std::int64_t{64}}};
    if ((*require_method(method))->info().has_low_rank)
        given["rank"] = std::int64_t{8};
    auto plan = uniform_plan(*sample_model(), method, given, 5);
    if (!plan)
        qFatal("%s", plan.error().sentence().c_str());
    return *plan;
}

void copy_sample_with(const fs::path& folder, const std::string& tensor, float value)
{
    fs::copy(sample_folder(), folder, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    const auto model = sample_model();
    const TensorInfo* info = model->checkpoint().find(tensor);
    if (!info)
        qFatal("no tensor %s", tensor.c_str());
    std::fstream file(folder / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(info->offset));
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

} // namespace rankscope::test
