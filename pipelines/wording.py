"""How messages are worded for people, wherever they come from."""

import re


def plain(text: str) -> str:
    """Times in a text to the second, as people write them: numpy's have nine more digits, nearly always zeros."""
    return re.sub(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.0{9}(?!\d)", r"\1", text)
