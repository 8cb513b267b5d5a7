// SPDX-License-Identifier: GPL-3.0-or-later
// consumer MODEL LAYER: rounds one layer of a checkpoint to 4 bits and prints what that costs.
#include "core/compute/backend.h"
#include "core/methods/method.h"
#include "core/model/model.h"

#include <cstdio>

using namespace rankscope;

namespace {

Result<double> rounding_error(const char* path, const char* name)
{
    const auto model = Model::open(path);
    if (!model)
        return model.error();
    const LinearLayer* layer = (*model)->find_linear(name);
    if (layer == nullptr)
        return usage_error("there is no such layer", name);
    const auto weight = (*model)->weight(*layer);
    if (!weight)
        return weight.error();
    const auto backend = make_cpu_backend();
    const Method* method = find_method("rtn");
    const auto parameters =
        Parameters::make(method->info(), {{"bits", std::int64_t{4}}, {"group", std::int64_t{64}}});
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend->upload(*weight);
    problem.name = name;
    const auto result = method->decompose(problem, *parameters, *backend, silent_monitor());
    if (!result)
        return result.error();
    std::printf("%.4f bits per weight\n", result->bits_per_weight());
    return measure(*weight, *result, nullptr).relative_error;
}

} // namespace

int main(int argc, char** argv)
{
    if (argc != 3)
        return 2;
    const auto error = rounding_error(argv[1], argv[2]);
    if (!error) {
        std::fprintf(stderr, "%s\n", error.error().sentence().c_str());
        return 1;
    }
    std::printf("relative error %.4f\n", *error);
    return 0;
}
