"""The declarations under `mixes/`: sources, mixes and tokenizers, as typed models.

In: `mixes/<mix>.yaml`, `mixes/sources/<source>.yaml`, `mixes/filters/<filter>.yaml`, `mixes/tokenizers/<tokenizer>.yaml`. Out: Mix,
Source, Filter and TokenizerSpec, checked as a whole when they are loaded: keys, types, numbers, names of other declarations, and
(rules.py) taggers and every predicate against the columns that exist. Nothing is downloaded and no text is read. Errors quote file and line
(config.py).
"""

import hashlib
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config import LARGEST, Amount, Bytes, Count, Document, Flag, Integer, M, Model, Share, load, shown, suggestion
from pipeline.dedupe.methods import Exact, Steps
from pipeline.errors import ConfigError

MIXES = Path(__file__).resolve().parents[1] / "mixes"
PACKAGE = re.compile(r"pypi:[\w.-]+==[\w.!+-]+|npm:(?:@[\w.-]+/)?[\w.-]+@[\w.+-]+")
DocumentField = Literal["id", "text", "created", "added"]


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"'{text}' is not {what}")
        return text

    return AfterValidator(check)


Text = Annotated[str, _matching(r"(?s).*\S.*", "text that says something")]
Name = Annotated[str, _matching(r"[a-z0-9][a-z0-9._-]{0,99}", "a name of at most 100 lower-case letters, digits, '.', '_' and '-'")]
ColumnName = Annotated[str, _matching(r"[a-z][a-z0-9_]*", "a name of lower-case letters, digits and '_'")]
Sha256 = Annotated[str, _matching(r"[0-9a-f]{64}", "a sha256 of 64 lower-case hex digits")]
Repository = Annotated[str, _matching(r"[\w.-]+/[\w.-]+", "a hub repository such as allenai/OLMoE-mix-0924")]
FileName = Annotated[str, _matching(r"[\w@][\w@. +~=-]*", "a file name: letters, digits and @._+~=- without folders")]


class Hub(Model):
    """Where a source lies on the Hugging Face hub: a data set, a pinned revision, globs over its paths."""

    repo: Repository
    revision: Text
    files: tuple[Text, ...] = Field(min_length=1)
    exclude: tuple[Text, ...] = ()
    gated: Flag = False
    terms: Text | None = None  # where a person accepts them
    notes: tuple[Text, ...] = ()  # what is known to be wrong or missing in this release; said once when it is downloaded


class Published(Model):
    """What the publisher says the source holds after filtering: targets with a tolerance, never assertions."""

    documents: Count
    bytes: Bytes
    tokens: Count


class SamplePackage(Model):
    """Files inside one archive of a package registry. `members` and `exclude` are globs over paths in the archive."""

    package: str
    file: FileName
    sha256: Sha256
    licence: Text
    members: tuple[Text, ...] = Field(min_length=1)
    exclude: tuple[Text, ...] = ()
    reader: Text | None = None  # None: chosen by each member's suffix

    @field_validator("package")
    @classmethod
    def _known_registry(cls, package: str) -> str:
        if not PACKAGE.fullmatch(package):
            raise ValueError(f"'{package}' is not pypi:NAME==VERSION or npm:NAME@VERSION")
        return package


class Validation(Model):
    """The held-out set: this share of the documents, by hash of the id, and at least so many documents."""

    share: Share = 0.005
    documents: Integer = 8


def _dolma_fields() -> dict[DocumentField, tuple[str, ...]]:
    return {"id": ("id",), "text": ("text",), "created": ("created",), "added": ("added",)}


class Filter(Model):
    """Rules that sources share under a name: a published recipe, or one's own. rules.py says what the fields do."""

    name: Name
    title: Text
    origin: Text  # where its thresholds are published
    prepare: tuple[ColumnName, ...] = ()
    attributes: dict[ColumnName, dict[str, Any]] = Field(default_factory=dict)
    drop: dict[ColumnName, Text] = Field(default_factory=dict)
    edit: tuple[ColumnName, ...] = ()


