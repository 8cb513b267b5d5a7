// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/learning_case.h"

#include <algorithm>

namespace rankscope::test {

Result<LearningCase> learning_case(const std::filesystem::path& checkpoint, Index sequences, Index length,
                                   Backend& backend)
{
    auto model = Model::open(checkpoint);
    if (!model)
        return model.error();
    auto block = DifferentiableBlock::load(**model, 0, backend);
    if (!block)
        return block.error();
    LearningCase result{
        *model, std::move(*block), {}, {}, std::min(length, (*model)->config().max_positions), {}, {}};
    for (const BlockPart& part : block_parts(**model, 0)) {
        auto weight = (*model)->weight(*part.layer);
        if (!weight)
            return weight.error();
        const Buffer whole = backend.upload(*weight);
        result.weights[part.role] = part.rows.empty() ? whole : backend.gather_rows(whole, part.rows);
        result.names[part.role] = part.layer->name;
    }
    std::vector<TokenId> ids;
    for (Index i = 0; i < sequences * result.length; ++i)
        ids.push_back(static_cast<TokenId>(i * 7919 % (*model)->config().vocabulary));
    auto x = embed(**model, ids, result.length, backend);
    if (!x)
        return x.error();
    result.inputs = backend.download(*x);
    result.targets =
        backend.download(result.block->forward(*x, result.length, result.weights, {}, nullptr, backend));
    return result;
}

HiddenStates states_of(const Matrix& rows)
{
    auto states = HiddenStates::in_memory(rows.rows(), rows.cols());
    states->rows(0, rows.rows()) = rows;
    return std::move(*states);
}

std::map<LinearRole, LearnedLinear> learned_linears(const LearningCase& given, const UniformGrid& grid,
                                                    LearnedKind kind, Backend& backend)
{
    std::map<LinearRole, LearnedLinear> linears;
    for (const auto& [role, weight] : given.weights) {
        const Index rank = default_learned_rank(weight.rows(), weight.cols());
        const RandomStream random(0, given.names.at(role));
        linears.emplace(role,
                        LearnedLinear(weight, backend.fit_grid(weight, grid), kind, rank, random, backend));
    }
    return linears;
}

} // namespace rankscope::test
