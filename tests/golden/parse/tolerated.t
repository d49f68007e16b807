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
----
(expression "What a pasted file holds besides its mods.")
(import (__future__ annotations -> annotations))
(import (torch -> torch) (functools -> ft))
(import (torch.nn.attention.flex_attention create_block_mask -> create_block_mask) (torch.nn.attention.flex_attention flex_attention -> flex_attention))
(unsupported "type aliases are not in the mod language" (binds Mod))
(= T "Tensor")
(unsupported "try statements are not in the mod language: write only what is to happen" (binds flash_attn error))
(class Model (. (. torch nn) Module) (locals forward)
  (def forward (self x) (locals self x) generator
    (return (if x (dict (star x) None "a" (unsupported "imaginary numbers are not in the mod language")) (unsupported "'yield' is not in the mod language: return a value")))))
(def cached (mask *shape device!="cuda" **rest) (decorators (call (. ft lru_cache) maxsize=None)) (locals mask shape device rest where)
  (unsupported "with statements are not in the mod language: write their body alone" (binds where)))
(async def serve (queue) (locals queue item)
  (unsupported "'async' is not in the mod language" (binds item)))
(def mask_mod (b h q kv) (locals b h q kv window edge n first rest)
  (= window 16)
  (annotation edge)
  (unsupported "while loops are not in the mod language: use a for loop over range(...)" (binds window))
  (if (and (:= n window) kv)
    (pass))
  (= (tuple first (star rest)) (list q kv))
  (unsupported "unexpected 'q': expected the end of the line" (binds)))
(unsupported "the mod language matches constants: numbers, strings, None, names with a dot, and '_'" (binds device other))
(expression (call print opaque"{torch.__version__!r:>{10}} {'a' if mask_mod else \"b\"}"))
(del Model)
(unsupported "unexpected a string: expected the end of the line" (binds))
(if (== __name__ "__main__")
  (expression (call main)))
