
----
import torch


def main():
    def mask_mod(b, h, q_idx, kv_idx):
        return q_idx >= kv_idx

    print(mask_mod)
----
mod.py:1:1: error: neither a score mod nor a mask mod is found in this file
    1 | import torch
      | ^
  note: functions of four or five parameters: 'mask_mod' (line 5, 4 parameters); a mod is defined at module level or returned by a factory, and chosen with --score-mod X or --mask-mod X
