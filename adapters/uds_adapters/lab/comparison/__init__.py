"""A comparison of policies: which runs, who trains them, what they show."""
