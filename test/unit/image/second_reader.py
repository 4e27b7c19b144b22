#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The second reader (test/image_reader.py) agrees with the writer; it and ckpt-image(5) agree
with the tables in the code.

    second_reader.py MKCHAIN SOURCE_ROOT
"""
import os
import re
import struct
import subprocess
import sys
import tempfile

mkchain, root = sys.argv[1:3]
sys.path.insert(0, os.path.join(root, "test"))
sys.dont_write_bytecode = True
import image_reader  # noqa: E402

READER = os.path.join(root, "test", "image_reader.py")


def fail(what):
    print(f"second_reader.py: {what}", file=sys.stderr)
    sys.exit(1)


def run(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE).stdout


def parse_tables(text):
    """{record: [(field, type)]} and {file kind: record or "-"} from what mkchain schema prints."""
    tables, details, fields = {}, {}, None
    for line in text.splitlines():
        if line.startswith("detail "):
            _, kind, name = line.split()
            details[int(kind)] = name
        elif line.startswith("    "):
            name, kind = line.split(None, 1)
            fields.append((name, kind.strip()))
        elif line:
            fields = tables.setdefault(line, [])
    return tables, details


def compare(tables, name, fields, seen):
    """The Python table `fields` is the code's table `name`, and so are the tables in it."""
    if len(fields) != len(tables[name]):
        fail(f"record {name}: {len(fields)} fields here, {len(tables[name])} in the code")
    seen.add(name)
    for (have, kind), (want, text) in zip(fields, tables[name]):
        if have != want:
            fail(f"record {name}: field {have}, in the code {want}")
        if isinstance(kind, str):
            if kind != text:
                fail(f"record {name}, field {have}: {kind}, in the code {text}")
        elif isinstance(kind[0], list):
            if not text.startswith("list of "):
                fail(f"record {name}, field {have}: a list, in the code {text}")
            compare(tables, text[len("list of "):], kind[0], seen)
        else:
            compare(tables, text, kind, seen)


def check_tables():
    text = run(mkchain, "schema").decode()
    tables, details = parse_tables(text)
    seen = set()
    compare(tables, "tree", image_reader.TREE_RECORD, seen)
    for kind, name in details.items():
        fields = image_reader.DETAILS.get(kind)
        if (fields is None) != (name == "-"):
            fail(f"the detail of file kind {kind} is {name} in the code")
        if fields:
            compare(tables, name, fields, seen)
    if seen != set(tables):
        fail(f"records only in the code: {sorted(set(tables) - seen)}")
    return tables, details


def check_manual(tables, details):
    """The manual's literal blocks hold exactly the tables."""
    with open(os.path.join(root, "man", "ckpt-image.5"), encoding="utf-8") as f:
        page = f.read()
    blocks = re.findall(r'^\.\\" record tables\n\.Bd -literal\n(.*?)^\.Ed', page, re.M | re.S)
    have, _ = parse_tables("\n".join(blocks))
    for name in tables:
        if have.get(name) != tables[name]:
            fail(f"ckpt-image(5): record {name} is {have.get(name)}, in the code {tables[name]}")
    if set(have) != set(tables):
        fail(f"ckpt-image(5): records not in the code: {sorted(set(have) - set(tables))}")
    rows = dict(re.findall(r"^\.It (\d+) Ta [^\n]*? Ta (\S+)$", page, re.M))
    if {int(k): v for k, v in rows.items()} != details:
        fail(f"ckpt-image(5): file kinds {rows}, in the code {details}")


def check_pages(chain):
    run(mkchain, chain)
    image = image_reader.Image(image_reader.newest(chain))
    expected = open(os.path.join(chain, "expected.bin"), "rb").read()
    count = len(expected) // (8 + 4096)
    if count < 100:
        fail("too few pages to compare")
    for i in range(count):
        address, want = struct.unpack_from("<Q4096s", expected, i * (8 + 4096))
        # the tree is the same for all: some look-ups go the whole way, others straight to the pages
        if i % 97 == 0:
            have = run(sys.executable, READER, "page", chain, "100", hex(address))
        elif address < 0x7F0000000000:
            have = image_reader.find_page(image, 1, address // 4096)
        else:
            have = image_reader.find_page(image, 2, (address - 0x7F0000000000) // 4096)
        if have != want:
            fail(f"the page at {address:#x} differs")
    lines = run(sys.executable, READER, "segments", image.path).decode().splitlines()
    if lines[1] != "10000000 90000000 anonymous rw-p [heap]" or len(lines) != 3:
        fail(f"segments: {lines}")


tables, details = check_tables()
with tempfile.TemporaryDirectory() as scratch:
    check_pages(os.path.join(scratch, "x.ckpt"))
check_manual(tables, details)
