"""What a browser makes of server-sent events: the algorithm of the HTML standard, section 9.2.6, line by line."""

from __future__ import annotations

import json
import re

import attrs


@attrs.frozen
class Event:
    """An event as `EventSource` dispatches it; *data* is the JSON value."""

    kind: str
    data: object
    id: str


@attrs.define
class EventSource:
    """Interprets bytes that end with a whole event; *last_id* is what it sends when it connects again."""

    events: list[Event] = attrs.field(factory=list)
    comments: int = 0
    last_id: str = ""

    def feed(self, received: bytes) -> None:
        """Interpret *received*."""
        kind, data, event_id = "", "", self.last_id
        for line in re.split("\r\n|\n|\r", received.decode()):
            if not line:
                self.last_id = event_id
                if data:
                    self.events.append(Event(kind or "message", json.loads(data.removesuffix("\n")), event_id))
                kind, data = "", ""
            elif line.startswith(":"):
                self.comments += 1
            else:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match field:
                    case "event":
                        kind = value
                    case "data":
                        data += value + "\n"
                    case "id":
                        event_id = value
        assert "" == kind + data, "the bytes end in the middle of an event"

    @property
    def text(self) -> str:
        """The text of all events."""
        return "".join(event.data["text"] for event in self.events if event.kind == "message")

    @property
    def last(self) -> Event:
        """The last event."""
        return self.events[-1]


def interpret(received: bytes) -> EventSource:
    """Return the source that got all of *received*."""
    source = EventSource()
    source.feed(received)
    return source
