"""The same axes for two charts that are shown side by side, so that what is longer on paper is more.

In: two charts of one title. Out: both, with scales that span the numbers of either, the same categories in the same order and the same
colours for them, and narrow enough for half a page. Views are paired by their titles, or else by their places, and all layers of a view
share its scales. A scale that cannot be known without drawing (of numbers that Vega computes, or one with bounds of its own) stays.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tools.report.blocks import Cell, Chart
from tools.report.model.curves import apart

WIDTH, NARROWER = 420, 0.66  # px of a chart that says no width; what becomes of those that do
CHANNELS = {"x": ("x", "x2"), "y": ("y", "y2"), "color": ("color",), "strokeDash": ("strokeDash",), "shape": ("shape",)}
INNER = ("hconcat", "vconcat", "concat")
OWN_BOUNDS = ("domainMin", "domainMax", "domainRaw")

View = dict[str, Any]
Columns = Mapping[str, Sequence[Cell]]
Item = TypeVar("Item")
Domain = tuple[float, float] | list[Any]  # numbers that an axis spans, or categories


def alike(left: Chart, right: Chart) -> tuple[Chart, Chart]:
    """Copies of both."""
    specs = copy.deepcopy(dict(left.spec)), copy.deepcopy(dict(right.spec))
    views = _views(specs[0]), _views(specs[1])
    for one, two in ((views[0][name], views[1][name]) for name in views[0] if name in views[1]):
        for channel in CHANNELS:
            _unite(channel, one, two, left.columns, right.columns)
        _place_names(one)
        _place_names(two)
    for channel in CHANNELS:
        _unite_shared(channel, *specs)
    return narrow(replace(left, spec=specs[0])), narrow(replace(right, spec=specs[1]))


def narrow(chart: Chart) -> Chart:
    """A copy for half a page."""
    spec = copy.deepcopy(dict(chart.spec))
    for view in _tree(spec):
        if isinstance(view.get("width"), int):
            view["width"] = round(view["width"] * NARROWER)
    if "width" not in spec and not _children(spec):
        spec["width"] = WIDTH
    return replace(chart, spec=spec)


def merged(one: Sequence[Item], two: Sequence[Item]) -> list[Item]:
    """All of both, in the first one's order; what only the second has stands after what it follows there."""
    found = list(one)
    for place, item in enumerate(two):
        if item not in one:
            found.insert(found.index(two[place - 1]) + 1 if place else 0, item)
    return found


def _children(spec: View) -> list[View]:
    return [child for name in INNER for child in spec.get(name, ())] + ([spec["spec"]] if "spec" in spec else [])


def _tree(spec: View) -> Iterator[View]:
    yield spec
    for child in _children(spec):
        yield from _tree(child)


def _views(spec: View) -> dict[str, View]:
    """Every view that has scales of its own, a mark or layers; by its title, or else by its place."""
    found = {}
    for place, view in enumerate(view for view in _tree(spec) if not _children(view)):
        title = view.get("title", "")
        found[str(title.get("text", "") if isinstance(title, dict) else title) or str(place)] = view
    return found


def _encodings(view: View, inherited: View | None = None) -> Iterator[tuple[View, View, str]]:
    """Of the view and its layers: the encoding, all that holds there, and the kind of mark; not of layers with numbers of their own."""
    own = view.get("encoding", {})
    holds, mark = {**(inherited or {}), **own}, view.get("mark", "")
    yield own, holds, mark["type"] if isinstance(mark, dict) else mark
    for layer in view.get("layer", ()):
        if "data" not in layer:
            yield from _encodings(layer, holds)


def _definitions(channel: str, view: View) -> list[View]:
    """Those that a column is behind, or a number."""
    found = [own[name] for own, _, _ in _encodings(view) for name in CHANNELS[channel] if name in own]
    return [definition for definition in found if "field" in definition or "datum" in definition]


def _fields(channel: str, view: View) -> list[View]:
    return [definition for definition in _definitions(channel, view) if "field" in definition]


def _unite(channel: str, one: View, two: View, left: Columns, right: Columns) -> None:
    if any(view.get("resolve", {}).get("scale", {}).get(channel) == "independent" for view in (one, two)):
        return
    _unite_bounds(channel, one, two)
    mine, other = _domain(channel, one, left), _domain(channel, two, right)
    if mine is None or other is None or type(mine) is not type(other):
        return
    united = {"domain": _union(mine, other), **_ranges(channel, one, two)}
    for view, domain in ((one, mine), (two, other)):
        for definition in _fields(channel, view):
            definition["scale"] = {**definition.get("scale", {}), **united}
        side = {"x": "width", "y": "height"}.get(channel, "")
        if isinstance(domain, list) and domain and isinstance(view.get(side), int):
            view[side] = round(view[side] * len(united["domain"]) / len(domain))  # as much room for each as before


def _unite_bounds(channel: str, one: View, two: View) -> None:
    """Of axes that end at a number of their own."""
    for name, farther in (("domainMin", min), ("domainMax", max)):
        found = [
            definition["scale"] for view in (one, two) for definition in _fields(channel, view) if name in (definition.get("scale") or {})
        ]
        if found and all(isinstance(scale[name], int | float) for scale in found):
            bound = farther(scale[name] for scale in found)
            for scale in found:
                scale[name] = bound


