// SPDX-License-Identifier: GPL-3.0-or-later
//
// Zero-shot tasks by the rules of lm-evaluation-harness (methods-learned §7.2). Every choice asks for ln p of
// its tokens after the context. Requests whose input is the same (a context followed by choices of one token)
// share a forward pass; inputs of similar length go through the model together, padded at the end, where a
// causal model cannot see it.
#include "core/evaluate/multiple_choice.h"

#include "core/compute/job_border.h"
#include "core/evaluate/detail/text_pass.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

namespace rankscope {
namespace {

/// Longest input of a model that does not say how long its context is.
constexpr Index k_default_context = 2048;
/// Inputs are padded to a multiple of this many tokens.
constexpr Index k_length_step = 32;

struct Request {
    std::vector<TokenId> targets; ///< the choice's tokens; the last input row predicts the last of them
    ChoiceScore* score = nullptr;
};

/// Requests by the tokens that enter the model.
using Requests = std::map<std::vector<TokenId>, std::vector<Request>>;

/// Tokens of a context and of one of its choices, split as the harness does.
struct EncodedChoice {
    std::vector<TokenId> tokens;
    std::size_t context = 0; ///< how many of them are the context
};

Result<EncodedChoice> encode_choice(const Tokenizer& tokenizer, std::string_view context,
                                    const std::string& choice)
{
    const std::size_t end = context.find_last_not_of(" \t\n\v\f\r");
    const std::size_t kept = end == std::string_view::npos ? 0 : end + 1;
    const std::string continuation = std::string(context.substr(kept)) + " " + choice;
    const std::string before(context.substr(0, kept));
    auto whole = tokenizer.encode(before + continuation);
    if (!whole)
        return whole.error();
    auto alone = tokenizer.encode(before);
    if (!alone)
        return alone.error();
    // What the tokenizer puts in front belongs to the context; it is all there is of an empty one.
    EncodedChoice result;
    const auto prefix = tokenizer.prefix();
    result.tokens.assign(prefix.begin(), prefix.end());
    result.tokens.insert(result.tokens.end(), whole->begin(), whole->end());
    result.context = prefix.size() + alone->size();
    if (result.tokens.size() < 2)
        return bad_input("context and choice are one token together: nothing could be predicted");
    // A choice that melts into the context's last token is still scored by its last token.
    result.context = std::clamp<std::size_t>(result.context, 1, result.tokens.size() - 1);
    return result;
}

/// Lays the tokens out as the input of a forward pass and the targets of its last rows. Returns whether the
/// context lost its beginning.
bool add_request(EncodedChoice encoded, Index max_length, ChoiceScore& score, Requests& requests)
{
    const auto most = static_cast<std::size_t>(max_length) + 1;
    const bool truncated = encoded.tokens.size() > most;
    if (truncated) {
        const std::size_t cut = encoded.tokens.size() - most;
        encoded.tokens.erase(encoded.tokens.begin(),
                             encoded.tokens.begin() + static_cast<std::ptrdiff_t>(cut));
        encoded.context = encoded.context > cut ? encoded.context - cut : 1;
    }
    Request request{
        {encoded.tokens.begin() + static_cast<std::ptrdiff_t>(encoded.context), encoded.tokens.end()},
        &score};
    encoded.tokens.pop_back();
    requests[std::move(encoded.tokens)].push_back(std::move(request));
    return truncated;
}

Index context_of(const Model& model)
{
    return model.config().max_positions > 0 ? model.config().max_positions : k_default_context;
}

Result<Requests> encode_task(const Model& model, const ChoiceTask& task, ChoiceResult& result)
{
    auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    const Index max_length = context_of(model);
    Requests requests;
    result.scores.resize(task.items.size());
    for (std::size_t number = 0; number < task.items.size(); ++number) {
        const ChoiceItem& item = task.items[number];
        auto& scores = result.scores[number];
        scores.resize(item.choices.size());
        bool truncated = false;
        for (std::size_t i = 0; i < item.choices.size(); ++i) {
            const std::string& context = item.contexts.size() == 1 ? item.contexts.front() : item.contexts[i];
            auto encoded = encode_choice(**tokenizer, context, item.choices[i]);
            if (!encoded)
                return encoded.error().in(task.name + ", question " + std::to_string(number + 1));
            truncated = add_request(std::move(*encoded), max_length, scores[i], requests) || truncated;
        }
        result.truncated += truncated ? 1 : 0;
    }
    return requests;
}

/// Inputs that go through the model together, and for each row that predicts something what it should.
struct Bucket {
    TokenWindows windows;
    std::vector<const std::vector<Request>*> requests; ///< of each window
    std::vector<Index> lengths;                        ///< of each window, without padding
};

std::map<Index, Bucket> make_buckets(const Requests& requests, Index context)
{
    std::map<Index, Bucket> buckets;
    for (const auto& [tokens, wanted] : requests) {
        const auto length = static_cast<Index>(tokens.size());
        const Index padded =
            std::min((length + k_length_step - 1) / k_length_step * k_length_step, std::max(length, context));
        Bucket& bucket = buckets[padded];
        bucket.windows.length = padded;
        bucket.windows.tokens.insert(bucket.windows.tokens.end(), tokens.begin(), tokens.end());
        bucket.windows.tokens.resize(bucket.windows.tokens.size() + static_cast<std::size_t>(padded - length),
                                     tokens.back());
        bucket.requests.push_back(&wanted);
        bucket.lengths.push_back(length);
    }
    return buckets;
}

/// Rows of hidden states and the tokens that should follow them, collected until they are worth a product
/// with the head.
class PendingRows {
public:
    PendingRows(const OutputHead& head, HiddenStates& states, Index capacity, Backend& backend)
        : head_(head), states_(states), backend_(backend), capacity_(capacity)
    {}

