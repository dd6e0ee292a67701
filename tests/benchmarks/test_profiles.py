"""What a compiled program is busy with is told apart by what its instructions are."""

import jax.numpy as jnp

from benchmarks import profiles

TEXT = """
HloModule jit_f

%fused (p: f32[2,3]) -> f32[2,2] {
  ROOT %dot.1 = f32[2,2]{1,0} dot(%p, %p), lhs_contracting_dims={1}
}

%body (p: (f32[2])) -> (f32[2]) {
  %add.2 = f32[2]{0} add(%p, %p)
}

ENTRY %main.1 (a: f32[2,3]) -> (f32[2,2], f32[2]) {
  %a = f32[2,3]{1,0} parameter(0)
  %dot_fusion = f32[2,2]{1,0} fusion(%a), kind=kOutput, calls=%fused
  %call.3 = f32[2]{0} call(%a), to_apply=%body
  %while.4 = (f32[2]{0}) while(%a), condition=%body, body=%body
  ROOT %tuple.5 = (f32[2,2]{1,0}, f32[2]{0}) tuple(%dot_fusion, %call.3)
}
"""


def test_a_fusion_is_what_is_in_it_and_what_runs_others_is_left_out():
    found = profiles.instructions(TEXT)
    assert [name for name, contracts in found.items() if contracts] == [
        "dot.1",
        "dot_fusion",
    ]
    assert not found["add.2"] and not found["a"]
    assert not {"call.3", "while.4"} & set(found)


def test_a_program_is_busy_with_its_products_or_beside_them():
    x = jnp.ones((600, 600))
    product = profiles.busy(lambda x: x @ x, x, calls=2)
    function = profiles.busy(lambda x: jnp.sort(jnp.sin(x)), x, calls=2)
    assert product.contractions > 0.5 * (product.contractions + product.beside) > 0
    assert function.contractions == 0 < function.beside


def test_small_shapes_have_the_same_rows():
    parts = [part for part in profiles.costs(tiny=True)]
    found = [(row.model, row.composite) for part in parts for row in part]
    names = [*profiles.LAYERS.values(), *((n, c) for n, c in profiles.NETWORKS.items())]
    assert [composite for _, composite in found] == [c for _, cs in names for c in cs]
    assert all(row.gradient.contractions > 0 for part in parts for row in part)
