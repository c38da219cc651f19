"""Training: transformers' Trainer with our losses, atomic checkpoints, and order by (seed, epoch, record)."""
