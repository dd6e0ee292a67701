"""Relevances of other packages next to ours, on the same networks."""
