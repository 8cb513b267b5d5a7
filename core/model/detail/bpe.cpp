// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/bpe.h"

#include "core/model/detail/byte_level.h"
#include "core/model/detail/utf8.h"

#include <queue>

namespace rankscope::detail {
namespace {

std::uint64_t pair_key(TokenId left, TokenId right)
{
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// The two halves of "a b" or ["a", "b"]; empty where there are not exactly two.
std::pair<std::string_view, std::string_view> halves(const Json& merge)
{
    if (const std::string* text = merge.string_if()) {
        const std::size_t space = text->find(' ');
        if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos)
            return {};
        const std::string_view view = *text;
        return {view.substr(0, space), view.substr(space + 1)};
    }
    const auto* pair = merge.array_if();
    if (!pair || pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string())
        return {};
    return {*(*pair)[0].string_if(), *(*pair)[1].string_if()};
}

} // namespace

/// A pair that may be joined, as it was when it was found.
struct BytePairModel::Candidate {
    std::uint32_t rank;
    std::int32_t position;
    TokenId result;
};

/// Lowest rank first, leftmost first among equals.
class BytePairModel::Queue {
public:
    void push(const Candidate& candidate) { queue_.push(candidate); }
    bool empty() const { return queue_.empty(); }
    Candidate pop()
    {
        const Candidate top = queue_.top();
        queue_.pop();
        return top;
    }

private:
    struct Later {
        bool operator()(const Candidate& a, const Candidate& b) const
        {
            return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
        }
    };
    std::priority_queue<Candidate, std::vector<Candidate>, Later> queue_;
};

Result<BytePairModel> BytePairModel::parse(const Json& model)
{
    const std::string type = model["type"].string(model["merges"].is_array() ? "BPE" : "");
    if (type != "BPE")
        return bad_input("the tokenizer model \"" + type + "\" is not known; known: BPE", "model");
    BytePairModel result;
    if (auto read = result.read_vocabulary(model["vocab"]); !read)
        return read.error().in("model");
    if (auto read = result.read_options(model); !read)
        return read.error().in("model");
    if (auto read = result.read_merges(model["merges"]); !read)
        return read.error().in("model");
    return result;
}

Status BytePairModel::read_vocabulary(const Json& vocabulary)
{
    const auto* entries = vocabulary.object_if();
    if (!entries || entries->empty())
        return bad_input("\"vocab\" is missing or empty");
    vocabulary_.reserve(entries->size());
    for (const auto& [token, id] : *entries) {
        if (!id.is_integer() || id.integer() < 0 || id.integer() > k_max_token_id)
            return bad_input("the id of the token \"" + token + "\" is no whole number between 0 and "
                                 + std::to_string(k_max_token_id),
                             "vocab");
        vocabulary_.emplace(token, static_cast<TokenId>(id.integer()));
    }
    return {};
}

Status BytePairModel::read_options(const Json& model)
{
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        if (!model[key].string().empty())
            return bad_input("marks inside words are not known", key);
    }
    if (model["dropout"].number() != 0.0)
        return bad_input("random merges are not known", "dropout");
    byte_fallback_ = model["byte_fallback"].boolean();
    fuse_unknown_ = model["fuse_unk"].boolean();
    ignore_merges_ = model["ignore_merges"].boolean();
    if (const std::string* unknown = model["unk_token"].string_if()) {
        unknown_ = find(*unknown);
        if (unknown_ < 0)
            return bad_input("the unknown token \"" + *unknown + "\" is not in the vocabulary", "unk_token");
    }
    for (unsigned byte = 0; byte < 256; ++byte)
        byte_tokens_[byte] = find(byte_token(static_cast<unsigned char>(byte)));
    return {};
}

