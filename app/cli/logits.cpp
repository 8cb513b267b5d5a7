// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "app/cli/token_ids.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/run/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace rankscope::cli {
namespace {

struct LogitsOptions {
    std::filesystem::path path;
    std::string text;
    std::filesystem::path ids_file;
    std::filesystem::path out;
    bool no_bos = false;
    bool force = false;
    CLI::Option* text_option = nullptr;
    CLI::Option* ids_option = nullptr;
};

Result<std::vector<TokenId>> input_ids(const LogitsOptions& options, const Model& model)
{
    if (options.ids_option->count() > 0) {
        auto text = read_text_file(options.ids_file);
        if (!text)
            return text.error();
        auto ids = parse_ids(*text);
        return ids ? ids : ids.error().in(options.ids_file.string());
    }
    auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    auto encoded = (*tokenizer)->encode(options.text);
    if (!encoded)
        return encoded.error().in("--text");
    std::vector<TokenId> ids;
    if (!options.no_bos)
        ids.assign((*tokenizer)->prefix().begin(), (*tokenizer)->prefix().end());
    ids.insert(ids.end(), encoded->begin(), encoded->end());
    return ids;
}

/// The most likely next tokens after the last one.
void describe_next(const Matrix& values, const Model& model, Output& output)
{
    constexpr std::size_t k_shown = 5;
    std::vector<Index> order(static_cast<std::size_t>(values.cols()));
    std::iota(order.begin(), order.end(), Index{0});
    const auto last = values.row(values.rows() - 1);
    const std::size_t shown = std::min(k_shown, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                      [&](Index a, Index b) { return last(a) > last(b); });
    const auto tokenizer = model.tokenizer();
    Json list(Json::Array{});
    Table table({"next token", "id", "logit"});
    for (std::size_t i = 0; i < shown; ++i) {
        const auto id = static_cast<TokenId>(order[i]);
        const std::string text = tokenizer ? (*tokenizer)->token_text(id) : std::string();
        Json entry;
        entry.set("id", std::int64_t{id});
        entry.set("token", text);
        entry.set("logit", static_cast<double>(last(order[i])));
        list.push_back(std::move(entry));
        table.add({"\"" + text + "\"", std::to_string(id), figure(static_cast<double>(last(order[i])))});
    }
    output.document.set("last_top", std::move(list));
    output.text += table.text();
}

Result<Output> compute_logits(const LogitsOptions& options, Session& session)
{
    if (options.text_option->count() + options.ids_option->count() != 1)
        return usage_error("exactly one of --text and --ids is needed", "logits");
    // A run is as good as a checkpoint here: its layers take the place of the originals.
    std::shared_ptr<const Run> run;
    if (Run::is_run(options.path)) {
        auto opened = Run::open(options.path);
        if (!opened)
            return opened.error();
        run = std::move(*opened);
    }
    auto model = run ? run->model() : Model::open(options.path);
    if (!model)
        return model.error();
    auto ids = input_ids(options, **model);
    if (!ids)
        return ids.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    const auto weights = run ? run_weights(*model, run) : checkpoint_weights(*model);
    auto values = rankscope::logits(**model, *weights, *ids, **backend, session.monitor());
    if (!values)
        return values.error();
    if (!options.out.empty()) {
        std::vector<TensorSource> tensors;
        tensors.push_back(tensor_source("logits", *values));
        if (auto written =
                write_safetensors(options.out, std::move(tensors), {{"format", "pt"}}, options.force);
            !written)
            return written.error();
    }
    Output output;
    output.document.set("tokens", std::int64_t{values->rows()});
    output.document.set("vocabulary", std::int64_t{values->cols()});
    output.document.set("out", options.out.empty() ? Json() : Json(options.out.string()));
    output.text = fmt::format("{} tokens × {} logits{}\n", values->rows(), values->cols(),
                              options.out.empty() ? std::string() : " written to " + options.out.string());
    describe_next(*values, **model, output);
    output.document.set("process", session.process());
    return output;
}

} // namespace

void add_logits(Program& program)
{
    auto options = std::make_shared<LogitsOptions>();
    CLI::App* command =
        program.add("logits", "Logits of a text: what the model predicts after each token",
                    [options](Session& session) { return compute_logits(*options, session); });
    command->add_option("PATH", options->path, "Checkpoint or run")->required();
    options->text_option =
        command->add_option("--text", options->text, "The text; the model's BOS is put in front");
    options->ids_option =
        command->add_option("--ids", options->ids_file, "File of token ids, taken as they are")
            ->type_name("FILE");
    command->add_option("--out", options->out, "Safetensors file for the tensor \"logits\"")
        ->type_name("FILE");
    command->add_flag("--no-bos", options->no_bos, "Put nothing in front of --text");
    add_force(command, options->force);
}

} // namespace rankscope::cli
