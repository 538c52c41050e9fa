"""Generate a value of a class instead of text: the invoice in a letter."""

import asyncio
import sys
from datetime import date
from decimal import Decimal

import attrs

from neuralbox_async import AsyncNeuralBox, ParsingError

LETTER = "Dear customer, please pay 129.90 euros for 3 chairs until the 31st of March 2026. Yours, Oak & Sons"


@attrs.frozen
class Invoice:
    """An invoice."""

    sender: str
    amount: Decimal = attrs.field(metadata={"description": "in euros"})
    due: date
    items: list[str] = attrs.field(factory=list[str])


async def main() -> int:
    """Make one call, which may take one repair, and return an exit status."""
    async with AsyncNeuralBox() as client:
        try:
            result = await client.parse("gpt-5", f"Extract the invoice: {LETTER}", Invoice)
        except ParsingError as error:
            print(f"invalid, for {error.tokens_used} tokens: {error.text}")
            for problem in error.problems:
                print(f"{problem.path}: {problem.reason}")
            return 1
    invoice = result.value
    print(f"{invoice.amount} euros to {invoice.sender} until {invoice.due:%d %B %Y}")
    print(f"{len(result.attempts)} generations, {result.tokens_used} tokens used")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
