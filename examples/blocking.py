"""Use the API from blocking code: a call, a stream, and calls from many threads that share one client."""

from concurrent.futures import ThreadPoolExecutor

from neuralbox_sync import InsufficientTokensError, NeuralBox, NeuralBoxError


def main() -> None:
    """Make a call, read a stream, and make calls from a pool of threads."""
    with NeuralBox() as client:
        try:
            print(client.generate("gpt-5", "Write a haiku about rivers").content)
        except InsufficientTokensError:
            print("The balance is used up.")
        except NeuralBoxError as error:
            print(f"{error} (billed: {error.billed})")

        with client.stream("gpt-5", "Tell a story about a lighthouse") as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
        print(f"\n{stream.generation.tokens_used} tokens used")

        def define(word: str) -> str:
            return client.generate("gpt-5-nano", f"Define: {word}").content

        with ThreadPoolExecutor(4) as threads:
            for definition in threads.map(define, ["river", "bridge", "lighthouse"]):
                print(definition)


if __name__ == "__main__":
    main()
