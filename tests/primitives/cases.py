"""One case for each primitive that can carry relevance, and what it has to be.

A case is a function of real arrays that is, but for harmless moves, one primitive. The
oracles know nothing of LRP's code: they probe with unit vectors, compare values, or
state the formula.
"""

import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import layout, sparse, xla_metadata
from jax.experimental.sparse.linalg import spsolve
from jax.extend.core import Primitive
from jax.extend.core import primitives as P

from jaxlrp import _compat


def draw(key, *shape, low=0.5, high=1.5):
    """Distinct numbers."""
    return np.random.default_rng(key).uniform(low, high, shape)


# ---- oracles -------------------------------------------------------------------------
# oracle(f, xs, active, weights): the relevance of each active operand for sum(w f(x)).


def total(f, xs, weights):
    """`sum(w y)` over all results."""
    ys = jax.tree.leaves(f(*xs))
    return sum(float(np.sum(w * y)) for w, y in zip(weights, ys, strict=True))


def dense(f, xs, active, weights, share=1):
    """`x * (J^T w)`, `J` column by column from unit vectors, in float64."""

    def of(i):
        def probed(x):
            return total(f, [*xs[:i], x, *xs[i + 1 :]], weights)

        base = probed(np.zeros_like(xs[i]))
        slope = np.zeros(xs[i].size)
        for j in range(slope.size):
            unit = np.zeros(slope.size)
            unit[j] = 1
            slope[j] = probed(unit.reshape(xs[i].shape)) - base
        return xs[i] * slope.reshape(xs[i].shape) / share

    return [of(i) for i in active]


def halves(f, xs, active, weights):
    """Half of what each alone would get."""
    return dense(f, xs, active, weights, share=2)


def moves(f, xs, active, weights):
    """An element gets what arrives at the elements that equal it."""

    def of(x):
        ys = jax.tree.leaves(f(*xs))
        landed = np.zeros(x.shape)
        for w, y in zip(weights, ys, strict=True):
            at = np.asarray(y).ravel()[:, None] == x.ravel()[None]
            landed += ((w * y).ravel() @ at).reshape(x.shape)
        return landed

    return [of(xs[i]) for i in active]


def whole(position=0):
    """The operand at `position` gets all, element by element; others get nothing."""

    def oracle(f, xs, active, weights):
        (w,), y = weights, np.asarray(f(*xs))
        return [w * y if i == position else np.zeros_like(xs[i]) for i in active]

    return oracle


def alone(f, xs, active, weights):
    """The identity of an elementwise function of one operand."""
    return whole(active[0])(f, xs, active, weights)


def gradient(f, xs, active, weights, degree=1):
    """`x dy/dx`, by JAX, over the degree."""

    def scalar(*args):
        full = list(xs)
        for i, x in zip(active, args, strict=True):
            full[i] = x
        ys = jax.tree.leaves(f(*full))
        return sum((w * y).sum() for w, y in zip(weights, ys, strict=True))

    given = [xs[i] for i in active]
    slopes = jax.grad(scalar, tuple(range(len(given))))(*given)
    return [x * np.asarray(g) / degree for x, g in zip(given, slopes, strict=True)]


def of_degree(degree):
    """Gradient x input over the degree."""
    return lambda *args: gradient(*args, degree=degree)


def nothing(f, xs, active, weights):
    return [np.zeros_like(xs[i]) for i in active]


def holding(*positions):
    """Linear in the others; what is at `positions` counts as a constant."""

    def oracle(f, xs, active, weights):
        return [
            np.zeros_like(xs[i]) if i in positions else dense(f, xs, [i], weights)[0]
            for i in active
        ]

    return oracle


def divided(f, xs, active, weights):
    """All operands of a product of one array along its last axis, in equal parts."""
    (w,), (x,) = weights, xs
    y = np.asarray(f(x))
    return [np.broadcast_to((w * y)[..., None] / x.shape[-1], x.shape)]


def divided_cumulatively(reverse):
    """The k-th product gives 1/k to each of its k factors."""

    def oracle(f, xs, active, weights):
        (w,), (x,) = weights, xs
        y, n = np.asarray(f(x)), x.shape[-1]
        order = slice(None, None, -1 if reverse else 1)
        part = (w * y)[..., order] / np.arange(1, n + 1)
        return [np.cumsum(part[..., ::-1], -1)[..., ::-1][..., order]]

    return oracle


