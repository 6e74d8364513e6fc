"""Filter sets beside the packages that published them: CPU seconds, memory, and every decision.

In: documents. Out, per set: megabytes per CPU-second of both, and the documents on which they decide differently or blame another rule.

A peer's filters are called one document after the other, as its pipeline does within one process. They stop at the first rule that
drops, and where several are chained, what one drops the next does not see; ours compute all columns of all documents. So there are two
ratios: to the peer as it comes, and to the peer made to look at every rule, which is the same work. All filters of a chain are given the
document as it is, though C4's edits it. Ours run in a process of their own for each set, since words once cut are remembered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.unit import Json
from tools.curation.agreement import REASONS
from tools.curation.side_by_side import Bench, typical

SETS: dict[str, tuple[str, ...]] = {
    "datatrove": ("gopher-datatrove", "c4", "fineweb", "gopher-datatrove+c4+fineweb"),
    "dolma": ("gopher-dolma", "c4-dolma"),
    "dclm": ("gopher-dclm", "refinedweb"),
}
# dclm_side.py has no model of languages.
NOT_THE_PEERS = ("refinedweb_language",)


def compare(bench: Bench, texts: Sequence[str], name: str, rounds: int) -> dict[str, Json]:
    path = bench.documents(name, texts)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    theirs: dict[str, list[dict[str, Json]]] = {}
    ours: dict[str, list[dict[str, Json]]] = {}
    for _ in range(rounds):
        for peer in bench.interpreters:
            found = bench.run(peer, f"{peer}_side", "filters", path, ",".join(SETS[peer]))
            for chosen in SETS[peer]:
                theirs.setdefault(chosen, []).append({**found[chosen], "peak_mb": found["peak_mb"], "peer": peer})
                ours.setdefault(chosen, []).append(_judged(bench, path, chosen, NOT_THE_PEERS))
    results = {chosen: _compared(megabytes, ours[chosen], theirs[chosen], chosen) for chosen in theirs}
    return {"megabytes": megabytes, "documents": len(texts), "sets": results}


def alone(bench: Bench, texts: Sequence[str], name: str, chosen: str, rounds: int) -> dict[str, Json]:
    """Ours only: megabytes per CPU-second of the filters of `chosen`, together, models and all."""
    path = bench.documents(name, texts)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    runs = [_judged(bench, path, chosen, ()) for _ in range(rounds)]
    by_tagger = {name: typical([run["by_tagger"][name] for run in runs]) for name in runs[0]["by_tagger"]}
    return {"megabytes": megabytes, "filters": chosen.split("+"), "by_tagger": by_tagger, **_speed(megabytes, runs)}


def _judged(bench: Bench, path: Path, chosen: str, without: Sequence[str]) -> dict[str, Json]:
    return bench.run("ours", "ours", "filters", path, chosen, bench.folder / "store", ",".join(without))


def _speed(megabytes: float, runs: Sequence[Mapping[str, Json]], clock: str = "cpu_seconds") -> dict[str, float]:
    seconds = typical([run[clock] for run in runs])
    return {"cpu_seconds": seconds, "mb_per_cpu_second": megabytes / seconds, "peak_mb": max(run["peak_mb"] for run in runs)}


def _compared(megabytes: float, ours: Sequence[Mapping[str, Json]], theirs: Sequence[Mapping[str, Json]], chosen: str) -> dict[str, Json]:
    mine, peers, every = _speed(megabytes, ours), _speed(megabytes, theirs), _speed(megabytes, theirs, "every_rule_cpu_seconds")
    pairs = list(zip(theirs[0]["decisions"], ours[0]["decisions"], strict=True))
    differing = Counter((their, our) for their, our in pairs if (their is None) != (our is None))
    decisions: dict[str, Json] = {
        "documents": len(pairs),
        "kept": sum(our is None for _, our in pairs),
        "different": differing.total(),
        "which": [[their, our, count] for (their, our), count in differing.most_common()],
    }
    if reasons := REASONS.get(chosen):
        other = Counter(pair for pair in pairs if None not in pair and pair[1] not in reasons.predicates[pair[0]])
        decisions["other_reason"] = other.total()
    return {
        "peer": theirs[0]["peer"],
        "ours": mine,
        "theirs": peers,
        "theirs_every_rule": every,
        "times": mine["mb_per_cpu_second"] / peers["mb_per_cpu_second"],
        "times_every_rule": mine["mb_per_cpu_second"] / every["mb_per_cpu_second"],
        "decisions": decisions,
    }
