"""Texts as forms, mails and logs damage them."""

from __future__ import annotations


def spoilt(text: str) -> dict[str, str]:
    """The text as forms, mails and logs damage it."""
    return {
        "plain": text,
        "crlf": text.replace("\n", "\r\n"),
        "collapsed": "\n".join(" ".join(line.split()) for line in text.splitlines()),
        "quoted": "".join(f"> {line}\n" for line in text.splitlines()),
        "fenced": f"here it is:\n```\n{text}```\n",
        "double spaced": text.replace("\n", "\n\n"),
    }