    Status add(Index row, TokenId target, ChoiceScore& score, Index window)
    {
        rows_.push_back(row);
        targets_.push_back(target);
        scores_.push_back(&score);
        window_ = window;
        return static_cast<Index>(rows_.size()) >= capacity_ ? finish() : Status();
    }
    Status finish()
    {
        if (rows_.empty())
            return {};
        Matrix hidden(static_cast<Index>(rows_.size()), states_.width());
        for (std::size_t i = 0; i < rows_.size(); ++i)
            hidden.row(static_cast<Index>(i)) = states_.rows(rows_[i], 1);
        const Buffer logits = head_.logits(backend_.upload(hidden), backend_);
        const VectorD losses = backend_.cross_entropy(logits, targets_);
        const std::vector<Index> top = backend_.row_argmax(logits);
        if (!losses.allFinite())
            return detail::logits_not_finite(window_);
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            scores_[i]->log_likelihood -= losses[static_cast<Index>(i)];
            scores_[i]->greedy = scores_[i]->greedy && top[i] == targets_[i];
        }
        rows_.clear();
        targets_.clear();
        scores_.clear();
        return {};
    }

private:
    const OutputHead& head_;
    HiddenStates& states_;
    Backend& backend_;
    Index capacity_;
    Index window_ = 0;
    std::vector<Index> rows_;
    std::vector<Index> targets_;
    std::vector<ChoiceScore*> scores_;
};

Status score_bucket(const Bucket& bucket, const OutputHead& head, HiddenStates& states, Index capacity,
                    Backend& backend, Monitor& monitor)
{
    PendingRows pending(head, states, capacity, backend);
    const Index windows = bucket.windows.count();
    for (Index window = 0; window < windows; ++window) {
        monitor.throw_if_cancelled();
        monitor.report(static_cast<std::uint64_t>(window), static_cast<std::uint64_t>(windows), "choices");
        const Index end = window * bucket.windows.length + bucket.lengths[static_cast<std::size_t>(window)];
        for (const Request& request : *bucket.requests[static_cast<std::size_t>(window)]) {
            request.score->greedy = true; // until a token says otherwise
            const auto count = static_cast<Index>(request.targets.size());
            for (Index i = 0; i < count; ++i) {
                const TokenId target = request.targets[static_cast<std::size_t>(i)];
                if (auto added = pending.add(end - count + i, target, *request.score, window); !added)
                    return added;
            }
        }
    }
    return pending.finish();
}

Accuracy accuracy(std::size_t right, std::size_t count)
{
    const double share = static_cast<double>(right) / static_cast<double>(count);
    return {share, std::sqrt(share * (1.0 - share) / static_cast<double>(count))};
}

void count_right(const ChoiceTask& task, ChoiceResult& result)
{
    std::size_t by_sum = 0;
    std::size_t by_character = 0;
    std::size_t by_byte = 0;
    for (std::size_t number = 0; number < task.items.size(); ++number) {
        const ChoiceItem& item = task.items[number];
        const auto& scores = result.scores[number];
        result.normalized = result.normalized || item.normalized;
        if (item.choices.size() == 1) {
            const std::size_t right = scores.front().greedy ? 1 : 0;
            by_sum += right;
            by_character += right;
            by_byte += right;
            continue;
        }
        const ChoiceWinners winners = choice_winners(scores, item.choices);
        by_sum += winners.by_sum == item.gold ? 1 : 0;
        by_character += winners.by_character == item.gold ? 1 : 0;
        by_byte += winners.by_byte == item.gold ? 1 : 0;
    }
    result.items = task.items.size();
    result.accuracy = accuracy(by_sum, result.items);
    result.per_character = accuracy(by_character, result.items);
    result.per_byte = accuracy(by_byte, result.items);
}

Result<ChoiceResult> score_task(const Model& model, const WeightSource& weights, const ChoiceTask& task,
                                const ChoiceOptions& options, Backend& backend, Monitor& monitor)
{
    const auto start = std::chrono::steady_clock::now();
    ChoiceResult result;
    result.task = task.name;
    result.file_hash = task.file_hash;
    monitor.report(0, 0, "tokenizing " + task.name);
    auto requests = encode_task(model, task, result);
    if (!requests)
        return requests.error();
    const std::map<Index, Bucket> buckets = make_buckets(*requests, context_of(model));
    std::vector<const TokenWindows*> texts;
    for (const auto& [length, bucket] : buckets)
        texts.push_back(&bucket.windows);
    detail::StageMonitor stage(monitor, task.name + ": ");
    auto states = detail::final_states(model, weights, texts, options.memory_budget_bytes, backend, stage);
    if (!states)
        return states.error();
    auto head = OutputHead::load(model, backend);
    if (!head)
        return head.error();
    auto of_bucket = states->begin();
    for (const auto& [length, bucket] : buckets) {
        auto scored = score_bucket(bucket, *head, *of_bucket++, detail::logit_rows(model), backend, stage);
        if (!scored)
            return scored.error();
    }
    count_right(task, result);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

} // namespace

Result<ChoiceResult> multiple_choice(std::shared_ptr<const Model> model, const WeightSource& weights,
                                     const ChoiceTask& task, const ChoiceOptions& options, Backend& backend,
                                     Monitor& monitor)
{
    return at_job_border("nothing was measured",
                         [&] { return score_task(*model, weights, task, options, backend, monitor); });
}

} // namespace rankscope
