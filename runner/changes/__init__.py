"""What a run changed, as data: what was kept, what may be applied, in which order. Pure."""
