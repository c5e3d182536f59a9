"""What the service costs, beside what the same would cost otherwise, measured in one run."""
