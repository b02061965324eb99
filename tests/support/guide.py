"""Parses guides: named fenced blocks, those with a block of their expected output, and regions of programs that they show."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

PRINTS: Final = "text"
LANGUAGES: Final = ("js", "sh")
_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REGION: Final = re.compile(
    r"^[ \t]*// region (\S+)\n(.*?)^[ \t]*// endregion$", re.MULTILINE | re.DOTALL
)
_MARK: Final = "=== example "


@dataclass(frozen=True, slots=True)
class Example:
    """An example and its expected output, in which `…` is any text within a line."""

    name: str
    language: str
    code: str
    prints: str

    def matches(self, text: str) -> bool:
        """Whether the output is as expected."""
        lines = self.prints.strip().splitlines()
        said = [re.escape(line).replace("…", "[^\n]*") for line in lines]
        return re.fullmatch("\n".join(said), text.strip()) is not None


def examples_of(guide: Path) -> list[Example]:
    """The examples of a guide, in order.

    Raises:
        ValueError: a block has no name, an unknown language, or no output block.
    """
    runs: dict[str, tuple[str, str]] = {}
    prints: dict[str, str] = {}
    fences = _FENCE.findall(guide.read_text())
    for info, body in fences:
        language, _, name = info.partition(" ")
        if language not in (PRINTS, *LANGUAGES) or not re.fullmatch(r"[a-z-]+", name):
            raise ValueError(f"a block needs a language of {LANGUAGES} and a name: ```{info}")
        if language == PRINTS:
            prints[name] = body
        else:
            runs[name] = (language, body)
    if Counter([*runs, *prints]) != Counter(dict.fromkeys(runs, 2)) or len(fences) != 2 * len(runs):
        raise ValueError(f"each example needs an output block: {sorted({*runs} ^ {*prints})}")
    return [Example(name, *run, prints[name]) for name, run in runs.items()]


def fences_of(guide: Path) -> list[tuple[str, str, str]]:
    """The blocks of a guide: language, name and content."""
    fences = _FENCE.findall(guide.read_text())
    return [(*info.partition(" ")[::2], body) for info, body in fences]


def regions_of(source: Path) -> dict[str, str]:
    """The named regions of a program, without their indentation: from `// region NAME` to `// endregion`.

    Raises:
        ValueError: a region does not end.
    """
    text = source.read_text()
    found = {name: dedent(body).strip("\n") + "\n" for name, body in _REGION.findall(text)}
    if open_ := set(re.findall(r"// region (\S+)", text)) - set(found):
        raise ValueError(f"{source.name}: regions without an end: {sorted(open_)}")
    return found


def script_of(examples: Sequence[Example], prelude: str) -> str:
    """One program that runs the examples of a language in order and prints a marker before each."""
    say = {"js": 'console.log("{}");', "sh": 'echo "{}"'}
    parts = [prelude]
    for example in examples:
        parts += [say[example.language].format(_MARK + example.name), example.code]
    return "\n".join(parts)


def printed_by(output: str) -> dict[str, str]:
    """The output of each example, by name."""
    parts = output.split(_MARK)[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}
