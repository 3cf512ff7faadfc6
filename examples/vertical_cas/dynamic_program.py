"""The encounter as a Markov decision process, solved by backward induction: what every advisory costs.

Own aircraft meets an intruder that flies nearly level. A state is (h, v, tau, flown): h [ft] is the altitude
of the intruder above own, v [ft/s] own vertical rate, tau [s] the time until the two are abreast, `flown` the
advisory the pilot is flying. Once a second the system shows an advisory; a pilot who is not flying it yet
takes it up in that second with a fixed probability, so the response delay is geometric. The constants are in
the tables at the foot of this file. Run as a script, the file prints the policy as a map of characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Advisory:
    """What is shown to the pilot.

    `sense` is +1 to climb, -1 to descend, 0 for clear of conflict; the pilot changes the vertical rate by
    `acceleration` [ft/s^2] until it is at least `rate` [ft/s] in that sense; `cost` is paid a second shown.
    """

    name: str
    letter: str
    sense: int
    rate: float
    acceleration: float
    cost: float


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The points of the table: altitudes [ft], vertical rates [ft/s], times [s]; evenly spaced, ascending."""

    h: Float64[np.ndarray, " h"]
    v: Float64[np.ndarray, " v"]
    tau: Float64[np.ndarray, " tau"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Expected cost to go of each advisory at each grid point, for a pilot who is flying no advisory yet."""

    grid: Grid
    cost: Float64[np.ndarray, "tau h v advisory"]

    @property
    def advisory(self) -> Int64[np.ndarray, "tau h v"]:
        """The cheapest advisory's index at every grid point; a tie goes to the lower index."""
        return self.cost.argmin(axis=-1)


def standard_grid() -> Grid:
    """The grid of the example; tau starts at 1 s, the last moment at which an advisory can be shown."""
    return Grid(*(np.linspace(low, high, count) for low, high, count in GRID.values()))


def solve(grid: Grid) -> Table:
    """Backward induction from tau = 0 over every second of `grid.tau` (which must be 1, 2, 3, ...)."""
    if not np.array_equal(grid.tau, np.arange(1, len(grid.tau) + 1)):
        raise ValueError("grid.tau must be 1, 2, 3, ...: backward induction takes steps of one second")
    moves = [transition(grid, advisory) for advisory in ADVISORIES]
    fees = display_costs()
    value = np.repeat(near_miss(grid).reshape(-1, 1), len(ADVISORIES), axis=1)
    layers = []
    for _ in grid.tau:
        cost = one_second(moves, fees, value)
        layers.append(cost[:, 0, :])
        value = cost.min(axis=2)
    shape = (len(grid.tau), len(grid.h), len(grid.v), len(ADVISORIES))
    return Table(grid, np.stack(layers).reshape(shape))


def one_second(
    moves: list[csr_array],
    fees: Float64[np.ndarray, "flown shown"],
    value: Float64[np.ndarray, "point flown"],
) -> Float64[np.ndarray, "point flown shown"]:
    """Cost to go one second earlier, given the `value` of every state one second later."""
    after = np.stack([move @ value[:, i] for i, move in enumerate(moves)], axis=1)
    respond = np.full_like(fees, RESPONSE_PROBABILITY)
    np.fill_diagonal(respond, 1.0)
    return fees + respond * after[:, None, :] + (1.0 - respond) * after[:, :, None]


def display_costs() -> Float64[np.ndarray, "flown shown"]:
    """Cost of showing an advisory for a second to a pilot who flies another: alert, and reversal if any."""
    sense = np.array([advisory.sense for advisory in ADVISORIES])
    reversal = sense[:, None] * sense[None, :] < 0
    return np.array([advisory.cost for advisory in ADVISORIES]) + REVERSAL_COST * reversal


def near_miss(grid: Grid) -> Float64[np.ndarray, "h v"]:
    """Cost at tau = 0: 1 where the aircraft are less than the near-miss separation apart, else 0."""
    miss = (np.abs(grid.h) < NEAR_MISS_SEPARATION).astype(np.float64)
    return np.repeat(NEAR_MISS_COST * miss[:, None], len(grid.v), axis=1)


def transition(grid: Grid, flown: Advisory) -> csr_array:
    """One second under an advisory: row p holds the probabilities of the (h, v) points that point p leads to.

    A successor between grid points is shared among its four neighbours (bilinear), one beyond the grid is
    moved to its edge. Points are numbered row-major over (h, v).
    """
    h, v = (axis.ravel() for axis in np.meshgrid(grid.h, grid.v, indexing="ij"))
    points, size = np.arange(h.size), h.size
    total = csr_array((size, size))
    for (gust, p_gust), (drift, p_drift) in product(OWN_NOISE.items(), INTRUDER_NOISE.items()):
        rate = v + rate_change(v, flown) + gust
        altitude = h + drift - (v + rate) / 2.0
        for (i, p_i), (j, p_j) in product(neighbours(grid.h, altitude), neighbours(grid.v, rate)):
            entries = p_gust * p_drift * p_i * p_j, (points, i * len(grid.v) + j)
            total = total + csr_array(entries, shape=(size, size))
    return total


def rate_change(v: Float64[np.ndarray, " point"], flown: Advisory) -> Float64[np.ndarray, " point"]:
    """Change of vertical rate [ft/s] in one second by a pilot who flies the advisory; 0 where it is met."""
    missing = flown.rate - flown.sense * v
    return flown.sense * np.clip(missing, 0.0, flown.acceleration)


def neighbours(
    axis: Float64[np.ndarray, " n"], at: Float64[np.ndarray, " point"]
) -> list[tuple[Int64[np.ndarray, " point"], Float64[np.ndarray, " point"]]]:
    """Indices and weights of the two grid values around each position, which is first moved onto the axis."""
    position = (np.clip(at, axis[0], axis[-1]) - axis[0]) / (axis[1] - axis[0])
    below = np.minimum(position.astype(np.int64), len(axis) - 2)
    return [(below, 1.0 - (position - below)), (below + 1, position - below)]


def interpolate(table: Table, states: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n advisory"]:
    """Cost of every advisory at any states (h, v, tau), trilinear between grid points."""
    grid = table.grid
    h, v, tau = (neighbours(axis, states[:, k]) for k, axis in enumerate((grid.h, grid.v, grid.tau)))
    corners = [(p * q * r, table.cost[k, i, j]) for (i, p), (j, q), (k, r) in product(h, v, tau)]
    return sum((weight[:, None] * cost for weight, cost in corners), np.zeros((len(states), len(ADVISORIES))))


def grid_states(grid: Grid) -> Float64[np.ndarray, "n 3"]:
    """Every grid point as (h, v, tau), in the row-major order of `Table.cost`."""
    tau, h, v = np.meshgrid(grid.tau, grid.h, grid.v, indexing="ij")
    return np.stack([h.ravel(), v.ravel(), tau.ravel()], axis=1)


def within(
    states: Float64[np.ndarray, "n 3"], lower: tuple[float, ...], upper: tuple[float, ...]
) -> Bool[np.ndarray, " n"]:
    """Which states (h, v, tau) lie in a closed box."""
    return np.all((states >= lower) & (states <= upper), axis=1)


def character_map(table: Table, v: float) -> str:
    """The policy at one vertical rate [ft/s], a letter a point: highest altitude first, time to the right."""
    column = int(np.abs(table.grid.v - v).argmin())
    rows = np.flatnonzero(np.abs(table.grid.h) <= MAP_REACH)[::-1]
    lines = []
    for row in rows:
        letters = "".join(ADVISORIES[i].letter for i in table.advisory[:, row, column])
        lines.append(f"{table.grid.h[row]:+6.0f} ft  {letters}")
    return "\n".join(lines)


def main() -> None:
    """Solve and print the policy of an aircraft in level flight."""
    print("Advisory in level flight; one column a second, tau = 1 s at the left")
    print(character_map(solve(standard_grid()), v=0.0))
    print(", ".join(f"{advisory.letter} {advisory.name}" for advisory in ADVISORIES))


GRAVITY = 32.2
"""ft/s^2."""

ADVISORIES = (
    # Rates: 1500 and 2500 ft/min, those of the vertical advisories in service. Accelerations: g/4 for a first
    # advisory, g/3 for a strong one, the usual models of a trained pilot.
    # Costs a second: ten seconds of alert are worth a fiftieth of a near miss, strong ones three times that.
    Advisory("COC", ".", 0, 0.0, 0.0, 0.0),
    Advisory("CLIMB1500", "c", +1, 25.0, GRAVITY / 4, 0.002),
    Advisory("DESCEND1500", "d", -1, 25.0, GRAVITY / 4, 0.002),
    Advisory("SCLIMB2500", "C", +1, 2500 / 60, GRAVITY / 3, 0.006),
    Advisory("SDESCEND2500", "D", -1, 2500 / 60, GRAVITY / 3, 0.006),
)

NEAR_MISS_SEPARATION = 100.0
"""ft; the vertical extent of a near mid-air collision in the usual definition."""

NEAR_MISS_COST = 1.0
"""The unit of cost."""

REVERSAL_COST = 0.02
"""For a second in which climb is shown to a pilot who descends by advisory, or the other way: it confuses."""

RESPONSE_PROBABILITY = 1 / 4
"""A second; the mean response takes three seconds, between a brisk pilot's and the five usually assumed."""

OWN_NOISE = {-4.0: 0.25, 0.0: 0.5, 4.0: 0.25}
"""Own acceleration that nobody commanded [ft/s^2], about g/8, and its probability, each second afresh."""

INTRUDER_NOISE = {-12.0: 0.25, 0.0: 0.5, 12.0: 0.25}
"""Displacement of the intruder in a second [ft], and its probability: it flies level, but not exactly."""

MAP_REACH = 400.0
"""ft; how far up and down the printed map goes."""

GRID = {
    # lowest, highest, points
    "h": (-1600.0, 1600.0, 129),  # ft, 25 ft apart, four steps to the near-miss separation
    "v": (-50.0, 50.0, 41),  # ft/s, 2.5 ft/s apart; 3000 ft/min either way, more than any advisory asks for
    "tau": (1.0, 40.0, 40),  # s; the network uses the first 32, by which every alert of its domain has begun
}

if __name__ == "__main__":
    main()
