"""A plan as one picture: memory by phase as stacked bars, and cost against hours as a scatter. SVG by hand; PNG of the same
marks.

Knows marks (boxes, dots, lines, words) and where they go. `to_svg` needs nothing; `to_png` needs Pillow (the extra `picture`).
"""

import io
import math
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from tunesmith.plan.answer import Answer, Offer, Option
from tunesmith.plan.gpus import GIB
from tunesmith.plan.memory import Phase

WIDTH, HEIGHT = 1200, 560
COLOURS = {
    "weights": "#4e79a7", "adapter": "#76b7b2", "optimizer": "#9c755f", "gradients": "#f28e2b", "activations": "#59a14f",
    "logits": "#e15759", "workspace": "#bab0ac", "cache": "#edc948",
}
INK, FAINT, SPOT, ON_DEMAND = "#222222", "#cccccc", "#f28e2b", "#4e79a7"


class Mark(NamedTuple):
    """One thing on the sheet, in pixels from the upper left."""

    kind: str
    """box (x, y, w, h), dot (x, y, radius w), line (from x, y to w, h), words (at x, y)."""
    x: float
    y: float
    w: float = 0
    h: float = 0
    colour: str = INK
    text: str = ""
    size: int = 13
    anchor: str = "start"
    """start, middle or end: what of the words stands at x."""


def draw(found: Answer) -> list[Mark]:
    """The sheet of an answer: the memory of its cheapest option (or of the fastest, where nothing has a price), and all
    offers."""
    shown = found.cheapest or found.fastest
    marks = [Mark("box", 0, 0, WIDTH, HEIGHT, "#ffffff")]
    title = f"{found.question.shape.id}: {found.question.method}, {found.question.quantization} base"
    marks.append(Mark("words", 40, 34, text=title, size=18))
    if shown is None:
        return [*marks, Mark("words", 40, 80, text="Nothing fits.")]
    return marks + bars(shown) + scatter(found.options)