# ---- cases ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, its operands in float64, and oracles.

    Attributes:
      f: the function.
      xs: its operands.
      one: what each operand gets alone; a list where that differs.
      together: what all get together; as `one` by default.
      conserves: with all operands active, relevance is `sum(w y)`.
      low: it works in bfloat16.
      mapped: it works under vmap.
    """

    f: Callable
    xs: tuple
    one: object
    together: Callable | None = None
    conserves: bool = True
    low: bool = True
    mapped: bool = True

    def value(self, *xs):
        """The function, of NumPy's arrays too."""
        return self.f(*(jnp.asarray(x) for x in xs))

    def oracles(self):
        """`{active: oracle}`, one by one and all together."""
        n = len(self.xs)
        one = self.one if isinstance(self.one, list) else [self.one] * n
        found = {(i,): oracle for i, oracle in enumerate(one) if oracle is not None}
        if n > 1:
            found[tuple(range(n))] = self.together or one[0]
        return found


SIZE = 6
A, B, C = draw(0, SIZE), draw(1, SIZE), draw(2, SIZE)
M = draw(3, 3, 4)
G = np.random.default_rng(4).normal(size=(3, 3))
SPD = G @ G.T + 3 * np.eye(3)

UNARY = {
    name: (getattr(lax, name), A)
    for name in """
    abs exp exp2 logistic erfc square cosh sqrt rsqrt cbrt log tanh erf asinh atan sinh
    sin tan expm1 log1p cos lgamma digamma bessel_i0e bessel_i1e
    """.split()
} | {
    name: (getattr(lax, name), draw(5, SIZE, low=0.1, high=0.9))
    for name in "acos asin atanh erf_inv".split()
}
UNARY |= {
    "acosh": (lax.acosh, A + 1),
    **{name: (getattr(lax, name), 3 * A) for name in ("floor", "ceil", "round")},
    "integer_pow": (lambda x: lax.integer_pow(x, -3), A),
    "log2": (jnp.log2, A + 1),
}
if hasattr(P, "one_minus_square_p"):
    UNARY["one_minus_square"] = (lambda x: P.one_minus_square_p.bind(x), A)

WAYS = {  # linear in their one operand
    "neg": lambda x: -x,
    "copy": jnp.copy,
    "reduce_precision": lambda x: lax.reduce_precision(x, 11, 52),
    "convert_element_type": lambda x: x.astype(jnp.result_type(x, "complex64")).real,
    "stage": lambda x: lax.stage_p.bind(x),
    "cumsum": lambda x: lax.cumsum(x, reverse=True),
}

PARTS = {
    "real": lambda x: lax.real(lax.complex(x, 2 * x)),
    "imag": lambda x: lax.imag(lax.complex(x, 2 * x)),
    "conj": lambda x: lax.conj(lax.complex(x, 2 * x)).imag,
}


def internal(name):
    """A primitive of JAX's that is not public."""
    modules = [m for key, m in sys.modules.items() if key.split(".")[0] == "jax"]
    values = [v for m in modules for v in list(vars(m).values())]
    return next(v for v in values if isinstance(v, Primitive) and v.name == name)


ONE_DEVICE = jax.sharding.NamedSharding(
    jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,)),
    jax.sharding.PartitionSpec("i", None),
)

