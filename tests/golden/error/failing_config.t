
----
class Config:
    def __init__(self):
        with open("config.json") as file:
            self.window = file


config = Config()


def mask_mod(b, h, q, kv):
    return q - kv < config.window
----
mod.py:3:9: error: with statements are not in the mod language: write their body alone
    3 |         with open("config.json") as file:
      |         ^~~~