Status BytePairModel::read_merges(const Json& merges)
{
    const auto* list = merges.array_if();
    if (!list)
        return bad_input("\"merges\" is missing or no list");
    merges_.reserve(list->size());
    std::string joined;
    for (std::size_t rank = 0; rank < list->size(); ++rank) {
        const auto where = [rank] { return "merges, entry " + std::to_string(rank); };
        const auto [left, right] = halves((*list)[rank]);
        if (left.empty() || right.empty())
            return bad_input("two tokens were expected", where());
        joined.assign(left).append(right);
        const TokenId left_id = find(left);
        const TokenId right_id = find(right);
        const TokenId result = find(joined);
        if (left_id < 0 || right_id < 0 || result < 0)
            return bad_input("\""
                                 + std::string(left_id < 0    ? left
                                               : right_id < 0 ? right
                                                              : joined)
                                 + "\" is not in the vocabulary",
                             where());
        merges_.insert_or_assign(pair_key(left_id, right_id),
                                 Merge{static_cast<std::uint32_t>(rank), result});
    }
    return {};
}

TokenId BytePairModel::find(std::string_view token) const
{
    const auto found = vocabulary_.find(std::string(token));
    return found == vocabulary_.end() ? -1 : found->second;
}

/// One token a character; a character without one becomes its bytes or the unknown token. As in the
/// reference, an unknown run is written when the next known character comes, after any bytes in between.
std::vector<TokenId> BytePairModel::first_symbols(std::string_view piece) const
{
    std::vector<TokenId> ids;
    ids.reserve(piece.size());
    bool unknown_pending = false;
    const auto flush = [&] {
        if (unknown_pending)
            ids.push_back(unknown_);
        unknown_pending = false;
    };
    for (std::size_t i = 0; i < piece.size();) {
        const std::string_view symbol = piece.substr(i, utf8_length(piece[i]));
        i += symbol.size();
        if (const TokenId id = find(symbol); id >= 0) {
            flush();
            ids.push_back(id);
            continue;
        }
        const auto token_of = [this](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
        const std::size_t before = ids.size();
        for (std::size_t k = 0; byte_fallback_ && k < symbol.size() && token_of(symbol[k]) >= 0; ++k)
            ids.push_back(token_of(symbol[k]));
        if (ids.size() - before == symbol.size())
            continue;
        ids.resize(before);
        if (unknown_ < 0)
            continue;
        if (!fuse_unknown_)
            flush();
        unknown_pending = true;
    }
    flush();
    return ids;
}

const BytePairModel::Merge* BytePairModel::find_merge(TokenId left, TokenId right) const
{
    const auto found = merges_.find(pair_key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
}

void BytePairModel::merge_all(std::vector<Symbol>& symbols) const
{
    Queue queue;
    const auto consider = [&](std::int32_t left, std::int32_t right) {
        if (left < 0 || right < 0)
            return;
        if (const Merge* merge = find_merge(symbols[static_cast<std::size_t>(left)].id,
                                            symbols[static_cast<std::size_t>(right)].id))
            queue.push({merge->rank, left, merge->result});
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
        consider(static_cast<std::int32_t>(i), static_cast<std::int32_t>(i + 1));
    while (!queue.empty()) {
        const Candidate best = queue.pop();
        Symbol& left = symbols[static_cast<std::size_t>(best.position)];
        if (left.gone || left.next < 0)
            continue;
        Symbol& right = symbols[static_cast<std::size_t>(left.next)];
        const Merge* merge = find_merge(left.id, right.id);
        if (!merge || merge->result != best.result) // one side was joined elsewhere meanwhile
            continue;
        left.id = best.result;
        left.next = right.next;
        right.gone = true;
        if (left.next >= 0)
            symbols[static_cast<std::size_t>(left.next)].previous = best.position;
        consider(left.previous, best.position);
        consider(best.position, left.next);
    }
}

void BytePairModel::encode(std::string_view piece, std::vector<TokenId>& ids) const
{
    if (piece.empty())
        return;
    if (ignore_merges_) {
        if (const TokenId whole = find(piece); whole >= 0) {
            ids.push_back(whole);
            return;
        }
    }
    const std::vector<TokenId> first = first_symbols(piece);
    const auto count = static_cast<std::int32_t>(first.size());
    std::vector<Symbol> symbols(first.size());
    for (std::int32_t i = 0; i < count; ++i)
        symbols[static_cast<std::size_t>(i)] = {first[static_cast<std::size_t>(i)], i - 1,
                                                i + 1 < count ? i + 1 : -1, false};
    merge_all(symbols);
    for (const Symbol& symbol : symbols) {
        if (!symbol.gone)
            ids.push_back(symbol.id);
    }
}

} // namespace rankscope::detail
