"""What is done to a source's documents: its filters and its own rules, put together and checked.

In: a Source and the filters it names, `mixes/filters/<filter>.yaml`. Out: Rules, which say everything that happens to a
document between reading and shards except deduplication. A filter is a part of a source's YAML that several sources can share,
a published recipe as a rule; what it drops is dropped by `<filter>/<predicate>`. Names that mean nothing are refused here,
at their line, before any work: taggers, kinds, files' settings, columns, and predicates that could not be decided.

Order: texts are edited by `prepare`; tokenized, tagged and dropped by the first predicate that holds, the source's own
first, then each filter's in its order; what stays is edited by `edit`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipeline.config import Document, Key, suggestion
from pipeline.recipe import MIXES, Filter, Source, filter_names, read, unknown
from pipeline.taggers import SPANS, TAGGERS, Tagger, needed
from pipeline.taggers.kinds import Attribute, configured
from pipeline.taggers.predicates import PredicateError, check_predicates, columns_of


@dataclass(frozen=True)
class Rules:
    """prepare, edit: names of taggers or attributes that give spans. drop: reason → SQL, in the order of blame."""

    prepare: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    drop: Mapping[str, str]
    edit: tuple[str, ...]

    @property
    def taggers(self) -> list[Tagger]:
        """The taggers without settings that the predicates and edits need, and the default ones; by name."""
        named = {TAGGERS[name].name for name in self.edit if name in TAGGERS}
        by_column = {tagger.name for tagger in needed({column for sql in self.drop.values() for column in columns_of(sql)})}
        return [TAGGERS[name] for name in sorted(named | by_column)]

    @property
    def used_attributes(self) -> list[Attribute]:
        """The attributes that a predicate or an edit names; by name."""
        columns = {column for sql in self.drop.values() for column in columns_of(sql)}
        return [a for name, a in sorted(self.attributes.items()) if name in self.edit or columns & a.columns.keys()]


def load_rules(name: str, folder: Path = MIXES) -> tuple[Source, Rules]:
    """A source and its rules. Raises ConfigError."""
    source, document = read(folder / "sources", "source", name, Source)
    rules = Rules((), {}, {}, ())
    for index, filter_name in enumerate(source.filters):
        key: Key = ("filters", index)
        known = sorted({*filter_names(folder), *filter_names()})
        if filter_name not in known:
            raise document.error(key, unknown("filter", filter_name, known, folder / "filters"))
        if filter_name in source.filters[:index]:
            raise document.error(key, f"{filter_name} is named twice; remove one")
        rules = _merged(rules, load_filter(filter_name, folder), document, key)
    own = _checked(source, folder, document, rules.attributes)
    rules = _merged(rules, own, document, ("attributes",))
    return source, replace(rules, drop={**own.drop, **{reason: sql for reason, sql in rules.drop.items() if reason not in own.drop}})


def load_filter(name: str, folder: Path = MIXES) -> Rules:
    """`mixes/filters/<name>.yaml`, of one's own recipes or, where these have none, of ours; its reasons are `<name>/<predicate>`."""
    folder = folder if name in filter_names(folder) else MIXES
    found, document = read(folder / "filters", "filter", name, Filter)
    rules = _checked(found, folder, document, {})
    return replace(rules, drop={f"{name}/{predicate}": sql for predicate, sql in rules.drop.items()})


def _merged(first: Rules, second: Rules, document: Document, key: Key) -> Rules:
    for name, attribute in second.attributes.items():
        if first.attributes.get(name, attribute) != attribute:
            raise document.error(key, f"two different attributes are called {name}; rename one of them")
    return Rules(
        _together(first.prepare, second.prepare), {**first.attributes, **second.attributes}, {**first.drop, **second.drop},
        _together(first.edit, second.edit),
    )  # fmt: skip


def _together(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first + tuple(name for name in second if name not in first)


def _checked(found: Source | Filter, folder: Path, document: Document, known: Mapping[str, Attribute]) -> Rules:
    """The rules that this file states; `known`: attributes of the filters that it names."""
    own: dict[str, Attribute] = {}
    for name, settings in found.attributes.items():
        own[name] = configured(name, settings, folder, document, ("attributes", name))
    attributes = {**known, **own}
    for field in ("prepare", "edit"):
        for index, name in enumerate(getattr(found, field)):
            _check_editor(name, attributes, document, (field, index))
    columns = {column: kind for attribute in attributes.values() for column, kind in attribute.columns.items()}
    _check_drop(found.drop, columns, document)
    return Rules(found.prepare, own, dict(found.drop), found.edit)


def _check_editor(name: str, attributes: Mapping[str, Attribute], document: Document, key: Key) -> None:
    tables = {tagger.name: tagger.tables for tagger in TAGGERS.values()} | {a.name: a.kind.tables for a in attributes.values()}
    editors = sorted(each for each, given in tables.items() if given.get("spans") == SPANS)
    if name not in editors:
        reason = "gives no spans" if name in tables else "is no tagger and no attribute"
        raise document.error(key, f"{name} {reason}{suggestion(name, editors)}; these edit: {', '.join(editors) or 'none'}")


def _check_drop(drop: Mapping[str, str], columns: Mapping[str, pa.DataType], document: Document) -> None:
    try:
        check_predicates(drop, columns)
    except PredicateError as error:
        message = str(error).removeprefix(f"{error.key}: ")
        raise document.error(("drop", error.key) if error.key else ("drop",), message) from None
