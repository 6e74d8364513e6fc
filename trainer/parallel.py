"""Processes, devices and sharding: from one CPU process to many GPU nodes, without the model knowing.

In: torchrun's environment (or none of it), a configuration. Out: a World, and the model ready to train: on its device, each
rank holding its part of every parameter (FSDP2), blocks recomputed or compiled if the configuration says so. Cost: of weights,
gradients and AdamW's state, 16 bytes per parameter over the number of ranks; and the weights of two blocks, the embedding and
the head whole at any time.
One process that computes in float32 shards nothing.
Not: no expert parallelism. FSDP gathers all experts of a layer on every rank; sending tokens to experts instead would need an
all-to-all whose sizes are known only after routing, which torch 2.13 has no public module for (docs/training.md).
CUDA (NCCL) has not been run on a GPU yet.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from trainer.config import Config
from trainer.model import Transformer, initial_value

WRAPPER = "_checkpoint_wrapped_module."  # what torch's activation checkpointing adds to names


@dataclass(frozen=True)
class World:
    """This process among all: `size` ranks, one device each."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether it is the first of its machine."""
        return os.environ.get("LOCAL_RANK", "0") == "0"


def join_world() -> World:
    """Join the group that torchrun started, or be a group of one. CUDA where there is a device for each local rank, else CPU (gloo)."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    size = dist.get_world_size()
    return World(dist.get_rank(), size, device, init_device_mesh(device.type, (size,), mesh_dim_names=("shard",)))


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def prepare(config: Config, world: World) -> Transformer:
    """The model of `config`, sharded over `world`; its parameters hold nothing yet (`initialise`, or load a checkpoint)."""
    with torch.device("meta"):
        model = Transformer(config.model)
    for number, block in enumerate(model.blocks):
        if config.train.activation_checkpointing:
            model.blocks[number] = checkpoint_wrapper(block)
        if config.train.compile:
            model.blocks[number].compile()
    if world.size > 1 or config.train.precision == "bfloat16":
        _shard(model, config, world)
    return model.to_empty(device=world.device)


def _shard(model: Transformer, config: Config, world: World) -> None:
    # Inputs are not cast: rotary angles stay float32, and the embedding gives the blocks their type.
    lower = torch.bfloat16 if config.train.precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=world.mesh, mp_policy=policy, shard_placement_fn=_placement(world.size))
    fully_shard(model, mesh=world.mesh, mp_policy=policy, shard_placement_fn=_placement(world.size))


def _placement(ranks: int) -> Callable[[nn.Parameter], Shard | None]:
    """Experts are stacked along dimension 0; with more ranks than experts, most would hold only padding: cut the next one."""

    def choose(parameter: nn.Parameter) -> Shard | None:
        return Shard(1) if parameter.ndim == 3 and ranks > parameter.shape[0] and parameter.shape[1] % ranks == 0 else None

    return choose


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Initial values: the same whatever the sharding, since each parameter is drawn whole, on every rank, from its own seed."""
    for name, parameter in model.named_parameters():
        value = initial_value(name.replace(WRAPPER, ""), parameter.shape, model.config, seed)
        if isinstance(parameter, DTensor):
            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.copy_(value)
