"""The models of the vendor's price list, with their prices in NeuralBox tokens."""

from __future__ import annotations

from typing import Final

import attrs

UNKNOWN_MODEL_PRICE: Final = 1


@attrs.frozen
class Model:
    """One model of the price list. *price* is its base price, *max_price* the price with the most expensive options."""

    category: str
    price: int
    max_price: int
    min_plan: str = "basic"


def _models(category: str, prices: dict[str, int | tuple[int, int]]) -> dict[str, Model]:
    return {slug: _model(slug, category, price) for slug, price in prices.items()}


def _model(slug: str, category: str, prices: int | tuple[int, int]) -> Model:
    price, max_price = prices if isinstance(prices, tuple) else (prices, prices)
    return Model(category, price, max_price, "free" if slug in _FREE_PLAN_MODELS else "basic")


_FREE_PLAN_MODELS = frozenset(
    {
        "gpt-5-nano",
        "claude-haiku-4.5",
        "gemini-2.5-flash",
        "deepseek-v3",
        "grok-4-fast",
        "photon-flash",
        "dall-e-3",
        "luma-ray2-flash",
        "musicgen",
        "whisper",
    }
)

MODELS: Final[dict[str, Model]] = {
    **_models(
        "text",
        {
            "gpt-5-nano": 1,
            "claude-haiku-4.5": 1,
            "gemini-2.5-flash": 1,
            "deepseek-v3": 1,
            "grok-4-fast": 1,
            "gpt-5": 2,
            "deepseek-r1": 1,
            "gpt-5.2": 4,
            "claude-sonnet-4.5": 4,
            "gemini-3-pro": 3,
            "claude-opus-4.5": 6,
            "gpt-5.2-pro": 39,
        },
    ),
    **_models(
        "image",
        {
            "photon-flash": 1,
            "dall-e-3": (5, 13),
            "gpt-image-1.5": (1, 21),
            "flux-1.1-pro": 7,
            "flux-kontext-pro": 7,
            "sd-3.5-large": 12,
            "midjourney-v6": 14,
            "midjourney-turbo": 28,
            "recraft-v3": 7,
            "photon-1": 3,
            "nano-banana-pro": 7,
            "nano-banana-pro-2k": 27,
        },
    ),
    **_models(
        "video",
        {
            "luma-ray2-flash": 42,
            "kling-v2.1": 44,
            "kling-v2.1-pro": 88,
            "minimax-video": 88,
            "luma-ray2": 125,
            "luma-ray2-1080p": 151,
            "mj-video-480p": 84,
            "mj-video-720p": 269,
        },
    ),
    **_models("audio", {"musicgen": 9, "elevenlabs-music": 58}),
    **_models(
        "tts",
        {
            "minimax-tts": 1,
            "openai-tts": 3,
            "openai-tts-hd": 6,
            "gpt-4o-mini-tts": 3,
            "elevenlabs-flash": 18,
            "elevenlabs-v2": 35,
        },
    ),
    **_models("stt", {"whisper": 2, "gpt-4o-transcribe": 2, "elevenlabs-scribe": 2}),
    **_models(
        "tool",
        {
            "upscale": 1,
            "face-swap": 1,
            "remove-bg": 1,
            "style-transfer": 1,
            "colorize": 1,
            "inpaint": 3,
            "text-ocr": 1,
        },
    ),
}
