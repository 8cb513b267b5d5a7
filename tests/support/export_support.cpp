// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/export_support.h"

#include "core/base/atomic_file.h"
#include "core/base/random.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/checkpoint/packed_checkpoint.h"
#include "tests/support/sample_model.h"

#include <QTest>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

namespace rankscope::test {

namespace fs = std::filesystem;

QString text_of(const Status& status)
{
    return status ? QString("success") : QString::fromStdString(status.error().sentence());
}

std::vector<std::byte> bytes_of(const CheckpointReader& reader, const std::string& tensor)
{
    const auto view = reader.view(tensor);
    return view ? std::vector<std::byte>(view->bytes.begin(), view->bytes.end()) : std::vector<std::byte>{};
}

Status flip_bit(const fs::path& file, const std::string& tensor)
{
    const auto reader = CheckpointReader::open(file);
    if (!reader)
        return reader.error();
    const TensorInfo* info = (*reader)->find(tensor);
    if (!info)
        return bad_input("there is no tensor " + tensor, file.string());
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(info->offset));
    const char flipped = static_cast<char>(stream.get() ^ 1);
    stream.seekp(static_cast<std::streamoff>(info->offset));
    stream.put(flipped);
    return stream ? Status() : io_error("it cannot be changed", file.string());
}

Result<Matrix> read_back(const PackedLayer& packed, const std::string& layer)
{
    const QTemporaryDir place;
    const fs::path folder = place.path().toStdString();
    std::vector<TensorSource> tensors;
    for (const auto& [suffix, tensor] : packed.tensors)
        tensors.push_back(tensor_source(layer + suffix, tensor.dtype, tensor.shape, tensor.bytes));
    Json entry;
    entry.set("shape", Json::Array{std::int64_t{packed.out}, std::int64_t{packed.in}});
    describe_layout(packed, entry);
    Json layers;
    layers.set(layer, std::move(entry));
    Json schema;
    schema.set("format", k_qlr_format);
    schema.set("version", k_qlr_version);
    schema.set("layers", std::move(layers));
    if (auto written = write_safetensors(folder / k_qlr_weights_file, std::move(tensors), {}, false);
        !written)
        return written.error();
    if (auto written = write_text_file(folder / k_qlr_schema_file, schema.dump(), false); !written)
        return written.error();
    auto stored = CheckpointReader::open(folder / k_qlr_weights_file);
    if (!stored)
        return stored.error();
    const auto reader = with_dense_layers(std::move(*stored), folder, Json());
    if (!reader)
        return reader.error();
    return (*reader)->read(layer + ".weight");
}

QuantizedMatrix random_codes(Index rows, Index cols, int bits, Index group, bool symmetric)
{
    const RandomStream random(3, "codes");
    QuantizedMatrix q;
    q.grid.bits = bits;
    q.grid.group = group;
    q.grid.symmetric = symmetric;
    const Index groups = q.grid.groups(cols);
    const Index width = q.grid.group_width(cols);
    q.codes.resize(rows, cols);
    q.scales.resize(rows, groups);
    q.zeros = Matrix::Zero(rows, groups);
    for (Index i = 0; i < q.scales.size(); ++i) {
        q.scales.data()[i] =
            0.01f + 0.001f * static_cast<float>(random.uniform(static_cast<std::uint64_t>(i)));
        if (!symmetric)
            q.zeros.data()[i] = static_cast<float>(random.below(static_cast<std::uint64_t>(i), 1U << bits));
    }
    for (Index row = 0; row < rows; ++row) {
        for (Index col = 0; col < cols; ++col) {
            const auto value = random.below(static_cast<std::uint64_t>(row * cols + col + 10000), 1U << bits);
            const int zero = symmetric ? 1 << (bits - 1) : static_cast<int>(q.zeros(row, col / width));
            q.codes(row, col) = static_cast<std::int16_t>(static_cast<int>(value) - zero);
        }
    }
    return q;
}

Status write_and_check(const Exporter& exporter, const Run& run, const Model& model, const fs::path& folder)
{
    if (auto written = exporter.write(run, model, folder, {}, silent_monitor()); !written)
        return written;
    return exporter.check(run, model, folder, silent_monitor());
}

void add_format_rows()
{
    QTest::addColumn<QString>("format");
    for (const Exporter* exporter : exporters())
        QTest::newRow(exporter->info().id.c_str()) << QString::fromStdString(exporter->info().id);
}

std::shared_ptr<const Run> quick_run(const std::shared_ptr<const Model>& model, const fs::path& folder,
                                     std::string_view method, const Given& given,
                                     const std::vector<std::string>& settings)
{
    auto plan = uniform_plan(*model, method, given, 0);
    if (!plan)
        qFatal("%s", plan.error().sentence().c_str());
    for (const std::string& setting : settings) {
        if (auto set = apply_setting(*plan, setting, model.get()); !set)
            qFatal("%s", set.error().sentence().c_str());
    }
    const auto backend = make_cpu_backend();
    if (auto done = Run::execute(model, *plan, nullptr, folder, {}, *backend, silent_monitor()); !done)
        qFatal("%s", done.error().sentence().c_str());
    auto run = Run::open(folder);
    if (!run)
        qFatal("%s", run.error().sentence().c_str());
    return *run;
}

SampleRuns::SampleRuns() : model_(sample_model()) {}

std::shared_ptr<const Run> SampleRuns::ragged()
{
    return made("ragged",
                {{"bits", std::int64_t{3}}, {"group", std::int64_t{64}}, {"rank", std::int64_t{4}}});
}

std::shared_ptr<const Run> SampleRuns::by_row()
{
    return made("by_row", {{"bits", std::int64_t{8}},
                           {"group", std::int64_t{0}},
                           {"symmetric", true},
                           {"rank", std::int64_t{4}}});
}

std::shared_ptr<const Run> SampleRuns::fit_for(const Exporter& exporter)
{
    for (const auto& run : {ragged(), by_row()}) {
        if (exporter.accepts(*run, *model_))
            return run;
    }
    return nullptr;
}

std::shared_ptr<const Run> SampleRuns::made(const char* name, const Given& given)
{
    std::shared_ptr<const Run>& run = runs_[name];
    if (!run)
        run = quick_run(model_, fs::path(folder_.path().toStdString()) / name, "svd_residual", given);
    return run;
}

Result<std::vector<PromptLogits>> prompt_logits(const Model& model, const WeightSource& weights,
                                                Backend& backend)
{
    const auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    std::vector<PromptLogits> result;
    for (const char* prompt : k_prompts) {
        const auto prefix = (*tokenizer)->prefix();
        std::vector<TokenId> ids(prefix.begin(), prefix.end());
        const auto encoded = (*tokenizer)->encode(prompt);
        if (!encoded)
            return encoded.error();
        ids.insert(ids.end(), encoded->begin(), encoded->end());
        const auto rows = logits(model, weights, ids, backend, silent_monitor());
        if (!rows)
            return rows.error();
        result.push_back({std::move(ids), rows->row(rows->rows() - 1)});
    }
    return result;
}

double logit_distance(const Json& values, const Eigen::RowVectorXf& expected)
{
    const Json::Array* given = values.array_if();
    if (!given || static_cast<Index>(given->size()) != expected.size())
        return std::numeric_limits<double>::infinity();
    double worst = 0.0;
    for (Index entry = 0; entry < expected.size(); ++entry)
        worst = std::max(worst, std::abs((*given)[static_cast<std::size_t>(entry)].number()
                                         - static_cast<double>(expected[entry])));
    return worst / static_cast<double>(expected.maxCoeff() - expected.minCoeff());
}

} // namespace rankscope::test
