"""What explaining costs, beside what predicting costs."""
