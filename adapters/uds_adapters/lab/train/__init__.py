"""Fine-tuning with one policy, with checkpoints."""
