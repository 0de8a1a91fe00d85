#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of device state, written from docs/state-format.md alone.

    read_state.py FILE...       check each run of sections, and print it as section 7 says

It shares no code with the first and knows no more than the document; section numbers are those there.
"""
import json
import sys

SECTION_MAX, SECTIONS_MAX, DEPTH_MAX = 16 << 20, 4096, 21
UINT, NINT, BYTES, TEXT, ARRAY, MAP, SIMPLE = 0, 1, 2, 3, 4, 5, 7


class Bad(Exception):
    """The bytes are not what the document allows."""


def need(condition, what):
    if not condition:
        raise Bad(what)


# --- Section 1: items ---

class Items:
    """A reader of the items that there may be."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(n <= len(self.data) - self.at, "cut off")
        self.at += n
        return self.data[self.at - n:self.at]

    def head(self):
        """Major type and argument, which is in the shortest of its forms."""
        first = self.take(1)[0]
        major, short = first >> 5, first & 31
        if major == SIMPLE:
            need(short in (20, 21), "neither false nor true")
            return major, short
        need(major != 6, "a tag")
        if short < 24:
            return major, short
        need(short < 28, "a length that is not definite")
        size = 1 << (short - 24)
        value = int.from_bytes(self.take(size), "big")
        need(value >= (24, 1 << 8, 1 << 16, 1 << 32)[short - 24], "a head that is longer than needed")
        return major, value

    def text(self):
        major, n = self.head()
        need(major == TEXT, "not a text")
        return self.text_of(n)

    def text_of(self, n):
        try:
            text = self.take(n).decode()
        except UnicodeDecodeError:
            raise Bad("text that is not UTF-8") from None
        need("\0" not in text, "U+0000 in a text")
        return text

    def item(self, depth):
        """One item; byte strings in hexadecimal, as section 7 shows them."""
        major, n = self.head()
        if major == UINT:
            return n
        if major == NINT:
            need(n < 1 << 63, "an integer below -2^63")
            return -1 - n
        if major == BYTES:
            return self.take(n).hex()
        if major == TEXT:
            return self.text_of(n)
        if major == SIMPLE:
            return n == 21
        need(depth > 0, "nested too deeply")
        if major == ARRAY:
            return [self.item(depth - 1) for _ in range(self.count(n))]
        return dict(self.pairs(n, depth - 1))

    def count(self, n):
        need(n <= len(self.data) - self.at, "more items than bytes")
        return n

    def pairs(self, n, depth):
        """Keys are names and ascend: shorter ones first."""
        last = b""
        for _ in range(self.count(n)):
            key = self.text()
            raw = key.encode()
            need(is_name(key), "a key that is no name")
            need((len(last), last) < (len(raw), raw), "keys out of order")
            last = raw
            yield key, self.item(depth)


# --- Section 2: grammar ---

def is_name(text):
    return 1 <= len(text.encode()) <= 63 and all("!" <= c <= "~" for c in text)


def is_id(text):
    return 1 <= len(text.encode()) <= 63 and all(c >= " " and c != "\x7f" for c in text)


def check_parts(obj):
    need(type(obj["version"]) is int and 1 <= obj["version"] <= 65535, "version")
    need(isinstance(obj["fields"], dict) and isinstance(obj.get("opt", {}), dict), "fields or opt")


def check_inside(obj):
    """What is in an object's fields, and below it."""
    need(obj.get("opt", True), "an empty opt")
    for value in [*obj["fields"].values(), *obj.get("opt", {}).values()]:
        check_value(value)


def check_value(value):
    if isinstance(value, dict):
        need(set(value) - {"opt"} == {"fields", "version"}, "keys of an object")
        check_parts(value)
        check_inside(value)
    elif isinstance(value, list):
        need(len({type(v) for v in value}) <= 1, "an array of several kinds")
        for v in value:
            need(isinstance(v, (dict, bool, int)), "an array of what cannot be in one")
            check_value(v)


def read_section(items, whole):
    begin = items.at
    # The section itself, and the nesting of its fields and opt.
    section = items.item(1 + DEPTH_MAX)
    need(items.at - begin <= SECTION_MAX, "a section of more than 16 MiB")
    need(isinstance(section, dict) and set(section) - {"opt"} == {"id", "type", "fields", "version"},
         "keys of a section")
    need(isinstance(section["id"], str) and is_id(section["id"]), "id")
    need(isinstance(section["type"], str) and is_name(section["type"]), "type")
    check_parts(section)
    if whole:
        check_inside(section)
    return section


def read_state(data, whole=True):
    """The sections; unless whole, objects inside them are taken as they are (section 7)."""
    items, sections = Items(data), []
    while items.at < len(data):
        need(len(sections) < SECTIONS_MAX, "more than 4096 sections")
        sections.append(read_section(items, whole))
    return sections


def raw_sections(data):
    """The bytes of each section."""
    items, sections = Items(data), []
    while items.at < len(data):
        begin = items.at
        read_section(items, True)
        sections.append(data[begin:items.at])
    return sections


def main(args):
    for name in args:
        with open(name, "rb") as f:
            print(json.dumps(read_state(f.read()), ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
