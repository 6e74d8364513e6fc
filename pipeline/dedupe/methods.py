"""The steps of deduplication that a recipe can name, and their settings: `dedupe: [url, exact, {method: bff, shards: 10}]`.

Light, for it is read with every recipe; the work is done in the modules that each class names. `exact` stands for `[exact]`, `none`
for no step, a name in the list for that method as it is by default.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config import Integer, Model, Share

Small = Annotated[Integer, Field(ge=1, le=256)]
Rate = Annotated[Share, Field(gt=0)]
Shards = Annotated[Integer, Field(ge=1)]


class Exact(Model):
    """Texts equal in their normal form (exact.py)."""

    method: Literal["exact"] = "exact"


class Url(Model):
    """Documents of one normalised URL (taggers/url.py); those without a URL are never duplicates."""

    method: Literal["url"] = "url"


class Near(Model):
    """Near-duplicates by MinHash (minhash.py): `bands` bands of `rows` minima over runs of `ngram` words."""

    method: Literal["near"] = "near"
    ngram: Small = 5
    bands: Small = 14
    rows: Small = 8
    seed: Integer = 1


class Paragraphs(Model):
    """Paragraphs that stand anywhere before, as Dolma removes them (paragraphs.py), at the false-positive rate of its configurations.

    `shards`: so many groups of parts, each deduplicated by itself.
    """

    method: Literal["paragraphs"] = "paragraphs"
    false_positive_rate: Rate = 1e-6
    shards: Shards = 1


class Bff(Model):
    """Paragraphs most of whose n-grams of words stand anywhere before, as DCLM removes them (bff.py); the values of DCLM-Baseline.

    `shards`: so many groups of parts, each deduplicated by itself (DCLM took 10).
    """

    method: Literal["bff"] = "bff"
    ngram: Small = 13
    threshold: Share = 0.8
    false_positive_rate: Rate = 0.01
    shards: Shards = 1


def _steps(value: Any) -> Any:
    if isinstance(value, str):
        value = [] if value == "none" else [value]
    return [{"method": step} if isinstance(step, str) else step for step in value] if isinstance(value, list | tuple) else value


def _each_once(steps: "tuple[Step, ...]") -> "tuple[Step, ...]":
    """Two steps of one method would share one column of keys, and the second would find nothing of its own."""
    methods = [step.method for step in steps]
    for method in methods:
        if methods.count(method) > 1:
            raise ValueError(f"{method} is named twice; remove one")
    return steps


Step = Annotated[Exact | Url | Near | Paragraphs | Bff, Field(discriminator="method")]
Steps = Annotated[tuple[Step, ...], BeforeValidator(_steps), AfterValidator(_each_once)]
