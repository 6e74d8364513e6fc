"""docs/scale.md: the template beside this file, filled with the numbers of scale.py."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.documents import PART_BYTES
from pipeline.stages import gather
from tools import large
from tools.rates import Rates
from tools.scale import CORES, GB_MONTH_DOLLARS, GET_DOLLARS, LISTED, MULTIPART_BYTES, PUT_DOLLARS, PUTS_PER_SECOND, Scale

TEMPLATE = Path(__file__).with_name("scale.template.md")


def render(s: Scale) -> str:
    """The page, in Markdown. Raises KeyError for a number that the template asks for and nobody gives."""
    return TEMPLATE.read_text(encoding="utf-8").format_map({**_numbers(s), **_tables(s)})


def _numbers(s: Scale) -> dict[str, str]:
    found, first = s.bench.large, s.limits()[0]
    catalog, recipe, deduped = found["catalog"], found["recipe"], found["dedupe"]
    machine, dclm = s.bench.machine, s.works["dclm"].load
    return {
        "text": _bytes(s.bytes),
        "tokens": f"{s.tokens / 1e12:.2f} T",
        "cores": str(machine["cores"]),
        "system": machine["system"],
        "python": machine["python"],
        "load": f"{machine['load'][0]:.1f}",
        "cpu_hours": f"{s.cpu_hours:,.0f}",
        "sources": str(len(s.works)),
        "hours_64": _hours(sum(s.hours(64).values())),
        "hours_1024": _hours(sum(s.hours(1024).values())),
        "units": f"{s.units:,}",
        "driver": f"{s.driver_gib:.1f} GiB",
        "disk": _bytes(s.disk),
        "requests": f"{(s.puts + s.gets) / 1e6:.1f} million",
        "request_dollars": f"{s.request_dollars:,.0f}",
        "first": first.what,
        "first_times": f"{first.times:,.1f}",
        "part": f"{PART_BYTES / 1e6:.0f} MB",
        "wall_per_cpu": f"{s.wall_per_cpu:.2f}",
        "tasks_per_second": f"{s.tasks / sum(s.hours(1024).values()) / 3600:,.0f}",
        "longest": _hours(s.longest_hours),
        "code": _corpus(s.bench.kinds["code"]),
        "prose": _corpus(s.bench.kinds["prose"]),
        "dclm_document": f"{dclm.bytes / dclm.documents:,.0f} bytes",
        "tenth_units": f"{found['tenth']['units']:,}",
        "large_units": f"{catalog['units']:,}",
        "large_documents": f"{catalog['documents']:,}",
        "large_shards": f"{catalog['shards']:,}",
        "put_dollars": str(PUT_DOLLARS),
        "get_dollars": str(GET_DOLLARS),
        "month_dollars": str(GB_MONTH_DOLLARS),
        "puts_per_second": f"{s.puts / sum(s.hours(1024).values()) / 3600:,.0f}",
        "puts_borne": f"{PUTS_PER_SECOND:,}",
        "recipe_files": f"{recipe['files']:,}",
        "recipe_seconds": f"{recipe['seconds']:.1f}",
        "deduped": f"{deduped['documents']:,}",
        "dedupe_each": f"{s.dedupe_seconds * 1e6:.2f} µs",
    }


def _tables(s: Scale) -> dict[str, str]:
    return {
        "mix_table": _mix(s), "hours_table": _cores(s), "driver_table": _driver(s), "disk_table": _disk(s), "requests_table": _requests(s),
        "limits_table": _limits(s), "large_table": _large(s),
        "recipe_table": _table(("step", "s"), [(step, f"{took:.2f}") for step, took in s.bench.large["recipe"]["steps"].items()]),
    }  # fmt: skip


def _mix(s: Scale) -> str:
    header = ("source", "files", "text", "documents", "tokens", "parts", "units", "tasks", "CPU hours")
    rows = [
        (
            name, f"{len(one.load.files):,}", _bytes(one.load.bytes), f"{one.load.documents / 1e6:,.2f} M",
            f"{one.load.tokens / 1e9:,.2f} B", f"{one.load.parts:,}", f"{sum(one.units.values()):,}", f"{one.tasks:,}",
            f"{sum(one.cpu_seconds.values()) / 3600:,.1f}",
        )
        for name, one in s.works.items()
    ]  # fmt: skip
    total = (
        "**together**", f"{s.files:,}", _bytes(s.bytes), f"{s.documents / 1e6:,.0f} M", f"{s.tokens / 1e9:,.0f} B", f"{s.parts:,}",
        f"{s.units:,}", f"{s.tasks:,}", f"{s.cpu_hours:,.0f}",
    )  # fmt: skip
    return _table(header, [*rows, total])


def _cores(s: Scale) -> str:
    by_cores, cpu = [s.hours(cores) for cores in CORES], s.total("cpu_seconds")
    rows = [(stage, _hours(cpu[stage] / 3600), *(_hours(hours[stage]) for hours in by_cores)) for stage in by_cores[0]]
    total = ("**together**", f"{s.cpu_hours:,.0f}", *(_hours(sum(hours.values())) for hours in by_cores))
    return _table(("stage", "CPU hours", *(f"{cores:,} cores" for cores in CORES)), [*rows, total])


def _driver(s: Scale) -> str:
    look, record = s.growth("mix", "cpu_seconds"), s.bench.large["catalog"]["record_bytes"]
    rows = [
        ("memory of the driver", _bytes(s.growth("mix", "largest_mb") * (1 << 20)), f"{s.driver_gib:.1f} GiB"),
        ("to find a finished mix finished", f"{look * 1e6:.0f} µs of CPU", f"{s.look_seconds / 60:.1f} min"),
        ("record", _bytes(record), _bytes(record * s.units)),
    ]
    for name, field in (("journals", "journal_bytes"), ("build manifest", "manifest_bytes"), ("catalog", "catalog_bytes")):
        rows.append((name, _bytes(s.per_unit(field)), _bytes(s.per_unit(field) * s.units)))
    rows.append(
        (
            f"lock-file, {s.shards:,} shards of {gather.SHARD_TOKENS:,} tokens",
            f"{_bytes(s.lock_bytes / s.shards)} a shard",
            _bytes(s.lock_bytes),
        )
    )
    return _table(("", "per unit", "the whole mix"), rows)


def _disk(s: Scale) -> str:
    disk = s.total("disk")
    text, ids, shards = disk.pop("read"), disk.pop("tokenize"), disk.pop("gather")
    rows = [
        ("raw files", _bytes(s.raw_bytes), "not kept with `STREAM=1`"),
        ("documents", _bytes(text), "zstd"),
        ("token ids and their tables", _bytes(ids), "two bytes a token"),
        ("attributes and decisions", _bytes(sum(disk.values())), ""),
        ("shards", _bytes(shards), "two bytes a token; all that training reads"),
        ("**together**", _bytes(s.disk), f"{s.month_dollars:,.0f} dollars a month on S3"),
    ]
    return _table(("on disk", "size", ""), rows)


def _requests(s: Scale) -> str:
    rows = [
        (
            "PUT",
            f"{s.puts / 1e6:.2f} M",
            f"{s.objects / 1e6:.2f} M objects, outputs and records; large ones in pieces of {MULTIPART_BYTES >> 20} MiB",
        ),
        ("GET", f"{s.gets / 1e6:.2f} M", "at most: what a machine wrote or read before is in its cache"),
        (
            "LIST",
            f"{s.objects / LISTED:,.0f}",
            f"one per {LISTED:,} objects to find what is finished; and a GET per record not seen before",
        ),
    ]
    return _table(("requests", "", ""), rows)


def _limits(s: Scale) -> str:
    rows = [
        (
            f"{limit.what}, {limit.unit}", *(_three(limit.value * times) for times in (1, 10, 100)), f"{limit.bears:,} ({limit.why})",
            f"**{limit.times:,.1f}×**", limit.then,
        )
        for limit in s.limits()
    ]  # fmt: skip
    return _table(("", "1×", "10×", "100×", "bears", "reached at", "what then"), rows)


def _large(s: Scale) -> str:
    catalog = s.bench.large["catalog"]
    names = {"mix": "`make mix`, nothing to do", "stats": "`make stats`"} | {key: f"`{query}`" for key, query in large.QUERIES.items()}
    rows = [
        (name, f"{catalog[key]['seconds']:.1f}", f"{catalog[key]['cpu_seconds']:.1f}", f"{catalog[key]['largest_mb']:,.0f}")
        for key, name in names.items()
    ]
    return _table(("", "wall s", "CPU s", "largest process, MiB"), rows)


def _corpus(rates: Rates) -> str:
    return f"{rates.bytes / 1e6:,.0f} MB, {rates.bytes / rates.documents:,.0f} bytes a document"


def _bytes(size: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.{1 if size < 100 * factor else 0}f} {unit}"
    return f"{size:,.0f} bytes"


def _three(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.1f}" if hours >= 1 else f"{hours:.2f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
