"""Checkpoints as LLaVA, LLaVA-Med and Libra released them, read without running pickles, written as safetensors."""
