"""Prompts of several turns, as one text: what a user asks, what was replied, what is asked then."""

from __future__ import annotations

TURN = "\x1e"
"""Between two turns: the character that Unicode calls the record separator, which no text of people holds."""


def conversation(*turns: str) -> str:
    """The prompt that these turns make: the user's first, then a reply and the user's next in alternation."""
    return TURN.join(turn.replace(TURN, " ") for turn in turns)


def turns(prompt: str) -> list[str]:
    """The turns of a prompt; only itself if it is a single one."""
    return prompt.split(TURN)
