"""The routing analyses of a model, where `make analyze` was run: saturation, co-activation, specialization by source and by word.

In: the tables of trainer/analysis/tables.py, of the last checkpoint that was analysed. Out: up to five sections, or one that says how to
get them. How each is measured, and what the paper found, is in docs/analysis.md. Load over training is experts.py's, from the
run's own record. Heat maps show at most PANELS layers.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.model import curves, heat
from tools.report.model.curves import told
from tools.report.model.experts import chosen
from tools.report.model.trained import Columns, Trained, rounded
from trainer.analysis.coactivation import Pairs

PANELS = 4
STRONGEST = 16  # experts of a layer, of those in its strongest pairs
WORDED, WORDS = 10, 8  # experts of a layer whose words are shown, and how many of each
LONGEST = 24  # characters of a word
KINDS = {"input": "token that is read", "predicted": "token that is predicted", "next": "token that follows"}
SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}

Words = Sequence[tuple[str, float]]


def sections(trained: Trained) -> list[Section]:
    step = trained.values("SELECT max(step) AS step FROM domain_specialization")["step"]
    if step is None:
        text = Text(f"Not there: make analyze RUN={trained.name} makes them, of a mixture of experts.")
        return [Section("model-analyses", "Routing analyses", [text])]
    at = f"After step {step:,}. " if step else ""
    found = [
        Section(
            "model-saturation", "Router saturation", list(_saturation(trained, step)), f"{at}How early it was settled where tokens go."
        ),
        Section("model-coactivation", "Expert co-activation", list(_coactivation(trained, step)), f"{at}Which experts work together."),
        Section("model-domains", "Domain specialization", [_domains(trained, step)], f"{at}Which experts are used for which sources."),
        Section(
            "model-vocabulary", "Vocabulary specialization", list(_vocabulary(trained, step)), f"{at}How faithful words are to experts."
        ),
        Section("model-words", "Experts and their words", list(_words(trained, step)), f"{at}␣ is a space, ⏎ a new line.", folded=True),
    ]
    return [section for section in found if section.blocks]


def _saturation(trained: Trained, step: int) -> Iterator[Block]:
    """One chart for the first choice, one for all k. A model of a folder, and a run with one checkpoint, has none."""
    experts = trained.values(f"SELECT max(expert) + 1 AS experts FROM domain_specialization WHERE step = {step}")["experts"]
    trained_on = trained.values(f"SELECT max(tokens) AS tokens FROM steps WHERE step <= {step}")["tokens"] or 0
    for title, pick in (("The most probable expert", "min"), ("All experts of a token", "max")):
        rows = trained.columns(f"""
            SELECT early_tokens AS tokens, layer, share, k FROM router_saturation
            WHERE step = {step} AND k = (SELECT {pick}(k) FROM router_saturation WHERE step = {step}) ORDER BY layer, tokens
        """)
        if not rows["tokens"]:
            return
        layers, k, shares, whole = sorted(set(rows["layer"])), rows["k"][0], rounded(rows["share"], 4), (0.0, 1.0)
        ends = curves.last(rows["tokens"], rows["layer"], shares)
        x = curves.tokens(max(trained_on, *rows["tokens"]), "tokens of training of the earlier checkpoint")
        chance = curves.rule(k / experts, "chance", whole)
        spec = curves.several("layer", layers, ends, "share", "share of the choices", x, whole, 240, ".0%", ".1%", True, chance)
        what = "first choice" if k == 1 else f"{k} choices"
        caption = (
            f"The share of a token's {what} that an earlier checkpoint made, too, on the same text. Layers that begin high settled early."
        )
        yield Chart(title, {"tokens": rows["tokens"], "layer": rows["layer"], "share": shares}, spec, caption)


def _coactivation(trained: Trained, step: int) -> Iterator[Block]:
    rows = trained.columns(f"SELECT layer, expert, other, together, tokens FROM expert_coactivation WHERE step = {step} AND NOT adjacent")
    if not rows["layer"]:
        return
    pairs = _pairs(rows)
    layers, experts = pairs.tokens_LE.shape
    columns: dict[str, list[Cell]] = {"layer": [], "expert": [], "also chosen": [], "share": []}
    for layer in chosen(layers, PANELS):
        some = sorted(pairs.leading(layer, STRONGEST)) if experts > STRONGEST else list(range(experts))
        cells = [(one, other) for one in some for other in some if one != other]
        columns["layer"] += [layer] * len(cells)
        columns["expert"] += [one for one, _ in cells]
        columns["also chosen"] += [other for _, other in cells]
        columns["share"] += rounded((pairs.shares_LEE[layer, one, other] for one, other in cells), 3)
    most = max((share for share in columns["share"] if isinstance(share, float)), default=0.0) or 1.0
    encoding = {
        "x": heat.places("also chosen"), "y": heat.rows("expert"), "color": heat.shares("share", "of the row's tokens", most),
        "tooltip": [told("expert"), told("also chosen"), told("share", ".1%")],
    }  # fmt: skip
    inner = {"width": 270, "height": 270, "mark": "rect", "encoding": encoding}
    spec = heat.by_layer(inner, columns=2, resolve={"scale": {"x": "independent", "y": "independent"}})
    caption = (
        "Of the tokens that were given the row's expert, the share that were given the column's too, for each layer's strongest pairs."
    )
    caption += " A dark cell with a dark one across the diagonal is a pair that does nearly the same work."
    yield Chart("Which experts a token gets together", columns, spec, caption)


def _pairs(rows: Columns) -> Pairs:
    layer, expert, other, together, tokens = (np.array(rows[name], np.int64) for name in ("layer", "expert", "other", "together", "tokens"))
    layers, experts = int(layer.max()) + 1, int(expert.max()) + 1
    together_LEE, tokens_LE = np.zeros((layers, experts, experts), np.int64), np.zeros((layers, experts), np.int64)
    together_LEE[layer, expert, other] = together
    tokens_LE[layer, expert] = tokens
    return Pairs(together_LEE, tokens_LE)


def _domains(trained: Trained, step: int) -> Chart:
    rows = trained.columns(f"""
        SELECT layer, source, expert, share, share / uniform AS times FROM domain_specialization
        WHERE step = {step} AND k = (SELECT max(k) FROM domain_specialization WHERE step = {step}) ORDER BY layer, source, expert
    """)
    layers = chosen(max(rows["layer"]) + 1, PANELS)
    kept = [place for place, layer in enumerate(rows["layer"]) if layer in layers]
    columns: dict[str, list[Cell]] = {name: [rows[name][place] for place in kept] for name in ("layer", "source", "expert")}
    columns["share of its tokens"] = rounded((rows["share"][place] for place in kept), 3)
    columns["times chance"] = rounded((rows["times"][place] for place in kept), 3)
    encoding = {
        "x": heat.places("expert", max(rows["expert"]) + 1), "y": {**heat.rows("source"), "type": "nominal", "title": None, "sort": None},
        "color": heat.times("times chance", "times an equal part for all"),
        "tooltip": [told("source"), told("expert"), told("share of its tokens", ".1%"), told("times chance", ".3~r")],
    }  # fmt: skip
    inner = {"width": 520, "height": {"step": 16}, "mark": "rect", "encoding": encoding}
    caption = "Of each source's tokens, the share that has the expert among its choices, against an equal part for all experts."
    caption += " A red cell in a blue column is an expert for that source."
    return Chart("Experts by source", columns, heat.by_layer(inner, columns=1), caption)


def _vocabulary(trained: Trained, step: int) -> Iterator[Chart]:
    rows = trained.columns(f"""
        SELECT layer, kind, k, share FROM vocabulary_specialization WHERE step = {step} AND share IS NOT NULL ORDER BY k, kind, layer
    """)
    if not rows["layer"]:
        return
    among = {k: "most probable expert" if k == 1 else f"all {k} experts" for k in rows["k"]}
    columns: dict[str, list[Cell]] = {
        "choices": [among[k] for k in rows["k"]], "layer": rows["layer"], "of the": [KINDS[kind] for kind in rows["kind"]],
        "share": rounded(rows["share"], 4),
    }  # fmt: skip
    kind = {"field": "of the", "type": "nominal", "scale": {"domain": list(KINDS.values())}, "legend": {"title": None, "orient": "top"}}
    encoding = {
        "x": heat.places("layer"), "y": curves.vertical("share", "share", (0.0, 1.0), ".0%"), "color": kind, "shape": kind,
        "tooltip": [told("layer"), told("of the"), told("share", ".1%")],
    }  # fmt: skip
    inner = {"width": 250, "height": 200, "mark": {"type": "line", "point": {"filled": True, "size": 60}}, "encoding": encoding}
    facet = {"field": "choices", "type": "nominal", "header": {"title": None, "labelFontSize": 12}, "sort": list(among.values())}
    caption = "For each word that occurs ten times or more, the largest share of its occurrences with one and the same expert; the mean."
    yield Chart("Words that keep to an expert", columns, {"facet": facet, "columns": 2, "spacing": 26, "spec": inner}, caption)


def _words(trained: Trained, step: int) -> Iterator[Table]:
    """Of each shown layer the experts with the most faithful words."""
    rows = trained.columns(f"""
        SELECT layer, expert, kind, word, share FROM expert_words
        WHERE step = {step} AND place <= {WORDS} AND kind IN ('input', 'predicted') ORDER BY layer, expert, kind, place
    """)
    words: dict[tuple[int, int, str], list[tuple[str, float]]] = {}
    for layer, expert, kind, word, share in zip(*rows.values(), strict=True):
        words.setdefault((layer, expert, kind), []).append((word, share))
    for layer in chosen(max(rows["layer"], default=-1) + 1, PANELS) if words else []:
        experts = {expert for of, expert, _ in words if of == layer}
        both = {expert: [words.get((layer, expert, kind), []) for kind in ("input", "predicted")] for expert in experts}
        first = sorted(experts, key=lambda expert: (-sum(map(_faith, both[expert])), expert))[:WORDED]
        lines: list[list[Cell]] = [[expert, *map(_said, both[expert])] for expert in first]
        caption = "With the share of a word's occurrences that has the expert as its first choice."
        yield Table(f"Layer {layer}", ["expert", "tokens that are read", "tokens that are predicted"], lines, caption)


def _faith(words: Words) -> float:
    return sum(share for _, share in words) / len(words) if words else 0.0


def _said(words: Words) -> str:
    return " · ".join(f"{visible(word)} {share:.0%}" for word, share in words)


def visible(text: str) -> str:
    """Spaces and control characters as signs, and not more than LONGEST of it."""
    cut = text[:LONGEST] + "…" * (len(text) > LONGEST)
    return "".join(SIGNS.get(character, chr(0x2400 + ord(character)) if character < " " else character) for character in cut)
