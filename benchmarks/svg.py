"""Compare SVGBuilder with svgwrite and drawsvg at turning points into SVG text.

    python -m benchmarks.svg

Each library runs in its own process, to measure its peak memory. The time is from existing points
to the document as a string. A spiral on A4 is one line of 40,000 points; the lines here are
shorter, since drawsvg's time grows with the square of a line's length.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain

import click

Lines = list[list[tuple[float, float]]]
WIDTH, HEIGHT = 420, 594
STYLE = {'fill': 'none', 'stroke': 'black'}


def svg_builder(lines: Lines) -> str:
    from libraries.drawing.builder import SVGBuilder

    svg = SVGBuilder(WIDTH, HEIGHT, STYLE)
    for line in lines:
        svg.polyline(line)
    return svg.to_string()


def svgwrite_default(lines: Lines) -> str:
    return _svgwrite(lines, validate=True)


def svgwrite_unchecked(lines: Lines) -> str:
    return _svgwrite(lines, validate=False)


def _svgwrite(lines: Lines, validate: bool) -> str:
    import svgwrite

    drawing = svgwrite.Drawing(size=(f'{WIDTH}mm', f'{HEIGHT}mm'), debug=validate)
    for line in lines:
        drawing.add(drawing.polyline(line, **STYLE))
    return str(drawing.tostring())


def drawsvg(lines: Lines) -> str:
    import drawsvg

    drawing = drawsvg.Drawing(WIDTH, HEIGHT)
    for line in lines:
        drawing.append(drawsvg.Lines(*chain.from_iterable(line), **STYLE))
    return str(drawing.as_svg())


SIDES: dict[str, Callable[[Lines], str]] = {
    'SVGBuilder': svg_builder,
    'svgwrite': svgwrite_default,
    'svgwrite, debug=False': svgwrite_unchecked,
    'drawsvg': drawsvg,
}


def measure_side(side: str, points: int, line_points: int) -> dict[str, float]:
    """Seconds, megabytes of text, and peak megabytes above those of the points themselves."""
    source = random.Random(1)
    lines = [
        [(source.uniform(0, WIDTH), source.uniform(0, HEIGHT)) for _ in range(line_points)]
        for _ in range(points // line_points)
    ]
    SIDES[side]([lines[0][:2]])
    before = _peak_megabytes()
    started = time.perf_counter()
    text = SIDES[side](lines)
    seconds = time.perf_counter() - started
    return {
        'seconds': seconds,
        'text': len(text) / 1e6,
        'peak': _peak_megabytes() - before,
    }


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere.
    return peak / 1e6 if sys.platform == 'darwin' else peak / 1e3


def _in_own_process(side: str, points: int, line_points: int) -> dict[str, float]:
    sizes = ['--points', str(points), '--line-points', str(line_points)]
    command = [sys.executable, '-m', 'benchmarks.svg', *sizes, '--side', side]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(finished.stdout)
    return result


@click.command()
@click.option('--points', default=1_000_000, show_default=True, type=click.IntRange(1))
@click.option('--line-points', default=10_000, show_default=True, type=click.IntRange(2))
@click.option('--side', type=click.Choice(list(SIDES)), hidden=True)
def main(points: int, line_points: int, side: str | None) -> None:
    """Compare how long libraries take to turn points into SVG text."""
    line_points = min(points, line_points)
    if side:
        click.echo(json.dumps(measure_side(side, points, line_points)))
        return
    click.echo(f'{points:,} points in lines of {line_points:,}\n')
    click.echo(f'{"":24}{"seconds":>9}{"times":>8}{"peak MB":>9}{"text MB":>9}')
    ours = 0.0
    for name in SIDES:
        result = _in_own_process(name, points, line_points)
        ours = ours or result['seconds']
        click.echo(
            f'{name:24}{result["seconds"]:9.2f}{result["seconds"] / ours:8.1f}'
            f'{result["peak"]:9.0f}{result["text"]:9.1f}'
        )


if __name__ == '__main__':
    main()
