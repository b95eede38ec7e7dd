"""Draw charts as SVG text, from plain values: pure functions without script.

A drawing contains no script and no inline style, so that it is shown under a strict
Content-Security-Policy and in a file that is opened offline. It needs `stylesheet`, which the page
serves or the file contains.

* `draw_lanes`: a lane for each tag, and in it an interval for each digest.
* `draw_strips`, `draw_heat_map`: the coverage of registries and repositories, as blocks of time.
* `draw_bars`: the changes per day, by kind.
* `draw_layers`: the sizes of an image's layers.

A drawing is as wide as the place where it stands, and its height is fixed. Horizontal positions are
in percent, so that text keeps its size at every width. A label for which a narrow page has no room
has a class that says from which width of the page it is shown (`tagsync.drawing.room`).

The same values give the same bytes. All texts may come from a registry: they are escaped for XML,
and control characters are made visible.
"""

from tagsync.drawing.bars import draw_bars
from tagsync.drawing.coverage import draw_heat_map, draw_strips
from tagsync.drawing.lanes import draw_lanes
from tagsync.drawing.layers import draw_layers
from tagsync.drawing.stylesheet import stylesheet

__all__ = [
    "draw_bars",
    "draw_heat_map",
    "draw_lanes",
    "draw_layers",
    "draw_strips",
    "stylesheet",
]
