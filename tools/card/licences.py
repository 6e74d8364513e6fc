"""Licences by the names that the hub's cards know.

In: licences as sources and packages state them, `BSD-3-Clause` or `CC-BY-4.0; the pages under Common Crawl's terms of use`. Out: the hub's
identifiers. Only what is one known licence and nothing else has one; the rest is `other`, and LICENSE.md says what it is.
Known are those of https://huggingface.co/docs/hub/repositories-licenses that name one text, as of 2025.
"""

from collections.abc import Iterable

from pipeline.config import suggestion
from pipeline.errors import ConfigError

IDENTIFIERS = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 "
    "bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 "
    "gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa "
    "unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other".split()
)
ALSO = {"cc0": "cc0-1.0", "odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}  # SPDX's names of the hub's
OTHER = "other"


def identifier(licence: str) -> str:
    """The hub's name of a licence, or `other`."""
    name = licence.strip().lower().removesuffix("-only").removesuffix("-or-later")
    name = ALSO.get(name, name)
    return name if name in IDENTIFIERS else OTHER


def identifiers(licences: Iterable[str]) -> list[str]:
    """Of several, each once, `other` last."""
    return sorted({identifier(licence) for licence in licences}, key=lambda name: (name == OTHER, name))


def check(licence: str) -> str:
    """A licence that a person chose, as the hub names it. Raises ConfigError for one that the hub has no name for."""
    name = licence.strip().lower()
    if name not in IDENTIFIERS:
        near = suggestion(name, IDENTIFIERS)
        raise ConfigError(f"LICENCE={licence}: the hub's cards know no such licence{near}; one that they do not name is LICENCE=other")
    return name
