"""Models of one architecture as one program: every weight of theirs becomes a slice of a stacked weight.

A small model leaves a GPU idle between its many small kernels; S models in one take as many kernels as one does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from braid.errors import UsageError
from braid.policies.loading import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_PADDING = 4
"""Batches are read together if that makes at most this many positions of each position they have."""


class StackedLinear(nn.Linear):
    """S linear layers, each for its block of rows; a linear layer for those who look for what autocast casts.

    Args:
        weight: [S, out, in].
        bias: [S, 1, out].
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)
        self.weight = weight
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        """[S * B, ..., in] -> [S * B, ..., out]."""
        blocks, weight = input.reshape(len(self.weight), -1, input.shape[-1]), self.weight.transpose(1, 2)
        y = torch.bmm(blocks, weight) if self.bias is None else torch.baddbmm(self.bias, blocks, weight)
        return y.view(*input.shape[:-1], -1)


class StackedEmbedding(nn.Module):
    """S embeddings, each for its block of rows.

    Args:
        weight: [S, V, D].
        padding_idx: the token whose embedding gets no gradient, or None.
    """

    def __init__(self, weight: nn.Parameter, padding_idx: int | None) -> None:
        super().__init__()
        self.weight, self.padding_idx = weight, padding_idx

    def forward(self, tokens: Tensor) -> Tensor:
        """[S * B, ...] -> [S * B, ..., D]."""
        size, vocabulary = self.weight.shape[:2]
        first = torch.arange(0, size * vocabulary, vocabulary, device=tokens.device).unsqueeze(-1)
        rows = (tokens.reshape(size, -1) + first).view(tokens.shape)
        found = functional.embedding(rows, self.weight.flatten(0, 1))
        if self.padding_idx is None or not found.requires_grad:
            return found
        return torch.where((tokens == self.padding_idx).unsqueeze(-1), found.detach(), found)


