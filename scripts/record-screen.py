"""Runs `tail` in a terminal, presses keys, and draws what was seen as an animated SVG.

Called by scripts/record-screen. Blocks, lines and boxes are drawn as shapes, so that the picture does
not depend on a font; each line of text is drawn once, however many pictures show it.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from html import escape
from xml.etree import ElementTree

import pyte

COLUMNS, ROWS = 110, 31
CELL_W, CELL_H, FONT = 8.0, 17.0, 13.2
MARGIN, BAR = 14.0, 26.0
COLOURS = {
    "default": "#d0d7de",
    "black": "#161b22",
    "blue": "#58a6ff",
    "cyan": "#3fc8d4",
    "green": "#3fb950",
    "brown": "#e3a53a",
    "red": "#ff7b72",
}
# The names that pyte gives the same colours when they are set by number.
COLOURS |= {
    code: COLOURS[name]
    for code, name in (
        ("0000ee", "blue"),
        ("00cdcd", "cyan"),
        ("00cd00", "green"),
        ("cdcd00", "brown"),
        ("cd0000", "red"),
    )
}
BACKGROUND = "#0d1117"
EIGHTHS = "▁▂▃▄▅▆▇█"


class Screen(pyte.Screen):
    """pyte does not know faint text. This class stores it as struck through, which nothing else uses."""

    def select_graphic_rendition(self, *attributes, **more):
        super().select_graphic_rendition(*attributes, **more)
        for attribute in attributes or (0,):
            if attribute in (38, 48):  # what follows is a colour
                break
            if attribute in (0, 2, 22):
                faint = attribute == 2
                self.cursor.attrs = self.cursor.attrs._replace(strikethrough=faint)


class Film:
    """The terminal, and the pictures of it."""

    def __init__(self, command):
        self.screen = Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.frames = []
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.pid = pid

    def feed(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.stream.feed(os.read(self.fd, 65536))
                except OSError:  # the program has ended, and its terminal with it
                    return

    def take(self, seconds):
        """Keeps a picture, to be shown for this many seconds."""
        lines = [self.line(y) for y in range(ROWS)]
        if self.frames and self.frames[-1][0] == lines:
            self.frames[-1][1] += seconds
        else:
            self.frames.append([lines, seconds])

    def line(self, y):
        """Returns runs of characters with the same style: column, text, style."""
        runs, row = [], self.screen.buffer[y]
        for x in range(COLUMNS):
            cell = row[x]
            fg, bg = (cell.bg, cell.fg) if cell.reverse else (cell.fg, cell.bg)
            style = (fg, bg, cell.bold, cell.strikethrough, cell.reverse)
            if runs and runs[-1][2] == style:
                runs[-1][1] += cell.data
            else:
                runs.append([x, cell.data, style])
        return tuple((x, text, style) for x, text, style in runs if text.strip() or style[4])

    def press(self, keys, seconds=0.35):
        for key in keys:
            os.write(self.fd, key.encode())
            self.feed(0.25)
            self.take(seconds)

    def wait(self, words):
        until = time.monotonic() + 60
        while not any(words in line for line in self.screen.display):
            self.feed(0.1)
            if time.monotonic() > until:
                raise SystemExit("waited in vain for " + words + "\n" + "\n".join(self.screen.display))

    def leave(self):
        os.write(self.fd, b"q")
        self.feed(1)
        os.waitpid(self.pid, 0)


def number(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")


def shapes(x, text, colour, faint):
    """Draws blocks and lines of a run as one path. Returns the path and the remaining text."""
    rects, left = [], []
    middle = CELL_H / 2
    for at, c in enumerate(text):
        px = (x + at) * CELL_W
        left.append(" ")
        if c in EIGHTHS:
            tall = CELL_H * (EIGHTHS.index(c) + 1) / 8
            rects.append((px, CELL_H - tall, CELL_W, tall))
        elif c == "▬":
            rects.append((px, middle - 3, CELL_W, 6))
        elif c == "─":
            rects.append((px, middle - 0.5, CELL_W, 1))
        elif c == "│":
            rects.append((px + CELL_W / 2 - 0.5, 0, 1, CELL_H))
        elif c in "╭╮╰╯":
            half = CELL_W / 2
            rects.append((px + (half - 0.5 if c in "╭╰" else 0), middle - 0.5, half + 0.5, 1))
            rects.append((px + half - 0.5, middle if c in "╭╮" else 0, 1, middle))
        else:
            left[-1] = c
    # Neighbours of the same height become one shape.
    path, open_rect = [], None
    for rect in [*rects, None]:
        if open_rect and rect and rect[1] == open_rect[1] and rect[0] == open_rect[0] + open_rect[2]:
            open_rect = (*open_rect[:2], open_rect[2] + rect[2], open_rect[3])
            continue
        if open_rect:
            rx, ry, w, h = map(number, open_rect)
            path.append(f"M{rx} {ry}h{w}v{h}h-{w}z")
        open_rect = rect
    classes = ' class="f"' if faint else ""
    drawn = f'<path fill="{colour}"{classes} d="{"".join(path)}"/>' if path else ""
    return drawn, "".join(left)


def draw_line(runs):
    out = []
    for x, text, (fg, bg, bold, faint, reverse) in runs:
        ink = COLOURS.get(fg, COLOURS["default"])
        paper = COLOURS.get(bg) if bg != "default" else None
        if reverse:
            ink = BACKGROUND if fg == "default" else ink
            paper = COLOURS["default"] if bg == "default" else paper
        if paper:
            width = number(len(text) * CELL_W)
            out.append(f'<rect x="{number(x * CELL_W)}" width="{width}" height="{number(CELL_H)}" fill="{paper}"/>')
        drawn, left = shapes(x, text, ink, faint)
        out.append(drawn)
        # Each word is stretched to its columns, so that it fits with any font.
        at = 0
        for word in left.split("  "):
            start = at + len(word) - len(word.lstrip(" "))
            stripped = word.strip(" ")
            at += len(word) + 2
            if not stripped:
                continue
            attributes = f'x="{number((x + start) * CELL_W)}" y="{number(CELL_H * 0.76)}"'
            attributes += f' textLength="{number(len(stripped) * CELL_W)}"'
            classes = " ".join(name for name, on in (("b", bold), ("f", faint)) if on)
            if classes:
                attributes += f' class="{classes}"'
            if ink != COLOURS["default"]:
                attributes += f' fill="{ink}"'
            out.append(f"<text {attributes}>{escape(stripped)}</text>")
    return "".join(out)


def svg(frames, title):
    width = COLUMNS * CELL_W + 2 * MARGIN
    height = ROWS * CELL_H + BAR + MARGIN
    tall = ROWS * CELL_H
    total = sum(seconds for _, seconds in frames)
    lines, uses, keys, at = {}, [], [], 0.0
    for n, (frame, seconds) in enumerate(frames):
        for y, runs in enumerate(frame):
            if runs:
                name = lines.setdefault(runs, f"l{len(lines)}")
                uses.append(f'<use href="#{name}" y="{number(n * tall + y * CELL_H)}"/>')
        keys.append(f"{number(100 * at / total)}%{{transform:translateY(-{number(n * tall)}px)}}")
        at += seconds
    still = max(range(len(frames)), key=lambda n: frames[n][1])
    definitions = "".join(f'<g id="{name}">{draw_line(runs)}</g>' for runs, name in lines.items())
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * n}" cy="14" r="5" fill="{c}"/>'
        for n, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(title)}">
<title>{escape(title)}</title>
<style>
text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}}
path{{shape-rendering:crispEdges}}.b{{font-weight:700}}.f{{opacity:.6}}
.film{{animation:film {number(total)}s step-end infinite;transform:translateY(-{number(still * tall)}px)}}
@keyframes film{{{"".join(keys)}}}
@media(prefers-reduced-motion:reduce){{.film{{animation:none}}}}
</style>
<defs>{definitions}<clipPath id="c"><rect width="{number(COLUMNS * CELL_W)}" height="{number(tall)}"/></clipPath></defs>
<rect width="100%" height="100%" rx="9" fill="{BACKGROUND}" stroke="#30363d"/>{dots}
<g transform="translate({number(MARGIN)} {number(BAR)})" clip-path="url(#c)"><g class="film" fill="{COLOURS["default"]}">{"".join(uses)}</g></g>
</svg>
"""


