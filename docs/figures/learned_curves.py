# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws what LRQ and FlexRound learned, from runs with objective=block (needs matplotlib).

    learned_curves.py samples OUT.png METHOD:SEQUENCES:RUN[:EVALUATION.json] …
        perplexity (evaluate --json) and losses relative to nearest rounding over the number of sequences; runs of one
        method and number are seeds
    learned_curves.py steps OUT.png BLOCK,BLOCK,… METHOD:RUN …
        training and hold-out loss of single blocks over the steps
"""
import collections
import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLORS = {"lrq": "#0072b2", "flexround": "#d55e00"}
NAMES = {"lrq": "LRQ", "flexround": "FlexRound"}


def curves(run):
    return [json.loads(file.read_text()) for file in sorted(Path(run).glob("curves/*.json"))]


def ratio(run, part):
    """Geometric mean over blocks of the best parameters' loss over nearest rounding's."""
    logs = []
    for curve in curves(run):
        points = curve["curve"]
        best = min(points, key=lambda point: point["training"])
        logs.append(math.log(best[part] / points[0][part]))
    return math.exp(sum(logs) / len(logs))


def draw_samples(out, rows):
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        method, sequences, run, evaluation = row.split(":")
        perplexity = json.loads(Path(evaluation).read_text())["perplexity"]
        groups[method][int(sequences)].append((perplexity, ratio(run, "training"), ratio(run, "held_out")))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for method, found in groups.items():
        x = sorted(found)
        columns = [[[seed[i] for seed in found[n]] for n in x] for i in range(3)]
        middle = [[sum(seeds) / len(seeds) for seeds in column] for column in columns]
        color = COLORS[method]
        left.plot(x, middle[0], "o-", color=color, label=NAMES[method])
        left.fill_between(x, [min(s) for s in columns[0]], [max(s) for s in columns[0]], color=color, alpha=0.2)
        right.plot(x, middle[1], "o--", color=color, label=NAMES[method] + ", trained on")
        right.plot(x, middle[2], "o-", color=color, label=NAMES[method] + ", held out")
        for n, ppl, trained, held in zip(x, *middle):
            print(f"{method} {n}: perplexity {ppl:.3f}, loss {trained:.3f} trained on, {held:.3f} held out")
    for axes, title in ((left, "perplexity of text that was not learned from"),
                        (right, "block loss / nearest rounding's")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
        axes.set_xlabel("calibration sequences")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=130)


def draw_steps(out, blocks, rows):
    figure, panels = plt.subplots(1, len(blocks), figsize=(3.2 * len(blocks), 3.4), squeeze=False)
    for axes, block in zip(panels[0], blocks):
        for row in rows:
            method, run = row.split(":")
            points = next(curve for curve in curves(run) if curve["block"] == block)["curve"]
            steps = [point["step"] for point in points]
            for part, style in (("training", "--"), ("held_out", "-")):
                start = points[0][part]
                axes.plot(steps, [point[part] / start for point in points], style, color=COLORS[method],
                          label=NAMES[method] + (", held out" if part == "held_out" else ", trained on"))
        axes.set_title(f"block {block}", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("loss / nearest rounding's")
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=130)


if len(sys.argv) < 4 or sys.argv[1] not in ("samples", "steps"):
    sys.exit(__doc__)
if sys.argv[1] == "samples":
    draw_samples(sys.argv[2], sys.argv[3:])
else:
    draw_steps(sys.argv[2], [int(block) for block in sys.argv[3].split(",")], sys.argv[4:])