class Source(Model):
    """One source: where it comes from, its fields, its rules, its licence, its offline sample."""

    name: Name
    title: Text
    licence: Text
    hub: Hub | None = None
    published: Published | None = None
    fields: dict[DocumentField, tuple[Text, ...]] = Field(default_factory=_dolma_fields)
    failure_budget: str | int = 0
    filters: tuple[Name, ...] = ()
    prepare: tuple[ColumnName, ...] = ()
    attributes: dict[ColumnName, dict[str, Any]] = Field(default_factory=dict)
    drop: dict[ColumnName, Text] = Field(default_factory=dict)
    edit: tuple[ColumnName, ...] = ()
    dedupe: Steps = (Exact(),)
    validation: Validation = Validation()
    sample: tuple[SamplePackage, ...] = ()

    @field_validator("fields")
    @classmethod
    def _text_is_mapped(cls, fields: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if not fields.get("text"):
            raise ValueError("text is missing: say which upstream field holds it, such as `text: [text, content]`")
        return fields

    @field_validator("failure_budget")
    @classmethod
    def _number_or_share(cls, budget: str | int) -> str | int:
        _failures(budget, 0)
        return budget

    @model_validator(mode="after")
    def _size_known_for_hub(self) -> "Source":
        if self.hub and not self.published:
            raise ValueError("`hub` needs `published` beside it: its token count says how many files a budget asks for")
        return self

    def failures_allowed(self, records: int) -> int:
        """How many of `records` may fail before the run stops."""
        return _failures(self.failure_budget, records)


def _failures(budget: str | int, records: int) -> int:
    text = str(budget).strip()
    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"\d+(\.\d+)?%", text) and Fraction(text[:-1]) <= 100:
        return int(Fraction(text[:-1]) / 100 * records)
    raise ValueError(f"'{budget}' is neither a number of records nor a share such as 0.1%")


class MixSource(Model):
    """A source's part in a mix.

    Shares are weight × repeats, normalised. A pool holds each instance at most `max_repeats` times: `repeats` unless
    given. So `repeats: 2` doubles a source against its weight, and `max_repeats: 2` alone merely allows it to be read
    twice where its weight asks for more than there is.
    """

    weight: Amount
    repeats: Amount = Fraction(1)
    max_repeats: Amount | None = None

    @model_validator(mode="after")
    def _cap_is_enough(self) -> "MixSource":
        if self.max_repeats is not None and self.max_repeats < self.repeats:
            raise ValueError(f"max_repeats {float(self.max_repeats):g} is less than repeats {float(self.repeats):g}")
        return self

    @property
    def cap(self) -> Fraction:
        """How often a pool may hold one instance."""
        return self.repeats if self.max_repeats is None else self.max_repeats


class LocalTokenizer(Model):
    """A tokenizer.json of one's own; a relative path starts at the folder of recipes."""

    file: Text
    eos_token: Text


class Mix(Model):
    """How much of which source, in which order, how long. `sources` keeps the order of the file."""

    name: Name
    description: Text
    tokenizer: Annotated[
        Annotated[Name, Tag("by name")] | Annotated[LocalTokenizer, Tag("by file")],
        Discriminator(lambda value: "by file" if isinstance(value, dict | LocalTokenizer) else "by name"),
    ]
    sequence_length: Annotated[Integer, Field(ge=1)]
    seed: Integer
    tokens: Count | None = None  # of the whole training run
    epochs: Amount = Fraction(1)  # at most so many passes over the pool
    dedupe_across: Flag = False
    sources: dict[Name, MixSource] = Field(min_length=1)

    @property
    def shares(self) -> dict[str, Fraction]:
        """Each source's requested share of the instances; they sum to 1 exactly."""
        parts = {name: source.weight * source.repeats for name, source in self.sources.items()}
        total = sum(parts.values(), Fraction(0))
        return {name: part / total for name, part in parts.items()}


class TokenizerHub(Model):
    repo: Repository
    file: Text
    revision: Text


class TokenizerSpec(Model):
    """A tokenizer.json, pinned by its sha256, and where to get it: on the hub, in a package, or as a local file."""

    name: Name
    hub: TokenizerHub | None = None
    sample: SamplePackage | None = None
    file: Path | None = None
    sha256: Sha256
    vocab_size: Integer  # the largest id is one less
    eos: Integer
    eos_token: Text
    pad: Integer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerSpec":
        if self.eos >= self.vocab_size:
            raise ValueError(f"eos {self.eos} is not below vocab_size {self.vocab_size}")
        if not (self.hub or self.sample or self.file):
            raise ValueError("one of hub, sample and file must say where the tokenizer is")
        return self