def check(text, frames):
    """Fails unless the drawing has every picture, with the text that the keys bring up."""
    root = ElementTree.fromstring(text)
    words = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    for wanted in ("citystream tail", "33,960", "“nyc crit”", "event id", "freeze or continue"):
        if wanted not in words:
            raise SystemExit(f"{wanted} is not in the drawing")
    if len(frames) < 20 or text.count("{transform:translateY(-") != len(frames):
        raise SystemExit(f"a drawing of {len(frames)} pictures")


def main():
    binary, path = sys.argv[1:]
    film = Film([binary, "tail", "--from", "beginning"])
    film.wait("● live")
    film.press("ww")
    feed = [binary, "produce", "--input", "data/city-events-2013-01.ndjson.gz"]
    feed += ["--rate", "4000/s", "--listen", "127.0.0.1:0"]
    sender = subprocess.Popen(feed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while sender.poll() is None:
        film.feed(0.7)
        film.take(0.6)
    film.wait("33,960 events")
    film.feed(1)
    film.take(2.5)
    film.press("ss", 0.8)
    film.press("/", 0.4)
    film.press(("n", "yc", " crit"), 0.3)
    film.press("\r", 1.2)
    film.press(("\x1b[B", "\x1b[B"), 0.4)
    film.press("\r", 3)
    film.press("\x1b", 0.3)
    film.press("\x1b", 0.8)
    film.press("?", 2.5)
    film.press("x", 2.5)
    film.leave()
    title = "tail on a month of real events: counts by city and type, windows, alerts, a filter, a record in full"
    text = svg(film.frames, title)
    check(text, film.frames)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    print(f"{path}: {len(film.frames)} pictures, {len(text) // 1024} KB")


main()
