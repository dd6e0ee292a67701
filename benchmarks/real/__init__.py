"""How good are explanations of real networks, on photographs, words and prompts?

One module for each network, with the same kind of measures: `images` is
EfficientNet-Lite0. Each takes any explanation, a function of an input and a target.
"""
