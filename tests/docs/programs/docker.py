"""docker build and push without an image: the Dockerfile's instructions are checked against the context that they would copy."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.docs.programs.asked import Arguments, refuse, remember, remembered

TAG = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+:[\w.-]+")


def docker(arguments: Sequence[str]) -> int:
    parser = Arguments("docker")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build")
    build.add_argument("-t", "--tag", required=True)
    build.add_argument("context", type=Path)
    commands.add_parser("push").add_argument("tag")
    asked = parser.parse_args(arguments)
    if not TAG.fullmatch(asked.tag):
        refuse(f"invalid reference format: {asked.tag}")
    images = remembered().get("images", {})
    if asked.command == "build":
        check(asked.context)
        remember(images=images | {asked.tag: "built"})
    elif asked.tag not in images:
        refuse(f"An image does not exist locally with the tag: {asked.tag}")
    else:
        remember(images=images | {asked.tag: "pushed"})
    return 0


def check(context: Path) -> None:
    """Refuse a Dockerfile that names what is not there, or that is none."""
    dockerfile = context / "Dockerfile"
    if not dockerfile.is_file():
        refuse(f"failed to read dockerfile: no such file: {dockerfile}")
    instructions = re.sub(r"\\\n", " ", dockerfile.read_text()).splitlines()
    if not instructions or not instructions[0].startswith("FROM "):
        refuse("no build stage in current context: the first instruction is FROM")
    for instruction in instructions:
        word, _, rest = instruction.partition(" ")
        words = [each for each in shlex.split(rest, comments=True) if not each.startswith("--chown=")]
        if word == "COPY":
            for source in words[:-1]:
                if not (context / source).exists():
                    refuse(f"{source}: not found in the context")
        elif word == "RUN":
            for option, file in pairwise(words):
                if option == "-r" and not (context / file).is_file():  # the context is what was copied to the working folder
                    refuse(f"Could not open requirements file: {file}")
        elif word not in ("FROM", "WORKDIR", "ENV", "USER", "ENTRYPOINT", "CMD"):
            refuse(f"unknown instruction: {word}")
