"""AMD's name of a GPU out of what programs print around it."""

from __future__ import annotations

import re

_INSTINCT = re.compile(r"\binstinct (MI[0-9]{2,3}[AX]?)\b(?! ?/)", re.IGNORECASE)


def marketed(name: str) -> str:
    """The name that the data sheet has; as it is where it is not plain, or could be two (``MI250X/MI250``).

    >>> marketed("Aqua Vanjaram [Instinct MI300X]"), marketed("AMD INSTINCT MI250 (MCM) OAM AC MBA")
    ('AMD Instinct MI300X', 'AMD Instinct MI250')
    >>> marketed("AMD Instinct MI250X / MI250")
    'AMD Instinct MI250X / MI250'
    """
    found = _INSTINCT.search(name)
    return f"AMD Instinct {found[1].upper()}" if found else name
