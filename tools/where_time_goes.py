"""Where the time of a training step goes: attention, router, dispatch, experts, head and loss, optimizer.

In: a function that takes an eager step of a model, and the model. Out: the seconds of each part, forward and backward, in one
real step. torch's profiler records every operation; those of the forward pass belong to the part whose function called them,
and those of the backward pass to the part of the operation that they are the gradient of (the profiler numbers both alike).
The profiler slows a step by a few percent: shares are right, speeds are measured without it.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from trainer import model as model_module
from trainer import routing, step
from trainer.model import SwiGLU, Transformer

PREFIX = "part: "
ATTENTION, ROUTER, DISPATCH, EXPERTS, DENSE = "attention", "router and its losses", "dispatch and combine", "experts", "feed-forward"
HEAD, OPTIMIZER, REST = "head and loss", "optimizer and clipping", "embedding, norms, sums, Python"
PARTS = (ATTENTION, ROUTER, DISPATCH, EXPERTS, DENSE, HEAD, OPTIMIZER, REST)
BACKWARD = "autograd::engine::evaluate_function: "


def parts(run: Callable[[], float], model: Transformer, update: tuple[Any, str]) -> dict[str, float]:
    """Seconds by part, of one step; they sum to the step's wall time. Takes a step before, to warm up.

    update: the module, and the name in it, of the function by which `run` clips and updates.
    """
    run()
    with ExitStack() as marks:
        for mark in [*_marks(model), _mark(*update, OPTIMIZER)]:
            marks.enter_context(mark)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            began = time.perf_counter()
            run()
            seconds = time.perf_counter() - began
    found = attribute(list(profiler.events() or []))
    found[REST] = seconds - sum(value for part, value in found.items() if part != REST)
    return {part: found[part] for part in PARTS if found.get(part)}


def attribute(events: list[FunctionEvent]) -> dict[str, float]:
    """Each event's own time, in seconds, by part; REST for what no part called."""
    owner: dict[int, tuple[float, str]] = {}  # of the operation that made a node of the graph: when it started, its part
    for event in events:
        if event.sequence_nr >= 0 and not _root(event).name.startswith(BACKWARD):
            # Several may bear a number: the last to start made the node, those before it needed no gradient.
            owner[event.sequence_nr] = max(owner.get(event.sequence_nr, (-1.0, REST)), (event.time_range.start, _called_from(event)))
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        root = _root(event)
        part = owner.get(root.sequence_nr, (0.0, REST))[1] if root.name.startswith(BACKWARD) else _called_from(event)
        seconds[part] += event.self_cpu_time_total / 1e6
    return dict(seconds)


def _root(event: FunctionEvent) -> FunctionEvent:
    """The outermost event around this one within a pass: a node of the backward pass, or something of the forward pass."""
    while event.cpu_parent is not None and not event.name.startswith(BACKWARD):
        event = event.cpu_parent
    return event


def _called_from(event: FunctionEvent | None) -> str:
    while event is not None:
        if event.name.startswith(PREFIX):
            return event.name.removeprefix(PREFIX)
        event = event.cpu_parent
    return REST


def _marks(model: Transformer) -> list[AbstractContextManager[Any]]:
    marks = [
        _mark(routing, "dispatch", DISPATCH),
        _mark(routing, "combine", DISPATCH),
        _mark(step, "auxiliary_losses", ROUTER),
        _mark(step, "_router_sums", ROUTER),
        _mark(model_module, "chunked_cross_entropy", HEAD),
    ]
    block: Any
    for block in model.blocks:
        marks.append(_mark(block.attention, "forward", ATTENTION))
        if isinstance(block.ffn, SwiGLU):
            marks.append(_mark(block.ffn, "forward", DENSE))
        else:
            marks.append(_mark(block.ffn.router, "forward", ROUTER))
            marks += [_mark(experts, "forward", EXPERTS) for experts in (block.ffn.experts, block.ffn.shared_expert) if experts]
    if model.shared_experts is not None:
        marks.append(_mark(model.shared_experts, "forward", EXPERTS))
    return marks


def _mark(owner: Any, name: str, part: str) -> AbstractContextManager[Any]:
    """While it is entered, calls of `owner.name` are recorded as `part`."""
    original: Callable[..., Any] = getattr(owner, name)

    def marked(*arguments: Any, **named: Any) -> Any:
        with record_function(PREFIX + part):
            return original(*arguments, **named)

    return patch.object(owner, name, marked)