class StackedNorm(nn.Module):
    """S normalisations over the last dimension, each for its block of rows.

    Args:
        norm: of one model, without its weights.
        weight: [S, 1, D].
        bias: [S, 1, D].
    """

    def __init__(self, norm: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        for name in ("weight", "bias"):
            norm.register_parameter(name, None)
        self.norm, self.weight, self.bias = norm, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """[S * B, ..., D], normalised."""
        y = self.norm(x).view(len(self.weight), -1, x.shape[-1]) * self.weight
        return (y if self.bias is None else y + self.bias).view(x.shape)


class BlockwiseNorm(nn.Module):
    """S normalisations of Transformers' own, which use a weight of any leading shape as they use one of [D].

    Args:
        norm: with a weight [S, 1, D].
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[S * B, ..., D], normalised."""
        size = len(self.norm.get_parameter("weight"))
        y: Tensor = self.norm(x.reshape(size, -1, x.shape[-1]))
        return y.view(x.shape)


@dataclass
class Graph:
    """What some of the models have read together, for gradients.

    Args:
        states: [M, H], those of one model behind those of another.
        sizes: how many states each model has.
        weights: the stacked weights that made the states.
        parameters: of each model, in the order of `weights`.
        waiting: the models, by position, that have not asked for their gradients.
    """

    states: Tensor
    sizes: list[int]
    weights: list[nn.Parameter]
    parameters: list[list[nn.Parameter]]
    waiting: set[int]

    def backward(self, gradients: Mapping[int, Tensor]) -> None:
        """Add to the gradients of some models' parameters.

        Args:
            gradients: by position of the model, those of its states.
        """
        self.waiting -= gradients.keys()
        of_states = [
            gradients[i] if i in gradients else torch.zeros_like(own)
            for i, own in enumerate(self.states.detach().split(self.sizes))
        ]
        found = torch.autograd.grad(
            self.states, self.weights, torch.cat(of_states), retain_graph=bool(self.waiting), allow_unused=True
        )
        for weight, gradient in enumerate(found):
            if gradient is None:
                continue
            whole = gradient.contiguous()  # fused optimisers want the strides of the parameter
            for i in gradients:
                parameter = self.parameters[i][weight]
                own = whole[i].view_as(parameter)
                parameter.grad = own if parameter.grad is None else parameter.grad.add_(own)


class Stack:
    """S models of one architecture in one, for rows that come as S equal blocks.

    The parameters of the models become views of the stacked weights: what an optimiser does to them is done to the
    stack, and they are saved and loaded as before.

    Args:
        models: causal language models, without adapters and dropout.

    Attributes:
        model: the models in one; call `use` first.

    Raises:
        UsageError: the models differ in more than their weights, or have parts that cannot be stacked.
    """

    def __init__(self, models: Sequence[PreTrainedModel]) -> None:
        first, size = models[0], len(models)
        _check_alike(models)
        _check_parts(first)
        inputs = torch.arange(8, device=first.device).remainder(first.config.get_text_config().vocab_size).view(2, 4)
        with torch.no_grad():
            expected = torch.cat([model(input_ids=inputs, use_cache=False).logits for model in models])
        own = [dict(model.named_parameters()) for model in models]
        self._weights = [_stacked([parameters[name] for parameters in own]) for name in own[0]]
        self._parameters = [list(parameters.values()) for parameters in own]
        of_first = {id(p): weight for p, weight in zip(own[0].values(), self._weights, strict=True)}
        self.model = copy.deepcopy(first).eval()
        self._slots: list[tuple[nn.Module, str, nn.Parameter]] = []
        for name, module in first.named_modules():
            weights = {key: of_first[id(p)] for key, p in module.named_parameters(recurse=False)}
            if weights:
                made = _stacked_module(self.model.get_submodule(name), weights)
                parent, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(parent), last, made)
                owner = made.norm if isinstance(made, BlockwiseNorm) else made
                self._slots += [(owner, key, weight) for key, weight in weights.items()]
        self._complete = True
        try:
            with torch.no_grad():
                found = self.model(input_ids=inputs.repeat(size, 1), use_cache=False).logits
        except Exception as error:  # code that comes with a checkpoint may do anything with its rows
            raise UsageError(f"{_kind(first)} models cannot be stacked: {first_line(error)}") from error
        if not float((found - expected).norm()) <= 1e-2 * float(expected.norm()):
            raise UsageError(f"{_kind(first)} models cannot be stacked: together they compute something else")

    def use(self, places: Sequence[int]) -> list[nn.Parameter]:
        """Let `model` be the models with these numbers, in this order; returns its weights, [len(places), ...] each."""
        complete = list(places) == list(range(len(self._parameters)))
        if complete and self._complete:
            return self._weights
        weights = self._weights
        if not complete:
            index = torch.tensor(places, device=self.model.device)
            weights = [nn.Parameter(w.detach().index_select(0, index), w.requires_grad) for w in weights]
        chosen = {id(whole): weight for whole, weight in zip(self._weights, weights, strict=True)}
        for module, name, whole in self._slots:
            setattr(module, name, chosen[id(whole)])
        self._complete = complete
        return weights

    def read(
        self, places: Sequence[int], batches: Sequence[tuple[Tensor, Tensor]], pad_token_id: int
    ) -> list[tuple[Tensor, Graph, int]]:
        """The hidden states from which models predict tokens.

        Args:
            places: numbers of the models.
            batches: for each of them tokens [B, T], padded on the right, and which are predicted, [B, T] bool.
            pad_token_id: fills rows and columns up.

        Returns:
            For each model its states [M, H], row by row, the graph they are part of, and its position in that.
        """
        found: list[tuple[Tensor, Graph, int] | None] = [None] * len(places)
        for part in split_ragged([tokens.shape for tokens, _ in batches]):
            weights = self.use([places[i] for i in part])
            tokens = _joined([batches[i][0] for i in part], pad_token_id)
            predicted = _joined([batches[i][1] for i in part], False)[:, 1:]
            sizes = predicted.reshape(len(part), -1).sum(-1).tolist()
            hidden = self.model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
            states = hidden[:, :-1][predicted]
            trained = [k for k, weight in enumerate(weights) if weight.requires_grad]
            parameters = [[self._parameters[places[i]][k] for k in trained] for i in part]
            graph = Graph(states, sizes, [weights[k] for k in trained], parameters, set(range(len(part))))
            for position, (i, own) in enumerate(zip(part, states.split(sizes), strict=True)):
                found[i] = (own, graph, position)
        return [one for one in found if one is not None]