def mix_names(folder: Path = MIXES) -> list[str]:
    return _names(folder)


def filter_names(folder: Path = MIXES) -> list[str]:
    return _names(folder / "filters")


def source_names(folder: Path = MIXES) -> list[str]:
    return _names(folder / "sources")


def tokenizer_names(folder: Path = MIXES) -> list[str]:
    return _names(folder / "tokenizers")


def load_mix(name: str, folder: Path = MIXES) -> Mix:
    """`mixes/<name>.yaml`. Raises ConfigError, also for a source or a tokenizer that no file declares."""
    mix, document = read(folder, "mix", name, Mix)
    for source in mix.sources:
        if source not in source_names(folder):
            key = ("sources", source)
            raise document.error(key, unknown("source", source, source_names(folder), folder / "sources"))
    if isinstance(mix.tokenizer, str) and mix.tokenizer not in tokenizer_names(folder):
        known = tokenizer_names(folder)
        raise document.error(("tokenizer",), unknown("tokenizer", mix.tokenizer, known, folder / "tokenizers"))
    return mix


def load_source(name: str, folder: Path = MIXES) -> Source:
    """`mixes/sources/<name>.yaml`. Raises ConfigError, also for rules that name what does not exist (rules.py)."""
    from pipeline.rules import load_rules

    return load_rules(name, folder)[0]


def load_tokenizer(name: str | LocalTokenizer, folder: Path = MIXES) -> TokenizerSpec:
    """`mixes/tokenizers/<name>.yaml`, or the spec of a local tokenizer.json, read from the file itself."""
    if isinstance(name, LocalTokenizer):
        return _local(folder / name.file, name.eos_token)
    spec, document = read(folder / "tokenizers", "tokenizer", name, TokenizerSpec)
    return spec if spec.file is None else spec.model_copy(update={"file": document.path.parent / spec.file})


def read(folder: Path, kind: str, name: str, model: type[M]) -> tuple[M, Document]:
    """`<folder>/<name>.yaml` as a model, and its document for errors at its lines. Raises ConfigError."""
    if name not in _names(folder):
        raise ConfigError(unknown(kind, name, _names(folder), folder))
    loaded, document = load(folder / f"{name}.yaml", model)
    if loaded.name != name:  # type: ignore[attr-defined]
        raise document.error(("name",), f"the file is called {name}.yaml; give both the same name")
    return loaded, document


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def unknown(kind: str, name: str, known: Sequence[str], folder: Path) -> str:
    """What to say of a name that no file declares."""
    listed = f"; there are {', '.join(known)}" if known else ""
    return f"unknown {kind} `{name}`{suggestion(name, known)} (no {shown(folder / name)}.yaml{listed})"


def _local(path: Path, eos_token: str) -> TokenizerSpec:
    try:
        content = path.read_bytes()
        ids = _ids(orjson.loads(content))
    except OSError as error:
        raise ConfigError(f"tokenizer.file: {shown(path)} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"tokenizer.file: {shown(path)} is not a Hugging Face tokenizer.json ({error!r})") from error
    if eos_token not in ids:
        near = suggestion(eos_token, (token for token in ids if token.startswith(eos_token[:1])))
        raise ConfigError(f"tokenizer.eos_token: {shown(path)} has no token '{eos_token}'{near}")
    stem = path.stem if path.stem != "tokenizer" else path.absolute().parent.name
    return TokenizerSpec(
        name=re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "local",
        file=path,
        sha256=hashlib.sha256(content).hexdigest(),
        vocab_size=max(ids.values()) + 1,
        eos=ids[eos_token],
        eos_token=eos_token,
    )


def _ids(tokenizer: Any) -> dict[str, int]:
    """The vocabulary of a tokenizer.json with its added tokens. Raises ValueError, KeyError or TypeError if it is none."""
    vocabulary = tokenizer["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {token: number for number, (token, _) in enumerate(vocabulary)}
    ids.update((token["content"], token["id"]) for token in tokenizer.get("added_tokens", []))
    for token, number in ids.items():
        if type(token) is not str or type(number) is not int or not 0 <= number < LARGEST:
            raise ValueError(f"the token {token!r} has the id {number!r}")
    return ids
