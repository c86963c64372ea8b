"""Fine-tuning through TRL, with checkpoints."""
