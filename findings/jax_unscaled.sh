#!/usr/bin/env bash
# JAX's kernels for attention do not divide scores by sqrt(E), each in its own way.
#
# Guess:   as jax.nn.dot_product_attention does, the Pallas kernels for TPU scale scores by 1 / sqrt(E) unless told otherwise.
# Version: jax 0.10.2, Linux, x86-64; splash attention in interpret mode on the CPU.
# Seen:    splash attention is the softmax of plain products, and neither it nor paged_attention has a parameter for a
#          scale: who calls them multiplies the query beforehand. flash_attention and ragged_paged_attention have
#          sm_scale, which is 1 by default.
# Means:   a layer moved from dot_product_attention to one of these, or a reference written for it elsewhere, gives softer
#          or sharper attention and no error. flexjit's library takes the scale with each call, 1 / sqrt(E) is the tool's
#          default: calls that stand for these kernels give --scale 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --target "$work" jax==0.10.2 jaxlib==0.10.2
PYTHONPATH=$work JAX_PLATFORMS=cpu python3 - <<'PYTHON'
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention
from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

N = 128
rng = np.random.default_rng(0)
query, key, value = (jnp.array(rng.normal(size=(1, N, N)), jnp.float32) for _ in range(3))


def definition(scale):
    scores = jnp.where(jnp.tril(jnp.ones((N, N), bool)), jnp.einsum("hqe,hke->hqk", query, key) * scale, -jnp.inf)
    return jnp.einsum("hqk,hke->hqe", jax.nn.softmax(scores, -1), value)


mask = splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((N, N))])
out = splash_attention.make_splash_mha_single_device(mask, interpret=True)(query, key, value)
plain, scaled = (float(jnp.abs(out - definition(scale)).max()) for scale in (1, N**-0.5))
print(f"splash attention: {plain:.1e} from softmax(q k), {scaled:.1e} from softmax(q k / sqrt(E))")
defaults = {}
for kernel in (paged_attention, flash_attention, ragged_paged_attention):
    parameters = inspect.signature(kernel).parameters
    defaults[kernel.__name__] = [p.default for name, p in parameters.items() if "scale" in name and name[0] == "s"]
    print(f"{kernel.__name__}: default of sm_scale {defaults[kernel.__name__] or 'not there'}")
same = plain < 1e-4 < scaled and list(defaults.values()) == [[], [1.0], [1.0]]
sys.exit(0 if same else "JAX no longer does this")
PYTHON
