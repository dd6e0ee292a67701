"""Which axes of a contraction's result are the kernel's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import _compat, composites, rules
from jaxlrp.primitives import contraction, entries

EINSUMS = [
    "ij,jk->ik",
    "ij,kj->ik",
    "i,ij->j",
    "bij,jk->bik",
    "bij,bjk->bik",
    "bgi,gio->bgo",
    "bthd,hde->bte",
    "btd,dhe->bthe",
    "abc,cba->",
    "ab,c->abc",
]
SIZES = dict(zip("abcdefghijkot", (2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6, 3, 4), strict=True))


@pytest.mark.whole
@pytest.mark.parametrize("kernel", [0, 1])
@pytest.mark.parametrize("spec", EINSUMS)
def test_kernel_axes_of_a_dot(spec, kernel):
    """Along an axis that is not the kernel's, the result of ones does not change."""
    terms = spec.split("->")[0].split(",")
    shapes = [tuple(SIZES[c] for c in term) for term in terms]
    jaxpr = jax.make_jaxpr(lambda a, b: jnp.einsum(spec, a, b))(
        *(jnp.ones(s) for s in shapes)
    )

    def dots(jaxpr):
        for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
            body = _compat.called_jaxpr(eqn.params)
            yield from dots(body) if body is not None else [eqn]

    (eqn,) = [e for e in dots(jaxpr) if e.primitive.name == "dot_general"]
    shapes = [v.aval.shape for v in eqn.invars]
    axes = contraction.dot_kernel_axes(eqn.params, kernel, tuple(map(len, shapes)))
    operands = [np.ones(s, "float32") for s in shapes]
    bind = _compat.primitive_bind(eqn.primitive, dict(eqn.params))
    for axis in range(len(shapes[kernel])):
        ramp = np.arange(1.0, shapes[kernel][axis] + 1, dtype="float32")
        varied = list(operands)
        varied[kernel] = operands[kernel] * ramp.reshape(
            [-1 if i == axis else 1 for i in range(len(shapes[kernel]))]
        )
        result = np.asarray(bind(*varied)[0])
        plain = np.asarray(bind(*operands)[0])
        own = [out for out, of in axes.items() if of == axis]
        if not own:  # contracted: the result is the same everywhere
            assert np.ptp(result / plain) < 1e-5
        else:
            shape = [-1 if i == own[0] else 1 for i in range(result.ndim)]
            np.testing.assert_allclose(result, plain * ramp.reshape(shape), rtol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize(
    "numbers",
    [
        ("NCHW", "OIHW", "NCHW"),
        ("NHWC", "HWIO", "NHWC"),
        ("CNHW", "IOHW", "HWNC"),
    ],
)
def test_kernel_axes_of_a_convolution(numbers):
    sizes = {"N": 2, "C": 3, "I": 3, "O": 5, "H": 4, "W": 4}
    x, w = (jnp.ones([sizes[c] for c in spec]) for spec in numbers[:2])
    (eqn,) = _compat.open_jaxpr(
        jax.make_jaxpr(
            lambda x, w: lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=numbers
            )
        )(x, w)
    )[0].eqns
    as_kernel = contraction.conv_kernel_axes(eqn.params, 1, (4, 4))
    assert as_kernel == {numbers[2].index("C"): numbers[1].index("O")}
    as_signal = contraction.conv_kernel_axes(eqn.params, 0, (4, 4))
    assert as_signal == {numbers[2].index("N"): numbers[0].index("N")}


def test_contraction_is_linear_in_each_operand():
    for name in ("dot_general", "conv_general_dilated"):
        entry = entries()[name]
        assert entry.linear([True, False]) and entry.linear([False, True])
        assert not entry.linear([True, True])
        assert entry.nonnegative([True, True], {})
        assert not entry.nonnegative([True, False], {})


def test_ragged_product_is_shared_in_proportion():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    w = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)), jnp.float32)
    f = lambda x: lax.ragged_dot(x, w, jnp.array([2, 3], jnp.int32))  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(x)
    expected = x * jnp.concatenate(
        [jnp.tile(w[0].sum(1), (2, 1)), jnp.tile(w[1].sum(1), (3, 1))]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# Layouts, and windows with steps, gaps and padding.
CONVOLUTIONS = {
    "plain": (("NHWC", "HWIO", "NHWC"), {"padding": "SAME"}),
    "by two": (("NCHW", "OIHW", "NHWC"), {"padding": "SAME", "window_strides": (2, 3)}),
    "padded": (("HWNC", "IOHW", "CNHW"), {"padding": [(3, 0), (1, 4)]}),
    "kernel with gaps": (("NHWC", "HWIO", "NCHW"), {"rhs_dilation": (2, 3)}),
    "image with gaps": (
        ("NHWC", "HWIO", "NHWC"),
        {"lhs_dilation": (3, 2), "padding": [(2, 1), (0, 3)]},
    ),
    "cropped": (("NHWC", "HWIO", "NHWC"), {"padding": [(-1, 0), (0, -2)]}),
}


@pytest.mark.parametrize("ones", [0, 1])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_with_ones_is_known_at_less(name, ones):
    layout, options = CONVOLUTIONS[name]
    options = {"window_strides": (1, 1), "padding": "VALID", **options}
    sizes = {"N": 2, "H": 9, "W": 11, "C": 3}, {"O": 4, "I": 3, "H": 3, "W": 2}
    shapes = [tuple(n[c] for c in axes) for n, axes in zip(sizes, layout, strict=False)]
    operands = [np.random.default_rng(0).normal(size=shape) for shape in shapes]
    operands[ones] = np.ones(shapes[ones])
    operands = [jnp.asarray(v, jnp.float32) for v in operands]

    def f(*operands):
        return lax.conv_general_dilated(*operands, dimension_numbers=layout, **options)

    (eqn,) = _compat.open_jaxpr(jax.make_jaxpr(f)(*operands))[0].eqns
    expected = f(*operands)
    thin = entries()["conv_general_dilated"].with_ones
    assert thin is not None

    def short(x):
        return thin(eqn.params, ones, x, shapes[ones], expected.shape)

    found = short(operands[1 - ones])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # It is none any more, unless something is cut off from what ones sum up.
    product = "conv_general_dilated" in str(jax.make_jaxpr(short)(operands[1 - ones]))
    assert product == (ones == 1 and name == "cropped")


@pytest.mark.always
def test_w_square_of_an_image_with_gaps():
    """Sums of a kernel over what it meets: between the elements there is nothing."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 5)), jnp.float32)
    f = lambda x: lax.conv_general_dilated(  # noqa: E731
        x, w, (1,), [(2, 1)], lhs_dilation=(3,), rhs_dilation=(2,)
    )
    square = np.asarray(jax.jacobian(f)(x)).reshape(-1, x.size) ** 2
    y = np.asarray(f(x)).ravel()
    composite = composites.Uniform(rules.WSquare(1e-6))
    found = jaxlrp.lrp(f, composite, target="all")(x).ravel()
    expected = square.T @ (y / (square.sum(1) + 1e-6))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
