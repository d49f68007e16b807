#!/usr/bin/env bash
# A query that sees no key gets the mean of all values from JAX, or zeros, or NaN, by how the mask is written.
#
# Guess:   jax.nn.dot_product_attention gives one answer for a row without keys, and as nothing is seen, no gradient.
# Version: jax 0.10.2, Linux, x86-64, CPU (implementation "xla", the default there).
# Seen:    mask=False in the whole row, or key_value_seq_lengths=0: the mean of all values, masked ones included, and
#          they get its gradient; the residual is -2.4e38, not -inf. query_seq_lengths before the row: zeros. A bias of
#          -inf in the whole row: NaN. Pallas' splash attention, in interpret mode, gives the mean too.
# Means:   padded rows that go on into a sum (a loss, a normalisation over the batch) carry the values of padding and
#          train on it; results moved between frameworks differ in those rows, where PyTorch's flex_attention has 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --target "$work" jax==0.10.2 jaxlib==0.10.2
PYTHONPATH=$work JAX_PLATFORMS=cpu python3 - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask

ROW = 2
rng = np.random.default_rng(0)
query, key, value = (jnp.array(rng.normal(size=(1, n, 1, 8)), jnp.float32) for n in (4, 6, 6))
mean, attention = value.mean(1)[0, 0], jax.nn.dot_product_attention
mask = np.ones((1, 1, 4, 6), bool)
mask[:, :, ROW] = False
bias = np.where(mask, 0, -np.inf).astype(np.float32)
rows = {
    "mask": attention(query, key, value, mask=mask)[0, ROW, 0],
    "key_value_seq_lengths": attention(query, key, value, key_value_seq_lengths=jnp.array([0]))[0, ROW, 0],
    "query_seq_lengths": attention(query, key, value, query_seq_lengths=jnp.array([ROW]))[0, ROW, 0],
    "bias": attention(query, key, value, bias=bias)[0, ROW, 0],
}
gradient = jax.grad(lambda v: attention(query, key, v, mask=mask)[0, ROW].sum())(value)
q, k, v = (jnp.array(rng.normal(size=(1, 128, 128)), jnp.float32) for _ in range(3))
hidden = splash_attention_mask.NumpyMask(np.tril(np.ones((128, 128), bool), -1))
splash = splash_attention.make_splash_mha_single_device(splash_attention_mask.MultiHeadMask([hidden]), interpret=True)
for name, row in rows.items():
    print(f"{name:22}", np.round(np.array(row[:4]), 4))
print(f"{'mean of the values':22}", np.round(np.array(mean[:4]), 4), " gradient of a value", float(gradient[0, 0, 0, 0]))
same = (
    np.allclose(rows["mask"], mean, atol=1e-6)
    and np.allclose(rows["key_value_seq_lengths"], mean, atol=1e-6)
    and np.all(rows["query_seq_lengths"] == 0)
    and np.all(np.isnan(rows["bias"]))
    and np.allclose(gradient, 1 / 6)
    and np.allclose(splash(q, k, v)[0, 0], v[0].mean(0), atol=1e-5)
)
sys.exit(0 if same else "JAX no longer does this")
PYTHON
