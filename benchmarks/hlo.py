"""How much work a compiled program holds: contractions, operations, memory."""

import re
from typing import Any

# An instruction: `%name = f32[2,3]{1,0} dot(...)`, or a call of a vendor's library.
_OPCODE = re.compile(r"=\s+[^=\n]*?\s(dot|convolution|ragged-dot)\(")
_LIBRARY = re.compile(
    r'custom_call_target="([^"]*(?:gemm|matmul|conv(?!ert)|dot)[^"]*)"', re.IGNORECASE
)


def contractions(text: str) -> int:
    """Matrix products and convolutions in the text of optimised HLO.

    Those in fusions count, and so do calls of a vendor's library. One in a loop's body
    counts once, however often the loop runs.
    """
    return len(_OPCODE.findall(text)) + len(_LIBRARY.findall(text))


def flops(compiled: Any) -> float | None:
    """Floating-point operations as XLA counts them, a loop's body once.

    None where the backend does not tell.
    """
    analysis = compiled.cost_analysis()
    if isinstance(analysis, list | tuple):
        analysis = analysis[0] if analysis else None
    return float(analysis["flops"]) if analysis and "flops" in analysis else None


def temporary(compiled: Any) -> int | None:
    """Bytes of temporary memory; None where the backend does not tell."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