def bars(option: Option) -> list[Mark]:
    """GiB of each phase on one GPU, with the GPU's own as a line."""
    left, top, width, height = 70, 90, 430, 340
    capacity = option.gpu.mib * 2**20
    most = max(capacity, *(phase.total for phase in option.phases)) * 1.05
    count = f"{option.count} x " if option.count > 1 else ""
    marks = [Mark("words", left, 66, text=f"Memory by phase on {count}{option.gpu.name}, GiB", size=14)]
    marks += _scale(left, top, width, height, most / GIB)
    slot = width / len(option.phases)
    for number, phase in enumerate(option.phases):
        marks += _bar(phase, left + slot * (number + 0.18), slot * 0.64, top + height, height / most)
        marks.append(Mark("words", left + slot * (number + 0.5), top + height + 20, text=phase.name, size=12, anchor="middle"))
    y = top + height - height * capacity / most
    marks.append(Mark("line", left, y, left + width, y, "#e15759"))
    marks.append(Mark("words", left + width, y - 6, text=f"{option.gpu.gib:.1f} there", size=12, anchor="end", colour="#e15759"))
    named = [name for name in COLOURS if any(phase.parts.get(name) for phase in option.phases)]
    for number, name in enumerate(named):
        x, y = left + (number % 4) * 110, top + height + 48 + (number // 4) * 24
        marks += [Mark("box", x, y, 12, 12, COLOURS[name]), Mark("words", x + 18, y + 11, text=name, size=12)]
    return marks


def _bar(phase: Phase, x: float, width: float, bottom: float, scale: float) -> list[Mark]:
    marks = []
    for name in COLOURS:
        height = phase.parts.get(name, 0) * scale
        if height > 0:
            bottom -= height
            marks.append(Mark("box", x, bottom, width, height, COLOURS[name]))
    marks.append(Mark("words", x + width / 2, bottom - 5, text=f"{phase.total / GIB:.1f}", size=12, anchor="middle"))
    return marks


def _scale(left: float, top: float, width: float, height: float, most: float) -> list[Mark]:
    """Lines across at round numbers from 0 to `most`."""
    step = 10 ** math.floor(math.log10(most))
    step = next(each for each in (step / 5, step / 2, step) if most / each <= 8 or each == step)
    marks, value = [], 0.0
    while value <= most:
        y = top + height - height * value / most
        marks.append(Mark("line", left, y, left + width, y, FAINT))
        marks.append(Mark("words", left - 8, y + 4, text=f"{value:g}", size=12, anchor="end"))
        value = round(value + step, 10)
    return marks


def scatter(options: list[Option]) -> list[Mark]:
    """Dollars of a run against its hours, both as powers. Of each number of GPUs the cheapest offer, on demand and spot; the
    cheapest dot of each kind of GPU has its name."""
    left, top, width, height = 610, 90, 540, 340
    dots = [(option, offer) for option in options for offer in _cheapest(option)]
    marks = [Mark("words", left, 66, text="Cost of the run in US dollars, against hours", size=14)]
    if not dots:
        return [*marks, Mark("words", left, 100, text="No price is known for what fits.")]
    across, up = _Powers([offer.hours for _, offer in dots], left, left + width), _Powers(
        [offer.usd for _, offer in dots], top + height, top
    )
    for value in across.ticks():
        x = across.place(value)
        marks += [Mark("line", x, top, x, top + height, FAINT),
                  Mark("words", x, top + height + 20, text=f"{value:g} h", size=12, anchor="middle")]
    for value in up.ticks():
        y = up.place(value)
        marks += [Mark("line", left, y, left + width, y, FAINT),
                  Mark("words", left - 8, y + 4, text=f"{value:g}", size=12, anchor="end")]
    names: list[Mark] = []
    placed: list[Mark] = []
    seen: set[str] = set()
    for option, offer in dots:
        x, y = across.place(offer.hours), up.place(offer.usd)
        placed.append(Mark("dot", x, y, 4, colour=SPOT if offer.spot else ON_DEMAND))
        if option.gpu.name not in seen:
            seen.add(option.gpu.name)
            names.append(Mark("words", x, y, text=f"{option.count} x {option.gpu.name}", size=11))
    marks += placed + _apart(names, placed, left + width)
    legend = top + height + 48
    for number, (name, colour) in enumerate((("on demand", ON_DEMAND), ("spot, typical interruptions", SPOT))):
        marks += [Mark("dot", left + 6 + number * 130, legend + 6, 5, colour=colour),
                  Mark("words", left + 18 + number * 130, legend + 11, text=name, size=12)]
    return marks


def _cheapest(option: Option) -> list[Offer]:
    """On demand and spot, where there are such; the cheaper one first."""
    first = {offer.spot: offer for offer in reversed(option.offers)}
    return sorted(first.values(), key=lambda offer: offer.usd)


class _Powers:
    """An axis on which equal factors lie equally far apart, from `start` to `end` in pixels."""

    def __init__(self, values: list[float], start: float, end: float):
        self.low, self.high = math.log10(min(values) / 1.5), math.log10(max(values) * 1.5)
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        return self.start + (self.end - self.start) * (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times the powers of ten between the ends."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        found = [each * 10.0**power for power in powers for each in (1, 2, 5)]
        return [value for value in found if self.low <= math.log10(value) <= self.high]


def _apart(names: list[Mark], dots: list[Mark], right: float) -> list[Mark]:
    """Names beside their dots, where they lie on no other name and no dot; one that finds no place is left out."""
    taken = [(dot.x - 5, dot.y - 5, dot.x + 5, dot.y + 5) for dot in dots]
    found: list[Mark] = []
    for mark in names:
        width = 6.2 * len(mark.text)
        places = ((mark.x + 7, mark.y + 4), (mark.x - 7 - width, mark.y + 4), (mark.x - width / 2, mark.y - 8),
                  (mark.x - width / 2, mark.y + 17))
        for x, y in places:
            box = (x, y - 10, x + width, y + 2)
            if box[2] <= right and not any(_cross(box, other) for other in taken):
                taken.append(box)
                found.append(mark._replace(x=x, y=y))
                break
    return found


def _cross(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def to_svg(marks: list[Mark]) -> str:
    """The sheet as an SVG document."""
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">']
    for mark in marks:
        x, y, w, h = (f"{value:.1f}" for value in mark[1:5])
        if mark.kind == "box":
            lines.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{mark.colour}"/>')
        elif mark.kind == "dot":
            lines.append(f'<circle cx="{x}" cy="{y}" r="{w}" fill="{mark.colour}" fill-opacity="0.8"/>')
        elif mark.kind == "line":
            lines.append(f'<line x1="{x}" y1="{y}" x2="{w}" y2="{h}" stroke="{mark.colour}"/>')
        else:
            text = f'font-size="{mark.size}" text-anchor="{mark.anchor}" fill="{mark.colour}"'
            lines.append(f'<text x="{x}" y="{y}" {text}>{escape(mark.text)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def to_png(marks: list[Mark], pillow: Any) -> bytes:
    """The same as a PNG of twice the size. `pillow` has Pillow's modules Image, ImageDraw and ImageFont."""
    sheet = pillow.Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "#ffffff")
    pen = pillow.ImageDraw.Draw(sheet)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for mark in marks:
        x, y, w, h = (2 * value for value in mark[1:5])
        if mark.kind == "box":
            pen.rectangle((x, y, x + w, y + h), fill=mark.colour)
        elif mark.kind == "dot":
            pen.ellipse((x - w, y - w, x + w, y + w), fill=mark.colour)
        elif mark.kind == "line":
            pen.line((x, y, w, h), fill=mark.colour, width=2)
        else:
            font = pillow.ImageFont.load_default(2 * mark.size)
            pen.text((x, y), mark.text, fill=mark.colour, font=font, anchor=anchors[mark.anchor])
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()
