"""Valid examples made hostile: bytes, text, JSON trees and tables, a few changes at a time. Seeded, so repeatable."""

from __future__ import annotations

import csv
import io
import json
import struct
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    -(10**400),
    1e308,
    -1e308,
    1e-320,
    0.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    False,
    None,
)
TEXTS = (
    "",
    " ",
    "\0",
    "\ufeff",
    "\ud800",
    "\udfff\ud83d",
    "\u202e",
    "٣",
    "L٠H٣",
    "L0H0-999999999",
    "L0N0-999999",
    "L9999H9999",
    "L0H3-1",
    "-1",
    "1e999",
    "nan",
    "inf",
    "0x10",
    "1_000",
    "²",
    "9" * 5000,
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "~nobody/x",
    "a" * 5000,
    "<script>window.ran=1</script>",
    "[x](javascript:alert(1))",
    "$$\\frac{1}{0}$$",
    "{name}",
    "{item}",
    "{}",
    "%s%n",
    "\r\n",
    "\x1b[31m",
    "=cmd|' /C calc'!A0",
)
BYTES = (b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 3000, b'{"a":' * 2000, b'"', b",", b"\n")


LONGEST_TABLE = 2_000_000  # characters, about


def of_bytes(rng: Random, raw: bytes) -> bytes:
    """Bits turned; stretches cut, doubled, swapped for hostile ones; at times nothing but noise."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 2, 4, 8, 64)))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:to] = b""
            case 2:
                data[at:at] = data[at:to] * rng.choice((1, 2, 50))
            case 3:
                data[at:at] = rng.choice(BYTES)
            case 4:
                data[at:to] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
            case _:
                data[at:to] = rng.randbytes(to - at)
    return bytes(data)


def of_text(rng: Random, text: str) -> str:
    """The same of characters; lone surrogates stay in it."""
    return of_bytes(rng, text.encode("utf-8", "surrogatepass")).decode(
        "utf-8", rng.choice(("replace", "ignore", "surrogateescape"))
    )


def of_tree(rng: Random, tree: Any) -> Any:
    """A JSON tree with some of its places changed: other types, huge numbers, deep nesting, keys lost or renamed."""
    copy = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 2, 5))):
        copy = _changed(rng, copy)
    return copy


def _changed(rng: Random, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        match rng.randrange(8):
            case 0:
                del tree[key]
            case 1:
                tree[rng.choice(TEXTS)] = tree.pop(key)
            case 2:
                tree[rng.choice(TEXTS)] = _leaf(rng)
            case _:
                tree[key] = _changed(rng, tree[key])
        return tree
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        match rng.randrange(8):
            case 0:
                del tree[at]
            case 1:
                tree[at:at] = [tree[at]] * rng.choice((1, 10, 1000))
            case 2:
                tree.append(_leaf(rng))
            case _:
                tree[at] = _changed(rng, tree[at])
        return tree
    return _leaf(rng)


def _leaf(rng: Random) -> Any:
    match rng.randrange(7):
        case 0 | 1 | 2:
            return rng.choice(NUMBERS)
        case 3 | 4:
            return rng.choice(TEXTS)
        case 5:
            return rng.choice(([], {}, [[]], [None], {"": {}}))
        case _:
            deep: Any = rng.choice((1, []))
            for _ in range(rng.choice((3, 60, 300, 480))):
                deep = [deep] if rng.random() < 0.5 else {"a": deep}
            return deep


def written(tree: Any) -> bytes:
    """JSON, with NaN and whole numbers of any length, as Python writes it."""
    return json.dumps(tree).encode()


def of_json(rng: Random, tree: Any) -> bytes:
    """A document whose tree or whose bytes are changed."""
    if rng.random() < 0.7:
        raw = written(of_tree(rng, tree))
        return raw if rng.random() < 0.85 else of_bytes(rng, raw)
    return of_bytes(rng, written(tree))


def of_table(rng: Random, rows: list[list[str]]) -> bytes:
    """A CSV file whose cells, rows or columns are changed, or its bytes."""
    table = [list(row) for row in rows]
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 5))):
            row = rng.randrange(len(table))
            column = rng.randrange(len(table[row])) if table[row] else 0
            match rng.randrange(7):
                case 0 | 1 | 2 if table[row]:
                    table[row][column] = str(rng.choice(TEXTS + NUMBERS)) if rng.random() < 0.9 else "x" * 200_000
                case 3:
                    table[row:row] = [table[row]] * rng.choice((1, 3, 200))
                case 4:
                    for line in table:
                        line.insert(column, line[column] if column < len(line) else "")
                case 5:
                    del table[row][column : column + 1]
                case _:
                    table[row].append("")
    out = io.StringIO()
    writer = csv.writer(out, rng.choice((csv.excel, csv.unix_dialect)))
    for line in table:
        if out.tell() < LONGEST_TABLE:
            writer.writerow(line)
    raw = out.getvalue().encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        raw = b"\xef\xbb\xbf" + raw
    return raw if rng.random() < 0.75 else of_bytes(rng, raw)


def of_tensors(rng: Random, raw: bytes) -> bytes:
    """A safetensors file with a changed header of the right length, or changed bytes."""
    if rng.random() < 0.5:
        return of_bytes(rng, raw)
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header = of_json(rng, json.loads(raw[8:end]))
    length = len(header) if rng.random() < 0.8 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return struct.pack("<Q", length) + header + raw[end:]
