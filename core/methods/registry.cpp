// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/asvd.h"
#include "core/methods/caldera.h"
#include "core/methods/flexround.h"
#include "core/methods/gptq.h"
#include "core/methods/loftq.h"
#include "core/methods/lqer.h"
#include "core/methods/lrc.h"
#include "core/methods/lrq.h"
#include "core/methods/odlri.h"
#include "core/methods/qera_approx.h"
#include "core/methods/qera_exact.h"
#include "core/methods/rtn.h"
#include "core/methods/svd_llm.h"
#include "core/methods/svd_residual.h"
#include "core/methods/svdquant.h"

#include <algorithm>
#include <array>

namespace rankscope {

std::span<const Method* const> methods()
{
    static const std::array all{
        &rtn_method(),   &gptq_method(),        &flexround_method(),  &lrq_method(),   &svd_residual_method(),
        &lqer_method(),  &qera_approx_method(), &qera_exact_method(), &loftq_method(), &caldera_method(),
        &odlri_method(), &lrc_method(),         &svdquant_method(),   &asvd_method(),  &svd_llm_method(),
    };
    return all;
}

const Method* find_method(std::string_view id)
{
    const auto all = methods();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Method* method) { return method->info().id == id; });
    return found == all.end() ? nullptr : *found;
}

Result<const Method*> require_method(std::string_view id)
{
    if (const Method* method = find_method(id))
        return method;
    std::string known;
    for (const Method* method : methods())
        known += (known.empty() ? "" : ", ") + method->info().id;
    return usage_error("there is no method '" + std::string(id) + "'; there are " + known);
}

} // namespace rankscope
