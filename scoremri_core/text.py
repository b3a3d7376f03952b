"""Words of messages."""


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 image" and "3 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
