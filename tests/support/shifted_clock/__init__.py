"""A wall clock of Python processes that a test shifts while they run; monotonic clocks are not shifted."""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
VARIABLE: Final = "SHIFTED_CLOCK_FILE"


class ShiftedClock:
    """`environment` of the processes; they follow a shift within 50 ms."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    @property
    def environment(self) -> dict[str, str]:
        """Python imports `sitecustomize` of the folder, which follows the file."""
        return {"PYTHONPATH": str(FOLDER), VARIABLE: str(self._file)}

    def shift(self, seconds: float) -> None:
        """Set how far the clock is ahead of the true one."""
        staged = self._file.with_suffix(".new")
        staged.write_text(str(seconds))
        staged.replace(self._file)
