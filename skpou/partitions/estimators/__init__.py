"""The estimators of partitions."""
