#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What allotting is worth: one small language model at the same bytes with (a) one ODLRI rank for every layer, (b) ranks
# allotted layer by layer, (c) bits and ranks allotted; and predicted against measured error of every layer. Only
# rankscope-cli does the work; jq reads its JSON.
#
#   docs/figures/smollm2_budget.sh MODEL CALIBRATION_TEXT TEST_TEXT OUT RANK…
#
# Each RANK is the uniform rank of (a) at 2 bits; (b) and (c) get the bytes that (a) takes. Finished runs are not computed
# again; OUT/table.md is rewritten after each. Environment: CLI (the program), THREADS, CALIBRATION (a calibration that is
# there already), SAMPLES (of it, 64), LENGTH (tokens of a sequence and of a window, 512), TOKENS (of the test text, 5120),
# LOSS_TOKENS (of the calibration's text, for measured weights, 4096), ITERATIONS (of the joint loop, 2), HIGHEST (the
# highest rank to choose, 128), STEP (of the ranks to choose from, 16), BITS (to choose from, 2,3,4), WEIGHTS (how layers are
# weighed: "equal measured").
set -euo pipefail

[ $# -ge 5 ] || { sed -n '3,16p' "$0" | cut -c3-; exit 2; }
model=$1 calibration_text=$2 test_text=$3 out=$4
shift 4
cli=${CLI:-build/bin/rankscope-cli}
options=(--quiet --backend cpu)
[ -z "${THREADS:-}" ] || options+=(--threads "$THREADS")
length=${LENGTH:-512}
calibration=${CALIBRATION:-$out/calibration}
mkdir -p "$out"
[ -d "$calibration" ] ||
    "$cli" calibrate "$model" --text "$calibration_text" --samples "${SAMPLES:-64}" --length "$length" \
        --out "$calibration" "${options[@]}" > /dev/null

common=("$model" --calibration "$calibration" --method odlri --group 64
    --set "*:iterations=${ITERATIONS:-2},factor_bits=4" --json "${options[@]}")
choice=(--rank-step "${STEP:-16}" --max-rank "${HIGHEST:-128}" --curves "$out/curves.json")

# measured NAME PLAN_OPTION…: a plan, its run, its figures in OUT/NAME.json. What is allotted says what it predicted.
measured() {
    local name=$1 run="$out/$1"
    shift
    [ ! -s "$run.json" ] || return 0
    "$cli" plan "${common[@]}" "$@" --out "$run.rows" --force > "$run.plan"
    local resume=()
    [ ! -d "$run" ] || resume=(--resume)
    "$cli" compress "$model" --plan "$run.rows" --calibration "$calibration" --out "$run" --json \
        "${resume[@]}" "${options[@]}" > "$run.run"
    "$cli" evaluate "$run" --text "$test_text" --protocol windows --length "$length" \
        --max-tokens "${TOKENS:-5120}" --json "${options[@]}" > "$run.evaluated"
    if [[ " $* " == *" --budget "* ]]; then
        "$cli" plan "${common[@]}" "$@" --against "$run" > "$run.plan" # the curves are kept: this measures nothing
    fi
    jq -n --arg name "$name" --slurpfile plan "$run.plan" --slurpfile run "$run.run" \
        --slurpfile evaluated "$run.evaluated" '
        {name: $name, bytes: $plan[0].planned_bytes, bits: $plan[0].bits_per_weight,
         perplexity: $evaluated[0].perplexity, deviation: $evaluated[0].standard_error,
         original: $evaluated[0].original.perplexity,
         kl: $evaluated[0].divergence.mean_kl, kl_deviation: $evaluated[0].divergence.mean_kl_standard_error,
         error: ([$run[0].layers[].relative_activation_error | . * .] | add / length | sqrt),
         predicted: $plan[0].budget.mean_activation_error,
         ratios: ([$plan[0].budget.rows[]? | select(.measured_activation_error != null)
                   | {ratio: (.measured_activation_error / .relative_activation_error), interpolated}])}' > "$run.part"
    mv "$run.part" "$run.json"
    rm -rf "$run" "$run.rows" "$run.plan" "$run.run" "$run.evaluated"
    table
}

# One line a run. measured / predicted: the least, the middle and the largest of the layers, and of how many.
table() {
    jq -rs '
        def figure: if . == null then "–" else (. * 1000 | round / 1000 | tostring) end;
        def spread: sort | if length == 0 then "–" else
            "\(.[0] | figure) \(.[length / 2 | floor] | figure) \(.[-1] | figure) (\(length))" end;
        "| plan | bytes | bits per weight | perplexity | mean KL | root mean square error | predicted | measured / predicted, at measured ranks | between them |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| original | | 16 | \(.[0].original | figure) | | | | | |",
        (sort_by((.name | capture("_r(?<rank>[0-9]+)").rank | tonumber), .name)[]
         | "| \(.name) | \(.bytes) | \(.bits | figure) | \(.perplexity | figure) ± \(.deviation | figure) | \(.kl | figure) ± \(.kl_deviation | figure) | \(.error | figure) | \(.predicted | figure) | \([.ratios[] | select(.interpolated | not).ratio] | spread) | \([.ratios[] | select(.interpolated).ratio] | spread) |")
        ' "$out"/*_r*.json > "$out/table.part"
    mv "$out/table.part" "$out/table.md"
}

for weights in ${WEIGHTS:-equal measured}; do
    weighing=(--weights "$weights")
    [ "$weights" != measured ] ||
        weighing+=(--text "$calibration_text" --tokens "${LOSS_TOKENS:-4096}" --length "$length")
    for rank in "$@"; do
        measured "a_r$rank" --bits 2 --rank "$rank"
        bytes=$(jq .bytes "$out/a_r$rank.json")
        measured "b_r${rank}_$weights" --bits 2 --budget "$bytes" "${choice[@]}" "${weighing[@]}"
        measured "c_r${rank}_$weights" --bits-options "${BITS:-2,3,4}" --budget "$bytes" "${choice[@]}" "${weighing[@]}"
    done
done
cat "$out/table.md"
