"""Floor 4: which method, objective and length suit the labels at hand, decided on these labels alone."""