def _unite_shared(channel: str, *specs: View) -> None:
    """Of views that share a scale among themselves, of which some were in one chart alone."""
    if all(spec.get("resolve", {}).get("scale", {}).get(channel) == "shared" for spec in specs):
        fields = [definition for spec in specs for view in _views(spec).values() for definition in _fields(channel, view)]
        scales = [definition["scale"] for definition in fields if isinstance((definition.get("scale") or {}).get("domain"), list)]
        domains = [scale["domain"] for scale in scales]
        if domains and all(isinstance(bound, int | float) for domain in domains for bound in domain):
            united = [min(min(domain) for domain in domains), max(max(domain) for domain in domains)]
            for scale in scales:
                scale["domain"] = united


def _domain(channel: str, view: View, columns: Columns) -> Domain | None:
    """What the view's scale spans; None where that is not known here."""
    fields = _fields(channel, view)
    scales = [definition.get("scale", {}) for definition in fields]
    if not fields or any(scale is None or any(name in scale for name in OWN_BOUNDS) for scale in scales):
        return None
    numeric = any(definition.get("type") == "quantitative" for definition in fields)
    explicit = [scale["domain"] for scale in scales if "domain" in scale]
    if explicit:
        domain = explicit[0]
        if not isinstance(domain, list) or (numeric and len(domain) != 2):
            return None
        return (domain[0], domain[1]) if numeric else domain
    if _is_computed(view, fields, columns):
        return None
    if not numeric:
        return _categories(channel, fields, columns)
    away = any(scale.get("type") == "log" or scale.get("zero") is False for scale in scales)
    given = [definition.get("datum") for definition in _definitions(channel, view)]
    return _extent(channel, view, [*given, *(value for definition in fields for value in columns[definition["field"]])], away)


def _is_computed(view: View, fields: Sequence[View], columns: Columns) -> bool:
    changed = any(definition.get("aggregate") or definition.get("bin") for definition in fields)
    changed |= any(step.keys() != {"filter"} for step in view.get("transform", ()))
    return changed or any(definition["field"] not in columns for definition in fields)


def _extent(channel: str, view: View, values: Sequence[Any], away: bool) -> Domain | None:
    """away: from zero, which otherwise belongs to it, as Vega-Lite has it."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if not numbers or channel not in ("x", "y") or any(_is_stacked(holds, mark) for _, holds, mark in _encodings(view)):
        return None
    return (min(numbers), max(numbers)) if away else (min(*numbers, 0.0), max(*numbers, 0.0))


def _is_stacked(encoding: View, mark: str) -> bool:
    """Whether Vega-Lite adds the numbers up."""
    beside = {"xOffset", "yOffset", "x2", "y2"} & encoding.keys()
    plain = any(encoding.get(name, {}).get("stack", True) is None for name in ("x", "y"))
    return mark in ("bar", "area") and "field" in encoding.get("color", {}) and not beside and not plain


def _categories(channel: str, fields: Sequence[View], columns: Columns) -> Domain | None:
    if channel not in ("x", "y", "color") or any(definition.get("sort") is not None for definition in fields):
        return None
    found = dict.fromkeys(value for definition in fields for value in columns[definition["field"]] if value is not None)
    as_they_come = any("sort" in definition for definition in fields)
    return list(found) if as_they_come else sorted(found, key=lambda value: (isinstance(value, str), value))


def _union(one: Domain, two: Domain) -> list[Any]:
    if isinstance(one, tuple):
        return [min(one[0], two[0]), max(one[1], two[1])]
    found = merged(one, list(two))
    return sorted(found) if all(isinstance(value, int) for value in found) else found


def _ranges(channel: str, one: View, two: View) -> dict[str, list[Any]]:
    """Colours, dashes or shapes that are named one by one: each category keeps its own, that of the chart with more of them."""
    scales: list[View] = [
        next((d["scale"] for d in _fields(channel, view) if isinstance((d.get("scale") or {}).get("range"), list)), {})
        for view in (one, two)
    ]
    if not all(isinstance(scale.get("domain"), list) and len(scale["domain"]) == len(scale["range"]) for scale in scales):
        return {}
    more, fewer = sorted(scales, key=lambda scale: -len(scale["range"]))
    signs = dict(zip(fewer["domain"], fewer["range"], strict=True)) | dict(zip(more["domain"], more["range"], strict=True))
    return {"range": [signs[name] for name in _union(scales[0]["domain"], scales[1]["domain"])]}


def _place_names(view: View) -> None:
    """The names beside the curves' ends (curves.py), apart on the axes as they are now."""
    for layer in view.get("layer", ()):
        if layer.get("name") == "names":
            scales = {channel: _definitions(channel, view)[0]["scale"] for channel in ("x", "y", "color")}
            low, high = scales["y"]["domain"]
            rows = layer["data"]["values"]
            for row, place in zip(rows, apart([row["end"] for row in rows], (low, high), view["height"]), strict=True):
                row["place"] = place
            for encoding in (part["encoding"] for part in layer["layer"]):
                for channel in scales.keys() & encoding.keys():
                    encoding[channel]["scale"] = scales[channel]
