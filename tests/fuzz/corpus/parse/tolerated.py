"""What a pasted file holds besides its mods."""
from __future__ import annotations
import torch, functools as ft
from torch.nn.attention.flex_attention import (create_block_mask, flex_attention,)

type Mod = Callable[..., Tensor]
T: TypeAlias = "Tensor"
try:
    import flash_attn
except ImportError as error:
    flash_attn = None

class Model(torch.nn.Module):
    def forward(self, x): return {**x, "a": 1j} if x else (yield)

@ft.lru_cache(maxsize=None)
def cached[S](mask: Mod, /, *shape: int, device="cuda", **rest) -> BlockMask:
    with torch.device(device) as where:
        return create_block_mask(mask, *shape)

async def serve(queue):
    async for item in queue:
        await item

def mask_mod(b, h, q, kv):
    window: int = 0x10
    edge: int
    while window > 1_000:
        window //= 2
    if (n := window) and kv: pass
    first, *rest = [q, kv]
    return q >= kv & (q - kv <= window), q q

match torch.cuda:
    case None: device = "cpu"
    case other if other: device = other

print(f"{torch.__version__!r:>{10}} {'a' if mask_mod else "b"}"); del Model
exec "print 1"
if __name__ == "__main__":
    main()
