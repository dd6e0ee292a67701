"""Models of the libraries that people use, in small sizes, each with random weights.

Each module has the models of one library, `MODELS[family][name]()`, functions that
return `(f, (params, x))`. They run in environments of their own, `requirements-*.txt`:

    make zoo
    python -m benchmarks.zoo equinox_models haiku_models
    python -m benchmarks.zoo huggingface --models BERT GPT-2
"""
