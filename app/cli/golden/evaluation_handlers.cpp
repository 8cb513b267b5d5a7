// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/evaluate/multiple_choice.h"
#include "core/evaluate/perplexity.h"

namespace rankscope::golden {
namespace {

/// "gptq" leaves the text's incomplete last chunk out, "exact" counts every loss.
Status check_perplexity(const GoldenCase& golden, Backend&, Verdict& verdict)
{
    const MatrixD& losses = golden.tensor("nll");
    std::vector<WindowLoss> windows;
    for (Index row = 0; row < losses.rows(); ++row)
        windows.push_back({losses.row(row).sum(), losses.cols()});
    PerplexityResult result;
    summarize(windows, result);
    verdict.scalar("gptq", result.perplexity);
    if (golden.has("nll_last_partial"))
        windows.push_back(
            {golden.tensor("nll_last_partial").sum(), golden.tensor("nll_last_partial").size()});
    summarize(windows, result);
    verdict.scalar("exact", result.perplexity);
    return {};
}

/// Scalars are named by the question: [winner by the sum, winner per character].
Status check_choices(const GoldenCase& golden, Backend&, Verdict& verdict)
{
    const Json::Array* likelihoods = golden.parameters()["loglik"].array_if();
    const Json::Array* texts = golden.parameters()["texts"].array_if();
    if (!likelihoods || !texts || likelihoods->size() != texts->size())
        return bad_input("the case must hold loglik and texts of the same questions");
    for (std::size_t question = 0; question < texts->size(); ++question) {
        const Json::Array* sums = (*likelihoods)[question].array_if();
        const Json::Array* choices = (*texts)[question].array_if();
        if (!sums || !choices || sums->size() != choices->size() || sums->empty())
            return bad_input("a question must hold as many log likelihoods as texts");
        std::vector<ChoiceScore> scores;
        std::vector<std::string> words;
        for (std::size_t i = 0; i < sums->size(); ++i) {
            scores.push_back({(*sums)[i].number(), false});
            words.push_back((*choices)[i].string());
        }
        const ChoiceWinners winners = choice_winners(scores, words);
        const std::string name = std::to_string(question);
        const Json::Array* expected = golden.json()["scalars"][name].array_if();
        if (!expected || expected->size() != 2)
            return bad_input("the case must say two winners of each question");
        verdict.scalar(name, (*expected)[0].number(), static_cast<double>(winners.by_sum), 0.0);
        verdict.scalar(name, (*expected)[1].number(), static_cast<double>(winners.by_character), 0.0);
    }
    return {};
}

} // namespace

std::vector<Handler> evaluation_handlers()
{
    return {{"perplexity", {"nll"}, check_perplexity}, {"multiple_choice", {}, check_choices}};
}

} // namespace rankscope::golden
