"""Chat with a model: each line of standard input is a turn. The API keeps no history, so each request has all of it."""

import sys
from collections.abc import Iterable

from neuralbox_sync import Message, NeuralBox, NeuralBoxError


def main(lines: Iterable[str]) -> None:
    """Print the reply to each of *lines*."""
    history: list[Message] = []
    with NeuralBox() as client:
        for line in lines:
            turn = Message("user", line.strip())
            try:
                with client.stream("gpt-5", [*history, turn], system="You are a helpful assistant.") as stream:
                    for text in stream.text_stream:
                        print(text, end="", flush=True)
            except NeuralBoxError as error:
                print(f"\n{error}", file=sys.stderr)
                continue  # a turn without a complete reply is not part of the history
            print()
            history += [turn, Message("assistant", stream.generation.content)]


if __name__ == "__main__":
    main(sys.stdin)
