"""Text from the farm made safe for a terminal: what a board or a stranger on MQTT wrote must not steer it."""

MAX_SHOWN = 400  # characters of a foreign text in one line; a reason is a sentence, not a page


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    """`value` as one line of printable text; control and escape characters become visible escapes."""
    text = str(value)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown_log(text: str) -> str:
    """Log text for the screen: line ends and tabs stay, everything else that is not printable becomes visible."""
    kept = text.replace("\r\n", "\n")
    if kept.replace("\n", "").replace("\t", "").isprintable():
        return kept
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in kept
    )
