"""Stop sequences: the API has none, so the text ends here where the first of them is complete."""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """
    Cuts a text that arrives in pieces where one of the sequences *stops* is complete; that sequence is left out.

    If several end at the same place, the longest counts. However the text is cut into pieces, the result is the same.
    *stopped*: whether the text has ended.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(stops, key=len, reverse=True)
        self._longest = max(map(len, stops), default=0)
        self._held = ""  # the end of the text, which may be the beginning of a stop sequence
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Return what can be passed on after *piece* has arrived: nothing that may belong to a stop sequence."""
        if self.stopped:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        ends = [(place + len(stop), -len(stop)) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            end, length = min(ends)
            self._held, self.stopped = "", True
            return text[: end + length]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return the length of the longest end of *text* with which a stop sequence begins."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            if any(len(stop) > length and text.endswith(stop[:length]) for stop in self._stops):
                return length
        return 0