# With a Python number, or a constant array, in the place of an operand.
WITH_CONSTANTS = {
    "x + 0.5": (lambda x: x + 0.5, dense),
    "0.5 - x": (lambda x: 0.5 - x, dense),
    "x * B": (lambda x: x * B.astype(x.dtype), dense),
    "-2 * x": (lambda x: -2 * x, dense),
    "x / 4": (lambda x: x / 4, dense),
    "2 / x": (lambda x: 2 / x, alone),
    "max(x, 0.9)": (lambda x: jnp.maximum(x, 0.9), alone),
    "min(B, x)": (lambda x: jnp.minimum(B.astype(x.dtype), x), alone),
    "clamp by numbers": (lambda x: jnp.clip(x, 0.7, 1.2), alone),
    "x ** 2.5": (lambda x: x**2.5, alone),
    "2 ** x": (lambda x: 2.0**x, alone),
    "x ** 3": (lambda x: x**3, alone),
    "atan2(x, 2)": (lambda x: jnp.arctan2(x, 2.0), alone),
    "rem(x, 0.4)": (lambda x: lax.rem(x, jnp.full_like(x, 0.4)), alone),
    "igamma(2, x)": (lambda x: lax.igamma(jnp.full_like(x, 2), x), alone),
}
MOVES = {
    "transpose": lambda x: lax.transpose(x, (1, 0)),
    "reshape": lambda x: lax.reshape(x, (2, 6)),
    "squeeze": lambda x: lax.squeeze(x[:1], (0,)),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (3, 2, 4), (0, 2)),
    "slice": lambda x: lax.slice(x, (1, 0), (3, 4), (1, 2)),
    "rev": lambda x: lax.rev(x, (1,)),
    "pad": lambda x: lax.pad(x, jnp.zeros((), x.dtype), ((1, 0, 1), (-1, 2, 0))),
    "split": lambda x: lax.split(x, (1, 3), axis=1),
    "stack": lambda x: jnp.stack([x, x], 1),
    "unstack": lambda x: jnp.unstack(x, axis=1)[1:3],
    "tile": lambda x: jnp.tile(x, (1, 2)),
    "optimization_barrier": lax.optimization_barrier,
    "name": lambda x: checkpoint_name(x, "tag"),
    "device_put": lambda x: jax.device_put(x, jax.devices()[0]),
    "sharding_constraint": lambda x: lax.with_sharding_constraint(
        x, jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ),
    "layout_constraint": lambda x: layout.with_layout_constraint(
        x, layout.Layout(tuple(range(x.ndim)))
    ),
    "xla_metadata_value": lambda x: xla_metadata.set_xla_metadata(x, a="b"),
    "reshard": lambda x: jax.sharding.reshard(x, ONE_DEVICE),
    "broadcast_to": lambda x: internal("broadcast_to").bind(x[:, :1], shape=x.shape),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1, 1), (2, 2)),
    "cummax": lambda x: lax.cummax(x, 1),
    "cummin": lambda x: lax.cummin(x, 0, reverse=True),
    "reduce_max": lambda x: lax.reduce_max(x, (0,)),
    "reduce_min": lambda x: lax.reduce_min(x, (1,)),
    "sort": lambda x: lax.sort(x, dimension=0),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "approx_top_k": lambda x: lax.approx_max_k(x, 2)[0],
}


if _compat.has_derivative(internal("with_memory_space_constraint")):
    MOVES["with_memory_space_constraint"] = lambda x: internal(
        "with_memory_space_constraint"
    ).bind(x, memory_space=jax.memory.Space.Device)


def window(x, fill, operation, shape=(2, 2), strides=(1, 2), padding="SAME", **options):
    return lax.reduce_window(x, fill, operation, shape, strides, padding, **options)


def gathered(mode, fill=None):
    index = jnp.array([2, 0, 5, -4])  # two of them out of bounds
    if mode == "promise_in_bounds":
        index = jnp.array([2, 0, 2])
    return lambda x: x.at[index].get(mode=mode, fill_value=fill)


ROWS = jnp.array([2, 0])
TWICE = jnp.array([1, 1])
OUTSIDE = jnp.array([1, 7])
U = draw(6, 2, 4)


def written(how, index=ROWS, **options):
    return lambda x, u: getattr(x.at[index], how)(u, **options)


def covered(index, rows):
    """How often each row is written to."""
    counts = np.zeros((rows, 1))
    np.add.at(counts, np.asarray(index)[np.asarray(index) < rows], 1)
    return counts


def multiplied(index):
    """Each element's relevance in equal parts to all its factors."""

    def oracle(f, xs, active, weights):
        (w,), x = weights, xs[0]
        n = covered(index, len(x)) + (0 in active)
        part = np.divide(w * f(*xs), n, where=n > 0, out=np.zeros(x.shape))
        to_u = (
            np.where((np.asarray(index) < len(x))[:, None], 1, 0)
            * part[np.minimum(index, len(x) - 1)]
        )
        return [part if i == 0 else to_u for i in active]

    return oracle


def conv(x, w, **options):
    numbers = options.pop("dimension_numbers", ("NHC", "HIO", "NHC"))
    strides = options.pop("strides", (1,))
    padding = options.pop("padding", "SAME")
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=numbers, **options
    )


