#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The joint methods on one small language model, all at equal bits: a table of perplexity, mean relative activation
# error and quantization scale. Only rankscope-cli does the work; jq reads its JSON.
#
#   docs/figures/smollm2_joint.sh MODEL CALIBRATION_TEXT TEST_TEXT OUT [ROW…]
#
# ROW names one or more of u2 u3 u4 (uniform grid, groups of 64, 2 to 4 bits) and e2 (E8P lattice and rotation, 2 bits),
# each followed by r32 or r64 and f16 or f4 (bits of the factors), as in u2r32f16; none: all of them. Finished runs in
# OUT/runs are not computed again; OUT/table.md is rewritten from what is there. Environment: CLI (the program),
# THREADS, SAMPLES (calibration sequences of 512 tokens, 64), TOKENS (of the test text, 19968), ITERATIONS (of the joint
# loop, 15), VARIANTS (only these, such as "rtn gptq caldera odlri"; all), KEEP (1: leave runs as they are on disk, else
# each run's layers are removed once its figures are written).
set -euo pipefail

[ $# -ge 4 ] || { sed -n '3,15p' "$0" | cut -c3-; exit 2; }
model=$1 calibration_text=$2 test_text=$3 out=$4
shift 4
cli=${CLI:-build/bin/rankscope-cli}
options=(--quiet)
[ -z "${THREADS:-}" ] || options+=(--threads "$THREADS")
mkdir -p "$out/runs"

rows=("$@")
if [ ${#rows[@]} -eq 0 ]; then
    for grid in u2 u3 u4 e2; do
        for rank in r32 r64; do
            for factors in f16 f4; do rows+=("$grid$rank$factors"); done
        done
    done
fi

if [ ! -d "$out/calibration" ]; then
    "$cli" calibrate "$model" --text "$calibration_text" --samples "${SAMPLES:-64}" --length 512 \
        --out "$out/calibration" "${options[@]}"
fi

# measured NAME METHOD SETTING…: one plan, one run, its figures in OUT/runs/NAME.json
measured() {
    local name=$1 method=$2
    [[ -z "${VARIANTS:-}" || " $VARIANTS " == *" ${name##*.} "* ]] || return 0
    shift 2
    local run="$out/runs/$name"
    [ ! -s "$run.json" ] || return 0
    local settings="method=$method" setting
    for setting in "$@"; do settings+=",$setting"; done
    "$cli" plan "$model" --calibration "$out/calibration" --method "$method" --set "*:$settings" \
        --out "$run.plan.json" --force "${options[@]}" > /dev/null
    local resume=()
    [ ! -d "$run" ] || resume=(--resume)
    "$cli" compress "$model" --plan "$run.plan.json" --calibration "$out/calibration" --out "$run" \
        "${resume[@]}" "${options[@]}" > /dev/null
    "$cli" evaluate "$run" --no-original --text "$test_text" --protocol windows --length 512 \
        --max-tokens "${TOKENS:-19968}" --json "${options[@]}" > "$run.perplexity.json"
    "$cli" compare "$run" --json "${options[@]}" > "$run.layers.json"
    jq -n --arg name "$name" --slurpfile layers "$run.layers.json" --slurpfile evaluated "$run.perplexity.json" '
        $layers[0].runs[0] as $run
        | {name: $name, bits: $run.bits_per_weight, error: $run.mean_relative_activation_error,
           seconds: $run.layer_seconds,
           scale: ([$run.layers[].quantization_scale] | add / length),
           layers: ([$run.layers[] | {key: .layer, value: .relative_activation_error}] | from_entries),
           perplexity: $evaluated[0].perplexity}' > "$run.part"
    mv "$run.part" "$run.json"
    [ "${KEEP:-0}" = 1 ] || rm -rf "$run" "$run.layers.json" "$run.perplexity.json" "$run.plan.json"
}

if [ ! -s "$out/original.json" ]; then
    "$cli" evaluate "$model" --text "$test_text" --protocol windows --length 512 --max-tokens "${TOKENS:-19968}" \
        --json "${options[@]}" > "$out/original.part"
    mv "$out/original.part" "$out/original.json"
fi

for row in "${rows[@]}"; do
    [[ $row =~ ^([ue])([2-4])r([0-9]+)f(16|8|4)$ ]] || { echo "no such row: $row" >&2; exit 2; }
    bits=${BASH_REMATCH[2]} rank=${BASH_REMATCH[3]} factors=${BASH_REMATCH[4]}
    if [ "${BASH_REMATCH[1]}" = e ]; then
        grid=("bits=$bits" codebook=e8p) rounded="e$bits" nearest=()
    else
        grid=("bits=$bits" group=64) rounded="u$bits" nearest=("bits=$bits" group=64)
    fi
    # What has no low-rank part does not depend on it.
    [ ${#nearest[@]} -eq 0 ] || measured "$rounded.rtn" rtn "${nearest[@]}"
    measured "$rounded.gptq" gptq "${grid[@]}"
    measured "$rounded.ldlq" gptq "${grid[@]}" act_order=false tune_passes=0
    joint=("${grid[@]}" "rank=$rank" "factor_bits=$factors" "iterations=${ITERATIONS:-15}")
    measured "$row.caldera" caldera "${joint[@]}"
    measured "$row.caldera_lr_first" caldera "${joint[@]}" order=lr_q
    measured "$row.caldera_downdate" caldera "${joint[@]}" order=lr_q hessian_downdate=true
    measured "$row.odlri" odlri "${joint[@]}"
    measured "$row.odlri_downdate" odlri "${joint[@]}" hessian_downdate=true
done

# One line a run; for ODLRI the share of layers whose error is at or below that of the zero start (row.caldera).
jq -rs '
    def figure: if . == null then "–" elif . >= 1000 then (. | round | tostring)
                else ((. * 1000 | round) / 1000 | tostring) end;
    map(select(has("scale") and has("perplexity"))) # not the plans of runs under way
    | (map({key: .name, value: .}) | from_entries) as $all
    | "| run | bits per weight | perplexity | mean activation error | quantization scale | layers ≤ zero start | layer seconds |",
      "| --- | --- | --- | --- | --- | --- | --- |",
      (sort_by(.name)[]
       | . as $run
       | ($all[($run.name | sub("\\.[a-z_]+$"; ".caldera"))]) as $zero
       | (if ($run.name | test("\\.odlri")) and $zero != null
          then ([$run.layers | to_entries[] | select(.value <= $zero.layers[.key])] | length) as $won
               | "\($won) of \($run.layers | length)"
          else "" end) as $share
       | "| \(.name) | \(.bits | figure) | \(.perplexity | figure) | \(.error | figure) | \(.scale | figure) | \($share) | \(.seconds | figure) |")
    ' "$out"/runs/*.json > "$out/table.md"
jq -r '"\nUncompressed: perplexity \(.perplexity * 1000 | round / 1000)."' "$out/original.json" >> "$out/table.md"
cat "$out/table.md"
