"""Linear algebra and convex solves on tensors. They know nothing of estimators."""
