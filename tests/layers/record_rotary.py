"""Record the results of upstream's rotary attention, which exists in Flax NNX only.

    pip install --target FOLDER nmn==0.3.5 flax jax==0.10.2
    PYTHONPATH=FOLDER python tests/layers/record_rotary.py

It writes `rotary_nnx.npz` beside itself: for every case below its options (JSON), its parameters
and constants by name, its inputs and its output, all float32. The tests do not need JAX.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from nmn.nnx.layers.attention.rotary_yat import RotaryYatAttention

BATCH, LENGTH, EMBED, HEADS, MAX_LENGTH = 2, 5, 12, 2, 9

SLAY = {"use_performer": True, "num_anchor_features": 3, "num_prf_features": 2}
MACLAURIN = {
    "use_performer": True,
    "performer_kind": "maclaurin",
    "performer_num_features": 10,
    "performer_nmax": 4,
}
RADIAL = {
    "use_performer": True,
    "performer_kind": "radial",
    "performer_sketch_m": 3,
    "performer_num_radial": 2,
    "performer_radial_dim": 3,
    "epsilon": 0.3,
}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"use_bias": True, "normalize_qk": True},
    "constant-alpha": {"constant_alpha": True, "epsilon": 0.1},
    "no-alpha": {"use_alpha": False, "theta": 100.0},
    "no-output-projection": {"use_out_proj": False},
    "learned-epsilon": {"learnable_epsilon": True, "epsilon": 0.2},
    "l1": {"normalization": "l1", "epsilon": 0.2},
    "l1-constant-alpha": {"normalization": "l1", "constant_alpha": -0.7},
    "softermax": {"normalization": "softermax", "power": 2.0},
    "use-softermax": {"use_softermax": True, "power": 1.5},
    "use-softermax-and-l1": {"use_softermax": True, "normalization": "l1", "power": 2.0},
    "pairs-mask": {"mask": "pairs"},
    "hidden-rows": {"mask": "hidden-rows", "use_bias": True},
    "keys-mask-l1": {"mask": "keys", "normalization": "l1"},
    "offset": {"position_offset": 3},
    "slay": SLAY,
    "slay-causal": SLAY | {"causal": True, "epsilon": 1e-3},
    "slay-two-nodes": SLAY | {"num_quad_nodes": 2, "performer_normalize": False},
    "slay-learned-epsilon": SLAY | {"learnable_epsilon": True, "epsilon": 0.1},
    "slay-constant-alpha": SLAY | {"constant_alpha": True, "use_bias": True, "normalize_qk": True},
    "slay-keys-mask": SLAY | {"mask": "keys", "causal": True},
    "slay-hidden-sequence": SLAY | {"mask": "hidden-keys", "use_bias": True},
    "slay-offset": SLAY | {"position_offset": 4, "causal": True},
    "maclaurin": MACLAURIN,
    "maclaurin-causal": MACLAURIN | {"causal": True, "performer_bias": 2.0},
    "maclaurin-no-normalization": MACLAURIN | {"performer_normalize": False, "epsilon": 0.3},
    "radial": RADIAL,
    "radial-causal": RADIAL | {"causal": True, "constant_alpha": 0.5},
    "radial-keys-mask": RADIAL | {"mask": "keys"},
}


def mask_of(kind: str, random: np.random.Generator) -> np.ndarray:
    """Draw a boolean mask; true stands for keys to attend to."""
    shapes = {
        "pairs": (1, 1, LENGTH, LENGTH),
        "hidden-rows": (BATCH, 1, LENGTH, LENGTH),
        "keys": (BATCH, 1, 1, LENGTH),
        "hidden-keys": (BATCH, 1, 1, LENGTH),
    }
    mask = random.random(shapes[kind]) < 0.6
    mask[..., 0] = True
    if kind == "hidden-rows":
        mask[0, 0, 2] = False
    elif kind == "hidden-keys":
        mask[1] = False
    return mask


def record(seed: int, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of one case by name."""
    random = np.random.default_rng(seed)
    arguments = {k: v for k, v in options.items() if k not in ("mask", "position_offset")}
    layer = RotaryYatAttention(EMBED, HEADS, MAX_LENGTH, **arguments, rngs=nnx.Rngs(seed))
    state = nnx.state(layer)
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = ".".join(str(getattr(k, "key", k)) for k in path).removesuffix("..value")
        value = np.asarray(leaf)
        if name.split(".")[-1] in ("bias", "scale", "alpha", "epsilon_param"):
            value = value + 0.3 * random.standard_normal(value.shape).astype(np.float32)
        arrays[f"state/{name}"] = value
    values = [arrays[key] for key in arrays if key.startswith("state/")]
    flat, tree = jax.tree_util.tree_flatten(state)
    del flat
    nnx.update(layer, jax.tree_util.tree_unflatten(tree, [jnp.asarray(v) for v in values]))
    x = random.standard_normal((BATCH, LENGTH, EMBED)).astype(np.float32)
    mask = mask_of(options["mask"], random) if "mask" in options else None
    y = layer(
        jnp.asarray(x),
        None if mask is None else jnp.asarray(mask),
        position_offset=options.get("position_offset", 0),
    )
    arrays |= {"x": x, "y": np.asarray(y)} | ({} if mask is None else {"mask": mask})
    arrays["options"] = np.array(json.dumps(arguments))
    arrays["position_offset"] = np.array(options.get("position_offset", 0))
    return arrays


if __name__ == "__main__":
    recorded = {
        f"{name}/{key}": array
        for seed, (name, options) in enumerate(CASES.items())
        for key, array in record(seed, options).items()
    }
    np.savez_compressed(Path(__file__).with_name("rotary_nnx.npz"), **recorded)
