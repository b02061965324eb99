"""The examples of a guide: fenced blocks by name, each with the text that it prints."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PRINTS: Final = "text"
LANGUAGES: Final = ("js", "sh")
_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK: Final = "=== example "


@dataclass(frozen=True, slots=True)
class Example:
    """A block that runs, and what the guide says it prints; `…` is any text within a line."""

    name: str
    language: str
    code: str
    prints: str

    def printed(self, text: str) -> bool:
        """Whether that is what was printed."""
        lines = self.prints.strip().splitlines()
        said = [re.escape(line).replace("…", "[^\n]*") for line in lines]
        return re.fullmatch("\n".join(said), text.strip()) is not None


def examples_of(guide: Path) -> list[Example]:
    """All of them, in order.

    Raises:
        ValueError: a block has no name or no known language, or does not say what it prints.
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
        raise ValueError(
            f"each block has one that says what it prints: {sorted({*runs} ^ {*prints})}"
        )
    return [Example(name, *run, prints[name]) for name, run in runs.items()]


def script_of(examples: Sequence[Example], prelude: str) -> str:
    """One program: the examples of a language one after another, told apart by what is printed before each."""
    say = {"js": 'console.log("{}");', "sh": 'echo "{}"'}
    parts = [prelude]
    for example in examples:
        parts += [say[example.language].format(_MARK + example.name), example.code]
    return "\n".join(parts)


def printed_by(output: str) -> dict[str, str]:
    """What each example printed, by its name."""
    parts = output.split(_MARK)[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}
