"""Relevances of other packages beside ours, on the same networks."""
