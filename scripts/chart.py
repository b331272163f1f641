"""Line charts as SVG pictures for the pages: labelled axes, a legend, colours for a light and a dark page."""
import dataclasses
import html
import math

WIDTH, HEIGHT = 800, 450
LEFT, RIGHT, TOP, BOTTOM = 72, 780, 48, 396
# Lines differ in dashes as well, for those who do not tell the colours apart.
DASHES = ["", "7 4", "2 3", "10 3 2 3"]
STYLE = """
.page { fill: #ffffff } text { fill: #24292f } .grid { stroke: #d8dee4 } .axis { stroke: #57606a; fill: none }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round } .dot { stroke: none }
.s0 { stroke: #0969b8; fill: #0969b8 } .s1 { stroke: #bf4a0c; fill: #bf4a0c } .s2 { stroke: #24803b; fill: #24803b } .s3 { stroke: #8046c2; fill: #8046c2 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .axis { stroke: #8b949e }
.s0 { stroke: #63b0ff; fill: #63b0ff } .s1 { stroke: #ff9b5e; fill: #ff9b5e } .s2 { stroke: #6fd889; fill: #6fd889 } .s3 { stroke: #c79bff; fill: #c79bff }
}
.line { fill: none }
"""


@dataclasses.dataclass
class Series:
    name: str
    points: list  # of (x, y)


@dataclasses.dataclass
class Axis:
    label: str
    powers_of_two: bool = False

    def place(self, values, first, last, margin):
        """Maps values to pixels; also the ticks, each with its text."""
        scale = math.log2 if self.powers_of_two else float
        low, high = min(map(scale, values)), max(map(scale, values))
        spare = (high - low) * margin or 1e-3 * max(1.0, abs(high)) * (margin > 0) or 0.5
        if margin or low == high:
            low, high = low - spare, high + spare
        ticks = powers(low, high) if self.powers_of_two else steps(low, high)
        return lambda value: first + (scale(value) - low) / (high - low) * (last - first), ticks


@dataclasses.dataclass
class Chart:
    title: str
    x: Axis
    y: Axis
    series: list


def powers(low, high):
    every = max(1, round((high - low) / 9))
    names = [(30, "G"), (20, "M"), (10, "K"), (0, "")]
    text = lambda n: next(f"{2 ** (n - power)}{name}" for power, name in names if n >= power)
    return [(2**n, text(n)) for n in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1) if n >= 0 and n % every == 0]


def steps(low, high):
    """Four to nine round values."""
    power = 10 ** math.floor(math.log10((high - low) / 8))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= (high - low) / 8 * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(n * step, f"{n * step:.{digits}f}") for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def draw(chart):
    xs, ys = ([point[i] for series in chart.series for point in series.points] for i in (0, 1))
    if not xs or not all(math.isfinite(value) for value in xs + ys):
        raise ValueError("chart: expected finite points, got none or others")
    x, x_ticks = chart.x.place(xs if chart.x.powers_of_two else [0, *xs], LEFT, RIGHT, 0)
    y, y_ticks = chart.y.place(ys, BOTTOM, TOP, 0.05)
    middle_x, middle_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
           f'font-size="13"><style>{STYLE}</style><rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text x="{middle_x}" y="28" text-anchor="middle" font-size="15">{html.escape(chart.title)}</text>']
    for value, text in y_ticks:
        out.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{RIGHT}"/><text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in x_ticks:
        out.append(f'<path class="axis" d="M{x(value):.1f} {BOTTOM}v5"/><text x="{x(value):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{text}</text>')
    out += [f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>',
            f'<text x="{middle_x}" y="{HEIGHT - 12}" text-anchor="middle">{html.escape(chart.x.label)}</text>',
            f'<text x="18" y="{middle_y}" text-anchor="middle" transform="rotate(-90 18 {middle_y})">{html.escape(chart.y.label)}</text>']
    longest = max(len(series.name) for series in chart.series)
    legend = RIGHT - 50 - 7.2 * longest
    for number, series in enumerate(chart.series):
        look, row = number % len(DASHES), TOP + 14 + 20 * number
        dash = f' stroke-dasharray="{DASHES[look]}"' if DASHES[look] else ""
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in series.points)
        out.append(f'<polyline class="s{look} line"{dash} points="{path}"/>')
        if len(series.points) <= 32:
            out += [f'<circle class="s{look} dot" r="3.5" cx="{x(a):.1f}" cy="{y(b):.1f}"/>' for a, b in series.points]
        out.append(f'<path class="s{look} line"{dash} d="M{legend:.0f} {row}h34"/><text x="{legend + 42:.0f}" y="{row + 4}">{html.escape(series.name)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def write(path, chart):
    path.write_text(draw(chart), encoding="utf-8")