def product(f, *shapes, **options):
    """A bilinear map, or one of more operands, each alone a layer's signal."""
    xs = tuple(
        np.random.default_rng(i).uniform(0.5, 1.5, shape)
        for i, shape in enumerate(shapes)
    )
    return Case(f, xs, dense, halves, **options)


GROUPS = jnp.array([1, 2], jnp.int32)
LOW_BAND = (np.array([0, 0.1, 0.2]), A[:3] + 2, np.array([0.3, 0.1, 0]))
BCOO = sparse.BCOO.fromdense(jnp.asarray(np.tril(G)))
BCSR = sparse.BCSR.fromdense(jnp.asarray(np.tril(G)))
COO = sparse.COO.fromdense(jnp.asarray(np.tril(G)))
CSR = sparse.CSR.fromdense(jnp.asarray(np.tril(G)))
DATA = np.asarray(BCOO.data, np.float64)
INDICES = np.asarray(BCOO.indices)


def bcoo(data):
    return sparse.BCOO((data, INDICES), shape=(3, 3))


def solved(**options):
    return lambda a, b: lax.linalg.triangular_solve(
        a, b, left_side=True, lower=True, **options
    )


def pull_of_pool(source, x):
    """`select_and_scatter_add`: each of `source` where the window's maximum is."""
    pool = lambda x: lax.reduce_window(x, -np.inf, lax.max, (2,), (2,), "VALID")  # noqa: E731
    return jax.vjp(pool, x)[1](source)[0]


def push_of_pool(tangent, x):
    """`select_and_gather_add`: of `tangent` where the window's maximum is."""
    pool = lambda x: lax.reduce_window(x, -np.inf, lax.max, (2,), (2,), "VALID")  # noqa: E731
    return jax.jvp(pool, (x,), (tangent,))[1]


def nary(spec, *shapes):
    """Three operands: the first contraction halves what the second has halved."""

    def together(f, xs, active, weights):
        return dense(f, xs, active, weights)

    return Case(
        lambda *xs: jnp.einsum(spec, *xs),
        tuple(draw(i, *shape) for i, shape in enumerate(shapes)),
        dense,
        together,
    )


def evenly(count, spread):
    """Products: `w y / count` to each factor, `spread` over the array's elements."""

    def oracle(f, xs, active, weights):
        (w,) = weights
        part = w * np.asarray(f(*xs)) / count
        return [spread(part) if i == 0 else part.sum() for i in active]

    return oracle


def root_of_squares(a, b):
    return jnp.sqrt(a * a + b * b)


def of_squares_in_pairs(f, xs, active, weights):
    """Of `sqrt(a^2 + b^2)`, `a` gets `a^2` over the sum of both."""
    (w,), (x,) = weights, xs
    pairs = (x**2).reshape(len(x), -1, 2)
    part = pairs / np.sqrt(pairs.sum(-1, keepdims=True)) * w[..., None]
    return [part.reshape(x.shape)]


def of_squares_and_start(f, xs, active, weights):
    """The same of a row and of the start, which is in every row's."""
    (w,), (x, v) = weights, xs
    each = w / np.sqrt((x**2).sum(1) + v**2)
    parts = [x**2 * each[:, None], (v**2 * each).sum()]
    return [parts[i] for i in active]


def of_the_largest(a, b):
    """Of tuples, the one whose first element is greater."""
    return tuple(jnp.where(a[0] >= b[0], x, y) for x, y in zip(a, b, strict=True))


def both_neighbours(part):
    """Of windows of two: the elements of a row are in the window before and behind."""
    return np.pad(part, ((0, 0), (0, 1))) + np.pad(part, ((0, 0), (1, 0)))


def to_all(part):
    return np.full(SIZE, part)


# Large programs: once is enough.
SLOW = {"low": False, "mapped": False}

