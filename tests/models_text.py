"""A tiny BERT with random weights, for scores that compare embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = "is are in no or and left right small large heart lung lungs pleural effusion nodule normal clear enlarged"


def write_bert(folder: Path) -> Path:
    """Three layers, 32 wide, with a WordPiece tokenizer, as a Hugging Face folder."""
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{x}" for x in letters),
        *WORDS.split(),
    ]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder
