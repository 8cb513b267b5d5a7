// SPDX-License-Identifier: GPL-3.0-or-later
// Opening models of 7B and 70B parameters, whose weights are holes in sparse files: the cost is that of the
// headers.
#include "core/model/model.h"
#include "tests/support/sparse_model.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

using namespace rankscope;

namespace {

void open_model(benchmark::State& state, const test::SparseShape& shape)
{
    std::string folder = (std::filesystem::temp_directory_path() / "rankscope-bench-XXXXXX").string();
    if (!::mkdtemp(folder.data()) || !test::write_sparse_model(folder, shape)) {
        state.SkipWithError("cannot write the model");
        return;
    }
    for (auto unused : state) {
        const auto model = Model::open(folder);
        if (!model)
            state.SkipWithError(model.error().sentence().c_str());
        benchmark::DoNotOptimize(model);
    }
    std::error_code problem;
    std::filesystem::remove_all(folder, problem);
}

BENCHMARK_CAPTURE(open_model, 7B, test::k_shape_7b)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(open_model, 70B_30_shards, test::k_shape_70b)->Unit(benchmark::kMillisecond);

} // namespace