F = Case
CASES = {
    **{name: [F(f, (x,), alone)] for name, (f, x) in UNARY.items()},
    **{name: [F(f, (A,), dense)] for name, f in WAYS.items()},
    **{name: [F(f, (A,), dense, low=False)] for name, f in PARTS.items()},
    **{
        name: [F(f, (A,), oracle, conserves=oracle is alone, low="rem" not in name)]
        for name, (f, oracle) in WITH_CONSTANTS.items()
    },
    **{name: [F(f, (M,), moves, conserves=False)] for name, f in MOVES.items()},
    # Elementwise, of several operands.
    "add": [F(lax.add, (A, B), dense)],
    "add_any": [F(lambda x, y: P.add_jaxvals_p.bind(x, y), (A, B), dense)],
    "sub": [F(lax.sub, (A, B), dense)],
    "mul": [F(lax.mul, (A, B), dense, halves)],
    "div": [F(lax.div, (A, B), [dense, alone], holding(1))],
    "select_n": [
        F(lambda x, y: lax.select_n(np.arange(SIZE) % 2 == 0, x, y), (A, B), moves)
    ],
    "max": [F(lax.max, (A, B), [alone, alone], moves)],
    "min": [F(lax.min, (A, B), [alone, alone], moves)],
    "clamp": [F(lax.clamp, (A, B, A + 0.2), alone, moves)],
    "pow": [F(lax.pow, (A, B), alone, whole(0))],
    "atan2": [F(lax.atan2, (A, B), alone, whole(0))],
    "rem": [F(lax.rem, (A, B / 3), alone, gradient, low=False)],
    "nextafter": [F(lax.nextafter, (A, B), [whole(0), nothing], whole(0))],
    "tie": [
        F(
            lambda x, y: internal("tie").bind(x, y),
            (A, B),
            [nothing, moves],
            moves,
            mapped=False,
        )
    ],
    "igamma": [F(lax.igamma, (A, B), alone, whole(1), **SLOW)],
    "igammac": [F(lax.igammac, (A, B), [None, whole(1)], whole(1), **SLOW)],
    "polygamma": [
        F(lax.polygamma, (np.ceil(A), B), [None, whole(1)], whole(1), **SLOW)
    ],
    "regularized_incomplete_beta": [
        F(lax.betainc, (A, B, C / 2), [None, None, whole(2)], whole(2), **SLOW)
    ],
    "complex": [
        F(
            lambda x, y: lax.complex(x, y).imag + lax.complex(x, y).real,
            (A, B),
            dense,
            low=False,
        )
    ],
    # Sums.
    "reduce_sum": [F(lambda x: lax.reduce_sum(x, (1,)), (M,), dense)],
    "reduce_window_sum": [F(lambda x: window(x, 0.0, lax.add), (M,), dense)],
    "fft": [
        F(lambda x: jnp.fft.rfft(x).real, (M,), dense, low=False),
        F(lambda x: jnp.fft.ifft(jnp.fft.fft2(x)).imag, (M,), dense, low=False),
        F(lambda x: jnp.fft.irfft(lax.complex(x, 2 * x)), (M,), dense, low=False),
    ],
    # Products.
    "reduce_prod": [F(lambda x: lax.reduce_prod(x, (1,)), (M,), divided)],
    "cumprod": [
        F(lambda x: lax.cumprod(x, 1), (M,), divided_cumulatively(False)),
        F(
            lambda x: lax.cumprod(x, 1, reverse=True),
            (M,),
            divided_cumulatively(True),
        ),
    ],
    "cumlogsumexp": [F(lax.cumlogsumexp, (A,), gradient, conserves=False, low=False)],
    "reduce": [
        F(lambda x, v: lax.reduce(x, v, lax.add, (0,)), (A, B[0]), dense),
        F(
            lambda x, v: lax.reduce(x, v, lax.mul, (0,)),
            (A, B[0]),
            [evenly(SIZE, to_all), evenly(1, to_all)],
            evenly(SIZE + 1, to_all),
        ),
        F(lambda x: lax.reduce(x, x.dtype.type(0.1), lax.max, (0,)), (A,), moves),
        F(
            lambda x: lax.reduce(x, x.dtype.type(-np.inf), jnp.logaddexp, (0,)),
            (A,),
            gradient,
            conserves=False,
        ),
        F(  # several arrays, of which one says where the others are taken
            lambda x, y: lax.reduce(
                (x, y, lax.iota(np.int32, SIZE)),
                (x.dtype.type(-np.inf), y.dtype.type(0), np.int32(0)),
                of_the_largest,
                (0,),
            )[1],
            (A, B),
            [None, None],
            moves,
        ),
        F(  # the start is one element more
            lambda x, v: lax.reduce(x, v, root_of_squares, (1,)),
            (M, B[0]),
            of_squares_and_start,
        ),
    ],
    "reduce_window": [
        F(lambda x: window(x, x.dtype.type(0.1), lax.max), (M,), moves),
        F(lambda x, v: window(x, v, lax.add), (M, B[0]), dense),
        F(
            lambda x: window(x, x.dtype.type(2), lax.mul, (1, 2), (1, 1), "VALID"),
            (M,),
            evenly(2, both_neighbours),
        ),
        F(
            lambda x, v: window(x, v, lax.mul, (1, 2), (1, 1), "VALID"),
            (M, B[0]),
            [evenly(2, both_neighbours), evenly(1, both_neighbours)],
            evenly(3, both_neighbours),
        ),
        F(
            lambda x: window(
                x, x.dtype.type(0), root_of_squares, (1, 2), (1, 2), "VALID"
            ),
            (M,),
            of_squares_in_pairs,
        ),
        F(
            lambda x, y: window(
                (x, y),
                (x.dtype.type(-np.inf), y.dtype.type(0)),
                of_the_largest,
                (2, 1),
                (1, 1),
                "VALID",
            )[1],
            (M, draw(7, 3, 4)),
            [None, None],
            moves,
        ),
    ],
    # Selections.
    "reduce_window_max": [
        F(lambda x: window(x, -np.inf, lax.max), (M,), moves),
        F(
            lambda x: window(
                x, -np.inf, lax.max, padding="VALID", window_dilation=(2, 1)
            ),
            (M,),
            moves,
        ),
    ],
    "reduce_window_min": [F(lambda x: window(x, np.inf, lax.min), (M,), moves)],
    "sort several": [
        F(
            lambda x, y: lax.sort((x, y), num_keys=1),
            (A, B),
            [None, None],
            moves,
        ),
        F(lambda x: lax.sort((x, x * 2 - x), num_keys=2)[1], (A,), moves),
    ],
    "select_and_scatter_add": [
        F(pull_of_pool, (B[:3], A), [moves, nothing], moves, mapped=False)
    ],
    "select_and_gather_add": [
        F(push_of_pool, (B, A), [moves, nothing], moves, mapped=False, low=False)
    ],
    # Indexing.
    "concatenate": [
        F(lambda x, y: jnp.concatenate([y, x, y[:1]]), (M, U), moves, conserves=False)
    ],
    "pad by": [
        F(lambda x, v: lax.pad(x, v, ((1, 0, 1),)), (A, B[0]), [moves, None], moves)
    ],
    "gather": [
        F(gathered("clip"), (M,), moves),
        F(gathered("fill", 5.0), (M,), moves, conserves=False),
        F(gathered("promise_in_bounds"), (M,), moves),
        F(lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1), (M,), moves),
    ],
    "dynamic_update_slice": [
        F(lambda x, u: lax.dynamic_update_slice(x, u, (1, 0)), (M, U), moves)
    ],
    "scatter": [
        F(written("set"), (M, U), moves),
        F(written("set", OUTSIDE, mode="drop"), (M, U), moves),
        F(written("set", OUTSIDE, mode="clip"), (M, U), moves),
    ],
    "scatter-add": [
        F(written("add"), (M, U), dense),
        F(written("add", TWICE), (M, U), dense),
        F(written("add", OUTSIDE, mode="drop"), (M, U), dense),
    ],
    "scatter-sub": [F(written("subtract"), (M, U), dense)],
    "scatter-mul": [
        F(written("mul"), (M, U), [dense, multiplied(ROWS)], multiplied(ROWS)),
        F(written("mul", TWICE), (M, U), [dense, multiplied(TWICE)], multiplied(TWICE)),
        F(
            written("mul", OUTSIDE, mode="drop"),
            (M, U),
            [dense, multiplied(OUTSIDE)],
            multiplied(OUTSIDE),
        ),
        F(
            written("mul", unique_indices=True),
            (M, U),
            [dense, multiplied(ROWS)],
            multiplied(ROWS),
        ),
    ],
    "scatter-max": [F(written("max"), (M, U), moves)],
    "scatter-min": [F(written("min", TWICE), (M, U), moves)],
    # Contractions.
    "dot_general": [
        product(lambda x, y: x @ y, (2, 3), (3, 2)),
        product(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (2, 2, 3), (2, 2, 3)),
        product(lambda x, y: jnp.einsum("ibj,jkb->bki", x, y), (2, 2, 3), (3, 2, 2)),
        product(lambda x, y: jnp.einsum("ab,c->abc", x, y), (2, 2), (3,)),
        product(lambda x, y: jnp.einsum("abc,cba->", x, y), (2, 2, 3), (3, 2, 2)),
        product(jnp.vdot, (4,), (4,)),
    ],
    "conv_general_dilated": [
        product(conv, (1, 4, 2), (3, 2, 2)),
        product(lambda x, w: conv(x, w, strides=(2,)), (2, 4, 1), (2, 1, 2)),
        product(  # grouped
            lambda x, w: conv(x, w, feature_group_count=2), (1, 3, 4), (2, 2, 2)
        ),
        product(  # depthwise
            lambda x, w: conv(x, w, feature_group_count=2), (1, 3, 2), (2, 1, 4)
        ),
        product(  # transposed
            lambda x, w: lax.conv_transpose(
                x, w, (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
            ),
            (1, 3, 2),
            (2, 2, 1),
        ),
        product(lambda x, w: conv(x, w, rhs_dilation=(2,)), (1, 4, 1), (2, 1, 2)),
        product(lambda x, w: conv(x, w, batch_group_count=2), (4, 3, 1), (2, 1, 2)),
        product(
            lambda x, w: conv(x, w, dimension_numbers=("NCH", "OIH", "NCH")),
            (1, 2, 3),
            (2, 2, 2),
        ),
    ],
    "ragged_dot_general": [
        product(
            lambda x, w: lax.ragged_dot(x, w, GROUPS), (3, 2), (2, 2, 2), mapped=False
        )
    ],
    # Linear algebra.
    "triangular_solve": [
        F(solved(), (SPD, M), [of_degree(-1), dense], holding(0), low=False),
        F(
            solved(unit_diagonal=True),
            (SPD, M),
            [None, dense],
            holding(0),
            low=False,
        ),
        F(
            solved(transpose_a=True, conjugate_a=True),
            (SPD, M),
            [of_degree(-1), dense],
            holding(0),
            low=False,
        ),
    ],
    "tridiagonal_solve": [
        F(
            lambda *args: lax.linalg.tridiagonal_solve(*args),
            (*LOW_BAND, M[:, :2]),
            [gradient, gradient, gradient, dense],
            holding(0, 1, 2),
            low=False,
        ),
        F(
            lambda *args: lax.linalg.tridiagonal_solve(*args, M[:, :2]),
            LOW_BAND,
            [None, None, None],
            of_degree(-1),
            low=False,
        ),
    ],
    "custom_linear_solve": [
        F(
            jnp.linalg.solve,
            (SPD, A[:3]),
            [of_degree(-1), dense],
            holding(0),
            low=False,
        ),
        F(
            lambda m, b: lax.custom_linear_solve(
                lambda x: m @ x + x,
                b,
                lambda _, b: jnp.linalg.solve(m + np.eye(3), b),
                symmetric=True,
            ),
            (SPD, A[:3]),
            [gradient, dense],
            holding(0),
            low=False,
        ),
        F(
            lambda b, c: lax.custom_linear_solve(
                lambda x: [2 * v for v in x],
                [b, c],
                lambda _, b: [v / 2 for v in b],
                symmetric=True,
            ),
            (A, B),
            [None, None],
            dense,
            low=False,
        ),
    ],
    "spsolve": [
        F(
            lambda d, b: spsolve(d, CSR.indices, CSR.indptr, b),
            (DATA, A[:3]),
            [of_degree(-1), dense],
            holding(0),
            low=False,
            mapped=False,
        )
    ],
    "cholesky": [F(jnp.linalg.cholesky, (SPD,), of_degree(0.5), low=False)],
    "eigh": [
        F(jnp.linalg.eigvalsh, (SPD,), gradient, low=False),
        F(lambda x: jnp.linalg.eigh(x), (SPD,), gradient, conserves=False, low=False),
    ],
    "eig": [
        F(lambda x: jnp.linalg.eigvals(x).real, (SPD,), gradient, low=False),
    ],
    "svd": [
        F(lambda x: jnp.linalg.svd(x, compute_uv=False), (G,), gradient, low=False)
    ],
    "qr": [F(lambda x: jnp.linalg.qr(x)[1], (G,), gradient, low=False)],
    "lu": [
        F(lambda x: jnp.triu(lax.linalg.lu(x)[0]), (G,), gradient, low=False),
    ],
    "random_gamma": [
        F(
            lambda x: jax.random.gamma(jax.random.key(0), x),
            (A,),
            gradient,
            conserves=False,
            **SLOW,
        )
    ],
    # Sparse matrices.
    "bcoo_fromdense": [F(lambda x: sparse.BCOO.fromdense(x, nse=12).data, (M,), moves)],
    "bcsr_fromdense": [
        F(lambda x: sparse.BCSR.fromdense(x, nse=12).data, (M,), moves, mapped=False)
    ],
    "coo_fromdense": [
        F(lambda x: sparse.COO.fromdense(x, nse=12).data, (M,), moves, mapped=False)
    ],
    "csr_fromdense": [
        F(lambda x: sparse.CSR.fromdense(x, nse=12).data, (M,), moves, mapped=False)
    ],
    "bcoo_todense": [F(lambda d: bcoo(d).todense(), (DATA,), dense)],
    "bcsr_todense": [
        F(
            lambda d: sparse.BCSR(
                (d, BCSR.indices, BCSR.indptr), shape=(3, 3)
            ).todense(),
            (DATA,),
            dense,
            mapped=False,
        )
    ],
    "coo_todense": [
        F(
            lambda d: sparse.COO((d, COO.row, COO.col), shape=(3, 3)).todense(),
            (DATA,),
            dense,
            mapped=False,
        )
    ],
    "csr_todense": [
        F(
            lambda d: sparse.CSR((d, CSR.indices, CSR.indptr), shape=(3, 3)).todense(),
            (DATA,),
            dense,
            mapped=False,
        )
    ],
    "todense": [F(lambda d: sparse.todense(bcoo(d)), (DATA,), dense, mapped=False)],
    "bcoo_transpose": [F(lambda d: bcoo(d).T.data, (DATA,), moves)],
    "bcoo_sort_indices": [F(lambda d: bcoo(d).sort_indices().data, (DATA,), moves)],
    "bcoo_sum_duplicates": [
        F(lambda d: bcoo(d).sum_duplicates(nse=6).data, (DATA,), moves)
    ],
    "bcoo_extract": [
        F(
            lambda x: sparse.bcoo_extract(BCOO, x).data,
            (draw(0, 3, 3),),
            moves,
            conserves=False,
        )
    ],
    "bcsr_extract": [
        F(
            lambda x: sparse.bcsr_extract(BCSR.indices, BCSR.indptr, x),
            (draw(0, 3, 3),),
            moves,
            mapped=False,
        )
    ],
    "bcoo_dot_general": [F(lambda d, x: bcoo(d) @ x, (DATA, M), dense, halves)],
    "bcoo_dot_general_sampled": [
        F(
            lambda x, y: sparse.bcoo_dot_general_sampled(
                x, y, BCOO.indices, dimension_numbers=(((1,), (0,)), ((), ()))
            ),
            (M, draw(1, 4, 3)),
            dense,
            halves,
        )
    ],
    "bcsr_dot_general": [
        F(
            lambda d, x: sparse.BCSR((d, BCSR.indices, BCSR.indptr), shape=(3, 3)) @ x,
            (DATA, M),
            dense,
            halves,
            mapped=False,
        )
    ],
}
for kind, matrix, parts in (
    ("coo", sparse.COO, (COO.row, COO.col)),
    ("csr", sparse.CSR, (CSR.indices, CSR.indptr)),
):
    for name, x in (("matvec", M[:, 0]), ("matmat", M)):

        def times(d, x, matrix=matrix, parts=parts):
            return matrix((d, *parts), shape=(3, 3)) @ x

        CASES[f"{kind}_{name}"] = [F(times, (DATA, x), dense, halves, mapped=False)]


def of_linear_call(x):
    """A function that comes with its own transpose."""
    return jax.custom_derivatives.linear_call(
        lambda r, x: r * x, lambda r, ct: r * ct, 2.0, x
    )


CASES["linear_call"] = [F(of_linear_call, (A,), dense, mapped=False)]
if hasattr(P, "polynomial_p"):
    CASES["polynomial"] = [
        F(
            lambda x, c, d: jnp.polyval(jnp.stack([c, d]), x, unroll=2),
            (A, B, C),
            [alone, None, None],
            holding(0),
        )
    ]
