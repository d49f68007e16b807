"""BERT's uncased tokens, and a file of them for examples/minilm.c. Needs nothing but Python.

    python3 examples/data/wordpiece.py --model FOLDER --output tokens.safetensors

FOLDER has vocab.txt. Each line of --text is a sentence. Writes `tokens` I32 [N,L], `padding` BOOL [N,L], true for padding, and
`heads` and `rate`, which the model's weights do not say.
"""

import argparse
import json
import struct
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADS = 12
RATE = 0.002


def read_vocabulary(model):
    """{word: number} of a model's folder."""
    words = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return {word: number for number, word in enumerate(words)}


# WordPiece takes the longest known piece from the left.


def word_pieces(word, vocabulary):
    """The numbers of a word's pieces; a piece that goes on a word begins with ##."""
    pieces, begin = [], 0
    while begin < len(word):
        for end in range(len(word), begin, -1):
            piece = ("##" if begin else "") + word[begin:end]
            if piece in vocabulary:
                pieces.append(vocabulary[piece])
                begin = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return pieces


def stands_alone(letter):
    """Whether a letter is a word: punctuation, and Chinese ones (their main block)."""
    symbol = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return symbol or unicodedata.category(letter).startswith("P") or "\u4e00" <= letter <= "\u9fff"


def tokenize(text, vocabulary):
    """The numbers of a text's tokens, between [CLS] and [SEP]."""
    letters = unicodedata.normalize("NFD", text.lower())
    letters = (letter for letter in letters if unicodedata.category(letter) != "Mn")
    words = "".join(f" {letter} " if stands_alone(letter) else letter for letter in letters).split()
    pieces = [piece for word in words for piece in word_pieces(word, vocabulary)]
    return [vocabulary["[CLS]"], *pieces, vocabulary["[SEP]"]]


# The file: safetensors


def save(path, tensors):
    """Writes {name: (dtype, shape, bytes)}."""
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        begin, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(data for _, _, data in tensors.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder with vocab.txt")
    parser.add_argument("--text", type=Path, default=HERE / "sentences.txt")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    vocabulary = read_vocabulary(options.model)
    sentences = [tokenize(line, vocabulary) for line in options.text.read_text(encoding="utf-8").splitlines()]
    length = max(map(len, sentences))
    shape = [len(sentences), length]
    tokens = [token for s in sentences for token in s + [vocabulary["[PAD]"]] * (length - len(s))]
    padding = b"".join(bytes(len(s)) + b"\x01" * (length - len(s)) for s in sentences)
    save(options.output, {
        "tokens": ("I32", shape, struct.pack(f"<{len(tokens)}i", *tokens)),
        "rate": ("F32", [1], struct.pack("<f", RATE)),
        "heads": ("I32", [1], struct.pack("<i", HEADS)),
        "padding": ("BOOL", shape, padding),
    })  # fmt: skip
    print(f"{options.output}: {shape[0]} sentences of up to {length} tokens, {sum(map(len, sentences))} in all")


if __name__ == "__main__":
    main()
