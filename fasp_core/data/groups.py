"""Names of groups as tables write them: in one form, told from a missing value, and told where two are nearly the same.

Names are compared in Unicode's canonical form (NFC), so that an accent typed in one way or the other is the same. The
compatibility form (NFKC) would also merge what a reader can tell apart, such as `men²` and `men2`; what it would merge
is told instead, as are names that differ by case alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

LONGEST_SHOWN, MOST_SHOWN = 60, 12

# Words for a missing value, in lower case: pandas' own list, and what R, SQL, JavaScript, spreadsheets and pivot tables
# write. "NA" is one of them, for it stands far more often for a missing value than for Namibia or North America.
MISSING = frozenset(
    """
    #n/a|#n/a n/a|#na|-1.#ind|-1.#qnan|-nan|1.#ind|1.#qnan|<na>|n/a|na|null|nan|none|+nan|nat|n.a.|n.a|n / a|n\\a
    na_character_|(null)|<null>|[null]|\\n|nil|<nil>|nothing|undefined|missing|(missing)|<missing>|[missing]|(none)|<none>
    [none]|(na)|(n/a)|[na]|[n/a]|(nan)|(blank)|(blanks)|<blank>|blank|empty|(empty)|<empty>|#nv|#n/d|#n/b|#n/v
    #value!|#ref!|#div/0!|#name?|#null!|#num!|#getting_data|#wert!|#bezug!|not available|not applicable
    """.replace("\n    ", "|")
    .strip()
    .split("|")
) - {""}
_SIGNS = frozenset("-‐‑‒–—―−.…?_")  # a cell of nothing else is a missing value
# Default_Ignorable_Code_Point of Unicode without joiners and variation selectors, and control characters
_INVISIBLE = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHAPING = "\u200c\u200d\ufe00-\ufe0f"  # joiners and variation selectors: beyond ASCII they shape what stands before
_IDLE = re.compile(rf"(?:(?<=[\0-\x7f])|^)[{_SHAPING}]+|[\u200c\u200d]+(?=\s|$)")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("‘’ʼ", "'"))


def clean(name: str) -> str:
    """A name in canonical form, without invisible letters, with single spaces between words; "" if nothing is left."""
    name = " ".join(name.split())  # at all of Unicode's spaces, line breaks included
    name = _IDLE.sub("", _INVISIBLE.sub("", name))
    return unicodedata.normalize("NFC", " ".join(name.split()))


def is_missing(name: str) -> bool:
    """Whether a cleaned name is a usual spelling of a missing value."""
    return not set(name) - _SIGNS - {" "} or unicodedata.normalize("NFKC", name).casefold() in MISSING


def alike(names: Iterable[str]) -> list[str]:
    """A sentence for every two or more names that differ by case, dashes, apostrophes or compatible letters alone."""
    by_look: defaultdict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        look = re.sub(f"[{_SHAPING}]", "", unicodedata.normalize("NFKC", name)).casefold().translate(_DASHES)
        by_look[look].append(name)
    several = [group for group in by_look.values() if len(group) > 1]
    said = []
    for group in several[:MOST_SHOWN]:
        names_of = " and ".join(f"'{shown(name)}'" for name in group)
        said.append(f"{names_of} are {len(group)} groups here: spell them the same if they are one.")
    return said + ([f"So are {len(several) - MOST_SHOWN} more."] if len(several) > MOST_SHOWN else [])


def shown(name: str) -> str:
    """A name that is not too long for a message."""
    return name if len(name) <= LONGEST_SHOWN else name[: LONGEST_SHOWN - 1] + "…"


def counted(counts: Mapping[str, int]) -> str:
    """`women (12), men (3)`, and how many more there are."""
    listed = [f"{shown(name)} ({count:,})" for name, count in list(counts.items())[:MOST_SHOWN]]
    more = len(counts) - MOST_SHOWN
    return ", ".join(listed) + (f" and {more:,} more" if more > 0 else "")
