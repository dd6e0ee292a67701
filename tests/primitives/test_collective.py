"""Sums across devices and mapped axes are linear."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jaxlrp
from jaxlrp import composites
from jaxlrp.primitives import Kind, entries

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (4, 3)), jnp.float32)


@pytest.mark.parametrize("name", ["psum", "all_gather", "ppermute", "all_to_all"])
def test_collective_is_linear(name):
    entry = entries()[name]
    assert entry.kind in (Kind.LINEAR, Kind.STRUCTURAL)
    assert entry.linear([True])


def test_sum_over_a_mapped_axis():
    f = jax.vmap(lambda r: r / jax.lax.psum(r, "i") * 2, axis_name="i")
    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found, f(X), rtol=1e-5)  # the divisor is held
    g = jax.vmap(lambda r: jax.lax.pmean(r, "i") @ jnp.ones(3), axis_name="i")
    found = jaxlrp.lrp(g, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found.sum(), g(X).sum(), rtol=1e-5)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_relevance_inside_a_sharded_map():
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    w = jnp.cos(jnp.arange(12.0)).reshape(3, 4)
    net = lambda x: jnp.tanh(x @ w)  # noqa: E731
    explain = jaxlrp.lrp(net, composites.AttnLRP())
    sharded = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P("d"), out_specs=P("d")
    )(explain)
    np.testing.assert_allclose(jax.jit(sharded)(X), explain(X), rtol=1e-5)
