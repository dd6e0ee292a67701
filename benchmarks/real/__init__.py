"""How good are explanations of real networks, on photographs, words and sentences?

One module for each network, with the same kind of measures: `images` is
EfficientNet-Lite0, `phonemes` a GRU that reads words aloud, `prompts` a language model,
`pairs` an encoder of sentences. Each takes any explanation, a function of an input and
a target. `recurrences` asks how large relevances become in recurrent networks.
"""
