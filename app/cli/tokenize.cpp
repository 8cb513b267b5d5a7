// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/token_ids.h"
#include "core/model/tokenizer.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct TokenizeOptions {
    std::filesystem::path path;
    std::string text;
    std::filesystem::path file;
    std::string ids;
    CLI::Option* text_option = nullptr;
    CLI::Option* file_option = nullptr;
    CLI::Option* decode_option = nullptr;
    bool bos = false;
};

Result<Output> decode(const TokenizeOptions& options, const Tokenizer& tokenizer)
{
    auto ids = parse_ids(options.ids);
    if (!ids)
        return ids.error().in("--decode");
    for (const TokenId id : *ids) {
        if (static_cast<std::size_t>(id) >= tokenizer.vocabulary())
            return bad_input(fmt::format("token id {} is out of range, the vocabulary ends at {}", id,
                                         tokenizer.vocabulary() - 1),
                             "--decode");
    }
    Output output;
    const std::string text = tokenizer.decode(*ids);
    output.document.set("text", text);
    output.text = text + "\n";
    return output;
}

Result<Output> tokenize(const TokenizeOptions& options)
{
    const auto given =
        options.text_option->count() + options.file_option->count() + options.decode_option->count();
    if (given != 1)
        return usage_error("exactly one of --text, --file and --decode is needed", "tokenize");
    auto tokenizer = Tokenizer::read(options.path);
    if (!tokenizer)
        return tokenizer.error();
    if (options.decode_option->count() > 0)
        return decode(options, **tokenizer);
    std::string text = options.text;
    if (options.file_option->count() > 0) {
        auto read = read_text_file(options.file);
        if (!read)
            return read.error();
        text = std::move(*read);
    }
    auto ids = (*tokenizer)->encode(text);
    if (!ids)
        return options.file.empty() ? ids.error() : ids.error().in(options.file.string());
    std::vector<TokenId> all;
    if (options.bos)
        all.assign((*tokenizer)->prefix().begin(), (*tokenizer)->prefix().end());
    all.insert(all.end(), ids->begin(), ids->end());
    Json list(Json::Array{});
    for (const TokenId id : all)
        list.push_back(std::int64_t{id});
    Output output;
    output.document.set("ids", std::move(list));
    output.text = fmt::format("{}\n", fmt::join(all, " "));
    return output;
}

} // namespace

void add_tokenize(Program& program)
{
    auto options = std::make_shared<TokenizeOptions>();
    CLI::App* command =
        program.add("tokenize", "Text to token ids and back; a folder with only a tokenizer is enough",
                    [options](Session&) { return tokenize(*options); });
    command->add_option("PATH", options->path, "Folder with tokenizer.json, or that file")->required();
    options->text_option = command->add_option("--text", options->text, "The text");
    options->file_option = command->add_option("--file", options->file, "A text file")->type_name("FILE");
    options->decode_option =
        command->add_option("--decode", options->ids, "Token ids, such as 1,403,407: the way back")
            ->type_name("IDS");
    command->add_flag("--bos", options->bos, "Put in front what the model's post-processor adds");
}

} // namespace rankscope::cli