def split_ragged(shapes: Sequence[torch.Size]) -> list[list[int]]:
    """Which batches to read together so that none is padded to far more than it is.

    Args:
        shapes: [B, T] of each.

    Returns:
        Lists of their numbers.
    """
    parts: list[list[int]] = []
    for number in sorted(range(len(shapes)), key=lambda i: shapes[i][1]):
        part = [*parts[-1], number] if parts else []
        padded = len(part) * max((shapes[i][0] for i in part), default=0) * shapes[number][1]
        if part and padded <= LARGEST_PADDING * sum(shapes[i].numel() for i in part):
            parts[-1] = part
        else:
            parts.append([number])
    return [sorted(part) for part in parts]


def _joined(values: Sequence[Tensor], fill: int) -> Tensor:
    """[B, T] each -> equal blocks of rows, filled up."""
    rows, width = (max(value.shape[k] for value in values) for k in (0, 1))
    joined = values[0].new_full((len(values), rows, width), fill)
    for block, value in zip(joined, values, strict=True):
        block[: value.shape[0], : value.shape[1]] = value
    return joined.flatten(0, 1)


def _stacked(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """[S, ...], or [S, 1, D] of vectors; the parameters become views of it."""
    whole = torch.stack([p.detach() if p.ndim > 1 else p.detach().unsqueeze(0) for p in parameters])
    for parameter, own in zip(parameters, whole, strict=True):
        parameter.data = own.view(parameter.shape)
    return nn.Parameter(whole, parameters[0].requires_grad)


def _stacked_module(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> nn.Module:
    if type(module) is nn.Linear:
        return StackedLinear(**weights)
    if type(module) is nn.Embedding:
        return StackedEmbedding(**weights, padding_idx=module.padding_idx)
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        return StackedNorm(module, **weights)
    module.weight = weights["weight"]
    return BlockwiseNorm(module)


def _check_parts(model: PreTrainedModel) -> None:
    """Refuse a model with parts that cannot be stacked, before any of its weights is touched."""
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        known = type(module) in (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
        if own and not known and not (type(module).__name__.endswith("Norm") and list(own) == ["weight"]):
            raise UsageError(f"{_kind(model)} models cannot be stacked: {type(module).__name__} is not known")
        rates = [value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
        if any(rates) or (isinstance(module, nn.Dropout) and module.p):
            raise UsageError(f"{_kind(model)} models with dropout cannot be stacked; set it to 0 in the configuration")


def _check_alike(models: Sequence[PreTrainedModel]) -> None:
    shapes = [[(name, p.shape, p.dtype, p.device) for name, p in model.named_parameters()] for model in models]
    configurations = [{**model.config.to_dict(), "_name_or_path": ""} for model in models]
    for i, (shape, configuration) in enumerate(zip(shapes, configurations, strict=True)):
        different = [name for name, value in configuration.items() if value != configurations[0].get(name)]
        if shape != shapes[0] or different:
            what = f": {', '.join(different)}" if different else ""
            raise UsageError(f"models to be stacked must have the same architecture; 0 and {i} differ{what}")


def _kind(model: PreTrainedModel) -> str:
    return str(model.config.model_type)
