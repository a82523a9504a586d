"""Gates: trees of partitions, their products, and how they are fitted."""
