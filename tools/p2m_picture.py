#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Draws how a guest's memory is mapped: an SVG from the `@map` lines of a console. Each map that the guest asked for is a
panel, with what the last `@p2m` line before it said. The letters are explained in docs/architecture.md.

    tools/p2m_picture.py console.log --title before --title after >p2m.svg
"""
import argparse
import re
import sys

COLUMNS = 64
CELL = 11
MARGIN = 16
LEFT = 72  # of the squares, behind the addresses
LINE = 26

KINDS = [
    ("G", "#0b3d62", "1 GB page"),
    ("M", "#2f7fb8", "2 MB page"),
    ("8", "#e8871e", "4 KB pages"),
    ("4", "#f6cf9d", "4 KB pages, half of them there"),
    ("R", "#7a6f9b", "ROM"),
    ("D", "#d9ead3", "on demand"),
    ("B", "#f4dede", "given back"),
    ("T", "#8a9a2b", "write-tracked"),
    ("S", "#b3a125", "shared"),
    ("m", "#9e9e9e", "emulated device"),
    ("X", "#555555", "real device"),
    ("!", "#c40000", "broken"),
    (".", "#ffffff", "nothing"),
]
COLOURS = {letter: colour for letter, colour, _ in KINDS}


def mix(one, other, part):
    """The colour that lies between two, `part` of the way."""
    parts = [(int(one[i:i + 2], 16), int(other[i:i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join("%02x" % round(a + (b - a) * part) for a, b in parts)


def colour(letter):
    if letter.isdigit():
        eighths = int(letter)
        return mix("#fbf1e4", COLOURS["4"], eighths / 4) if eighths < 4 else mix(COLOURS["4"], COLOURS["8"], eighths / 4 - 1)
    return COLOURS.get(letter, "#ff00ff")


def maps(text, guest):
    """[(title, letters)] of one guest, the first one if none is named."""
    found, title = [], ""
    for kind, name, rest in re.findall(r"@(p2m|map) guest=(\S+) ([^\r\n]*)", text):
        guest = guest or name
        if name != guest:
            continue
        values = dict(w.split("=", 1) for w in rest.split() if "=" in w)
        if kind == "p2m":
            title = "%s %% in large pages \u2014 now %s%s of 2 MB, %s of 4 KB; so far %s split, %s merged, %s collapsed" % (
                values["super"], values["1g"] + " of 1 GB, " if values["1g"] != "0" else "", values["2m"], values["4k"],
                values["splits"], values["merges"], values["collapses"])
            continue
        if int(values["gfn"], 16) == 0:
            found.append([title, ""])
        if found:
            found[-1][1] = found[-1][1].ljust(int(values["gfn"], 16) // 512, ".") + values["pages"]
    return found


def rect(x, y, width, fill):
    return '<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>' % (x, y, width, CELL, fill)


def panel(letters, top):
    """Equal neighbours are one rectangle; white lines make squares of them."""
    out, lines = [], ""
    for start in range(0, len(letters), COLUMNS):
        row, y = letters[start:start + COLUMNS], top + start // COLUMNS * CELL
        out.append(text(LEFT - 6, y + CELL - 2, size(start * 2), 9, 'text-anchor="end" fill="#666666"'))
        for run in re.finditer(r"(.)\1*", row):
            out.append(rect(LEFT + run.start() * CELL, y, len(run[0]) * CELL, colour(run[1])))
        lines += "M%d %dh%d" % (LEFT, y, len(row) * CELL)
    rows = (len(letters) + COLUMNS - 1) // COLUMNS
    for i in range(min(COLUMNS, len(letters)) + 1):
        lines += "M%d %dv%d" % (LEFT + i * CELL, top, rows * CELL)
    return out + ['<path d="%s" stroke="#ffffff"/>' % lines], rows * CELL


def size(megabytes):
    return "%d GB" % (megabytes // 1024) if megabytes and megabytes % 1024 == 0 else "%d MB" % megabytes


def text(x, y, what, size=12, more=""):
    return '<text x="%d" y="%d" font-size="%d" %s>%s</text>' % (
        x, y, size, more, what.replace("&", "&amp;").replace("<", "&lt;"))


def draw(found, names=()):
    width, y, out = LEFT + COLUMNS * CELL + MARGIN, MARGIN, []
    for i, (title, letters) in enumerate(found):
        out.append(text(MARGIN, y + 13, "%d. %s" % (i + 1, names[i]) if i < len(names) else "%d." % (i + 1), 13,
                        'font-weight="bold"'))
        y += LINE
        out.append(text(MARGIN, y + 6, title))
        y += LINE - 10
        squares, height = panel(letters, y)
        out += squares
        y += height + MARGIN
    used = {"8" if c in "5678" else "4" if c.isdigit() else c for _, letters in found for c in letters}
    x = MARGIN
    for letter, fill, what in [(None, None, "Each square is 2 MB of the guest's addresses:")] + KINDS:
        if letter and letter not in used:
            continue
        if x + 7 * len(what) > width:
            x, y = MARGIN, y + LINE
        if letter:
            out.append('<rect x="%d" y="%d" width="%d" height="%d" fill="%s" stroke="#999999"/>' % (x, y, CELL, CELL, fill))
            x += CELL + 5
        out.append(text(x, y + 10, what))
        x += 16 + 6 * len(what)
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif">\n'
            '<rect width="100%%" height="100%%" fill="#ffffff"/>\n%s\n</svg>\n') % (width, y + CELL + MARGIN, "\n".join(out))


def main():
    p = argparse.ArgumentParser(description="Draws the @map lines of a console as SVG.")
    p.add_argument("console", nargs="?", type=argparse.FileType(encoding="utf-8", errors="replace"), default=sys.stdin)
    p.add_argument("--guest", help="its name; the first one, if not given")
    p.add_argument("--title", action="append", default=[], help="of the first panel, and so on")
    a = p.parse_args()
    found = maps(a.console.read(), a.guest)
    if not found:
        sys.exit("p2m_picture: no @map line: a guest asks for them by hypercall 4, see docs/hypercalls.md")
    sys.stdout.write(draw(found, a.title))


if __name__ == "__main__":
    main()
