"""Recomputing activations in backward instead of keeping them.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). A network's parts take a `Run`, with which they
call the pieces that may be recomputed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

Run = Callable[..., Any]
"""Called as run(function, *arguments), gives function(*arguments)."""


def keep(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, whose activations are kept for backward."""
    return function(*arguments)


def recompute(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, whose activations are made again in backward, with the same random numbers."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)
