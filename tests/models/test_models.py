"""The six networks of the study: sizes, values, gradients, and what the rest of the package asks of them."""

import copy
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_mu.config import ARCHITECTURES, STUDY_KEYS
from audio_mu.errors import UserError
from audio_mu.models import AudioClassifier, build, tiny
from audio_mu.models.cct import CCT, CCTLayer
from audio_mu.models.vggish import VGGish
from audio_mu.models.vit import ViT, sine_cosine_positions

MEL, SPEC, MEL_TWO_SECONDS = (32, 63), (257, 63), (32, 126)

PUBLISHED = [
    ("VGGishMel", 10, 4_787_850),
    ("VGGishMel", 35, 4_839_075),
    ("VGGishSpec", 10, 7_540_362),
    ("VGGishSpec", 35, 7_591_587),
    ("CTCmel", 10, 3_969_355),
    ("CTCmel", 35, 3_975_780),
    ("CTCspec", 10, 3_984_715),
    ("CTCspec", 35, 3_991_140),
    ("ViTmel", 10, 11_088_586),
    ("ViTmel", 35, 11_101_411),
    ("ViTspec", 10, 12_228_124),
    ("ViTspec", 35, 12_240_949),
]

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_shape = pytest.mark.parametrize("shape", [MEL, SPEC, MEL_TWO_SECONDS])


def small(architecture: str, shape: tuple[int, int] = MEL, n_classes: int = 5, seed: int = 0) -> AudioClassifier:
    torch.manual_seed(seed)
    return build(architecture, shape, n_classes, **tiny(architecture))


def clips(n: int, shape: tuple[int, int] = MEL, seed: int = 1) -> Tensor:
    return torch.randn(n, 1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("key", "n_classes", "expected"), PUBLISHED)
def test_trainable_parameters_are_the_studys(key: str, n_classes: int, expected: int) -> None:
    """Catches any layer, width or bias that differs from the study's network."""
    architecture, pipeline = STUDY_KEYS[key]
    with torch.device("meta"):
        network = build(architecture, {"mel": MEL, "spec": SPEC}[pipeline], n_classes)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


@every_architecture
@every_shape
def test_shapes_of_logits_and_penultimate(architecture: str, shape: tuple[int, int]) -> None:
    """Catches sizes fixed to one-second mel clips, and features that are not what the head reads."""
    network = small(architecture, shape).eval()
    inputs = clips(3, shape)
    logits, features = network(inputs), network.penultimate(inputs)
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    assert features.ndim == 2
    torch.testing.assert_close(features @ network.head.weight.T + network.head.bias, logits)


@every_architecture
@every_shape
def test_every_parameter_gets_a_gradient(architecture: str, shape: tuple[int, int]) -> None:
    """Catches layers left out of the forward pass, detached values and numbers that overflow."""
    network = small(architecture, shape)
    inputs = clips(16, shape)
    F.cross_entropy(network(inputs), torch.arange(16) % 5).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # Softmax does not see a constant added to all scores: this bias has the gradient 0 by definition.
        if name != "pool.score.bias":
            assert parameter.grad.abs().max() > 0, name


def relu_before_pool(network: VGGish, inputs: Tensor) -> Tensor:
    """VGGish written out in the study's order, from the same weights."""
    convolutions = [module for module in network.convolutions if isinstance(module, nn.Conv2d)]
    maps = inputs
    for convolution, pool in zip(convolutions, (True, True, False, True, False, True), strict=True):
        maps = F.conv2d(maps, convolution.weight, convolution.bias, padding=1).relu()
        if pool:
            maps = F.max_pool2d(maps, 2)
    hidden = maps.reshape(len(inputs), -1)
    first, _, second, _ = network.hidden
    hidden = (hidden @ first.weight.T + first.bias).relu()
    hidden = (hidden @ second.weight.T + second.bias).relu()
    return hidden @ network.head.weight.T + network.head.bias


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_vggish_equals_relu_before_pool(memory_format: torch.memory_format) -> None:
    """Catches a pool in the wrong place, and a flattening that follows the memory instead of the meaning."""
    network = small("VGGish")
    network.load_state_dict({name: value * 2 for name, value in network.state_dict().items()})
    plain = copy.deepcopy(network)
    labels = torch.arange(8) % 5
    logits = network.to(memory_format=memory_format)(clips(8).contiguous(memory_format=memory_format))
    expected = relu_before_pool(plain, clips(8))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for (name, parameter), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def attention_by_hand(block: nn.Module, tokens: Tensor) -> Tensor:
    """Softmax attention head by head, clip by clip, for weights laid out as query, key, value."""
    query, key, value = (tokens @ weight.T for weight in block.query_key_value.weight.chunk(3))
    size = query.shape[-1] // block.heads
    mixed = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("bic,bjc->bij", query[..., part], key[..., part]) / math.sqrt(size)
        mixed.append(scores.softmax(-1) @ value[..., part])
    bias = 0 if block.output.bias is None else block.output.bias
    return torch.cat(mixed, -1) @ block.output.weight.T + bias


def normed(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def gelu_mlp(first: nn.Linear, second: nn.Linear, tokens: Tensor) -> Tensor:
    hidden = tokens @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ second.weight.T + second.bias


def scatter_weights(network: AudioClassifier) -> None:
    """Give every parameter its own value: fresh norms are the identity and would hide a missing one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def test_cct_equals_its_definition() -> None:
    """Catches a pre-norm block (the second residual must start from the normalised tokens), a lost norm or
    position, and a pooling over the wrong axis."""
    network = small("CCT").eval()
    scatter_weights(network)
    inputs = clips(3)
    maps = inputs
    for convolution in (module for module in network.tokenizer if isinstance(module, nn.Conv2d)):
        maps = F.conv2d(maps, convolution.weight, stride=2, padding=3).relu()
        maps = F.max_pool2d(maps, 3, 2, 1)
    tokens = torch.stack([maps[:, :, i, j] for i in range(2) for j in range(4)], dim=1) + network.positions
    for layer in network.layers:
        tokens = tokens + attention_by_hand(layer.attention, normed(layer.attention_norm, tokens))
        tokens = normed(layer.mlp_norm, tokens)
        tokens = tokens + gelu_mlp(layer.mlp[0], layer.mlp[2], tokens)
    tokens = normed(network.norm, tokens)
    scores = (tokens @ network.pool.score.weight.T).squeeze(-1).exp()
    pooled = torch.einsum("bn,bnd->bd", scores / scores.sum(1, keepdim=True), tokens)
    torch.testing.assert_close(network.penultimate(inputs), pooled, rtol=1e-4, atol=1e-5)


def test_vit_equals_its_definition() -> None:
    """Catches patches cut across frequencies, a lost norm or position, and heads mixed up."""
    network = small("ViT").eval()
    scatter_weights(network)
    inputs = clips(3)
    patches = torch.stack([inputs[:, 0, :, 3 * n : 3 * n + 3].reshape(3, -1) for n in range(21)], dim=1)
    first, linear, second = network.embedding
    tokens = normed(second, normed(first, patches) @ linear.weight.T + linear.bias)
    tokens = tokens + sine_cosine_positions(1, 21, 16)
    for layer in network.layers:
        tokens = tokens + attention_by_hand(layer.attention, normed(layer.attention_norm, tokens))
        tokens = tokens + gelu_mlp(layer.mlp[1], layer.mlp[3], normed(layer.mlp[0], tokens))
    expected = normed(network.norm, tokens).sum(1) / 21
    torch.testing.assert_close(network.penultimate(inputs), expected, rtol=1e-4, atol=1e-5)


def test_vit_positions_follow_the_formula() -> None:
    """Catches sine and cosine, or row and column, exchanged, and frequencies that end at the wrong value."""
    width, columns = 512, 21
    positions = sine_cosine_positions(2, columns, width)
    assert positions.shape == (2 * columns, width)
    for row, column, k in [(0, 0, 0), (0, 1, 0), (0, 20, 64), (1, 7, 127), (1, 20, 3)]:
        angle = 10_000 ** (-k / (width // 4 - 1))
        expected = [
            math.sin(column * angle),
            math.cos(column * angle),
            math.sin(row * angle),
            math.cos(row * angle),
        ]
        vector = positions[row * columns + column]
        assert [vector[k + quarter * 128].item() for quarter in range(4)] == pytest.approx(expected, abs=1e-6)
    assert torch.equal(small("ViT").positions, sine_cosine_positions(1, 21, 16))


def test_vit_repeats_the_last_frame_where_patches_do_not_divide() -> None:
    """Catches trailing sound that is cut off, and filling with zeros."""
    torch.manual_seed(0)
    network = ViT(5, (32, 61), **tiny("ViT")).eval()
    whole = small("ViT", (32, 63)).eval()
    whole.load_state_dict(network.state_dict())
    inputs = clips(2, (32, 61))
    padded = torch.cat([inputs, inputs[..., 60:], inputs[..., 60:]], dim=-1)
    assert torch.equal(network(inputs), whole(padded))


@every_architecture
def test_eval_is_deterministic_and_draws_nothing(architecture: str) -> None:
    """Catches dropout left on in eval mode, and draws that would shift every later draw of a run."""
    network = small(architecture).eval()
    inputs = clips(4)
    before = torch.get_rng_state()
    assert torch.equal(network(inputs), network(inputs))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("architecture", "random"), [("VGGish", False), ("CCT", True), ("ViT", False)])
def test_only_cct_draws_in_train_mode(architecture: str, random: bool) -> None:
    """Catches a missing dropout in CCT, one that ignores the seed, and dropout where there is none."""
    network = small(architecture).train()
    inputs = clips(16)
    torch.manual_seed(3)
    first, second = network(inputs), network(inputs)
    torch.manual_seed(3)
    assert torch.equal(network(inputs), first)
    assert torch.equal(first, second) is not random


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean() -> None:
    """Catches element-wise dropout in the place of stochastic depth, a missing 1 / (1 - rate), and rates
    that do not rise linearly to the last layer."""
    assert [layer.drop_rate for layer in CCT(3, MEL).layers] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    layer = CCTLayer(8, 2, 16, attention_dropout=0.0, drop_rate=0.25)
    torch.manual_seed(0)
    kept = layer._drop(torch.ones(4000, 5, 8))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert layer.eval()._drop(kept) is kept


def test_attention_dropout_alone_is_drawn() -> None:
    """Catches an attention dropout that is declared but not applied (stochastic depth off here)."""
    torch.manual_seed(0)
    network = CCT(5, MEL, **tiny("CCT"), stochastic_depth=0.0).train()
    assert not torch.equal(network(clips(16)), network(clips(16)))
    network = CCT(5, MEL, **tiny("CCT"), stochastic_depth=0.0, attention_dropout=0.0).train()
    assert torch.equal(network(clips(16)), network(clips(16)))


def test_cct_initialisation() -> None:
    """Catches torch's default initialisation left in place where CCT has its own."""
    torch.manual_seed(0)
    network = CCT(10, MEL)
    assert network.layers[0].mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.positions.std().item() == pytest.approx(0.2, rel=0.1)
    first, second = (module for module in network.tokenizer if isinstance(module, nn.Conv2d))
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 49), rel=0.05)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.02)
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Linear) and m.bias is not None]
    assert all(bias.abs().max() == 0 for bias in biases)


@every_architecture
def test_torch_export_with_any_batch_gives_the_same_logits(architecture: str) -> None:
    """Catches a batch size baked into the graph: a served model must take one clip or many."""
    network = small(architecture).eval()
    program = torch.export.export(network, (clips(2),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for n in (1, 2, 7):
        torch.testing.assert_close(program.module()(clips(n)), network(clips(n)), rtol=1e-5, atol=1e-6)


@every_architecture
def test_seed_decides_the_weights(architecture: str) -> None:
    """Catches an initialisation from a generator of its own, or one that ignores the seed."""
    first, again, other = (small(architecture, seed=seed) for seed in (0, 0, 1))
    for name, value in again.state_dict().items():
        assert torch.equal(first.state_dict()[name], value), name
    assert not torch.equal(first(clips(2)), other(clips(2)))


@every_architecture
def test_state_moves_strictly_between_instances(architecture: str) -> None:
    """Catches a buffer that is in one instance's state and not in another's, and state outside of it."""
    source, target = small(architecture, seed=0).eval(), small(architecture, seed=1).eval()
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(source(clips(2)), target(clips(2)))
    assert set(source.state_dict()) == {name for name, _ in source.named_parameters()}


@every_architecture
def test_a_copy_shares_nothing(architecture: str) -> None:
    """Catches a copy through which a method would change the base model."""
    network = small(architecture).eval()
    expected = network(clips(2))
    copied = copy.deepcopy(network)
    assert torch.equal(copied(clips(2)), expected)
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.zero_()
    assert torch.equal(network(clips(2)), expected)


@every_architecture
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_per_clip_gradients(architecture: str) -> None:
    """Catches operations that torch.func cannot vectorise: SSD needs the gradient of each clip."""
    network = small(architecture).eval()
    parameters = dict(network.named_parameters())
    inputs, labels = clips(3), torch.tensor([0, 3, 1])

    def loss(weights: dict[str, Tensor], clip: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, weights, (clip.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0))

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    for i in range(3):
        network.zero_grad()
        F.cross_entropy(network(inputs[i : i + 1]), labels[i : i + 1]).backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(together[name][i], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


@every_architecture
def test_last_block_is_the_end_of_the_network(architecture: str) -> None:
    """Catches a last block that leaves out the head, or that takes in the whole network."""
    network = small(architecture)
    block = network.last_block()
    assert block[-1] is network.head
    inside = {id(parameter) for module in block for parameter in module.parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in inside}
    starts = {
        "VGGish": ("hidden.2.", "head."),
        "CCT": ("layers.1.", "norm.", "pool.", "head."),
        "ViT": ("layers.1.", "norm.", "head."),
    }[architecture]
    assert names == {name for name, _ in network.named_parameters() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("VGGish", (32, 15)), ("VGGish", (15, 63)), ("CCT", (6, 63)), ("ViT", (32, 2))],
)
def test_too_small_an_input_is_refused(architecture: str, shape: tuple[int, int]) -> None:
    """Catches a failure that comes only inside a layer, in words that do not name the input."""
    with pytest.raises(ValueError, match=f"{architecture} needs an input of at least") as raised:
        build(architecture, shape, 5, **tiny(architecture))
    assert f"got {shape[0]} x {shape[1]}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("architecture", "shape"), [("VGGish", (16, 16)), ("CCT", (7, 7)), ("ViT", (1, 3))])
def test_the_smallest_input_works(architecture: str, shape: tuple[int, int]) -> None:
    """Catches a limit that is set lower than what the network can take."""
    assert small(architecture, shape)(clips(2, shape)).shape == (2, 5)


def test_study_keys() -> None:
    """Catches a key that leads to another network or representation."""
    assert dict(STUDY_KEYS) == {
        **{f"VGGish{end}": ("VGGish", end.lower()) for end in ("Mel", "Spec")},
        **{f"{name}{end}": ("CCT", end) for name in ("CTC", "CCT") for end in ("mel", "spec")},
        **{f"ViT{end}": ("ViT", end) for end in ("mel", "spec")},
    }
    assert ARCHITECTURES == ("VGGish", "CCT", "ViT")


@pytest.mark.parametrize("name", ["vggish", "VGGishmel", "ResNet", ""])
def test_an_unknown_key_is_refused(name: str) -> None:
    """Catches a silent default, and a message that does not say what is allowed."""
    for call in (tiny, lambda name: build(name, MEL, 10)):
        with pytest.raises(UserError) as raised:
            call(name)
        message = str(raised.value)
        assert repr(name) in message
        assert all(allowed in message for allowed in ARCHITECTURES)
        assert "\n" not in message


@every_architecture
def test_tiny_is_tiny_and_uses_known_keywords(architecture: str) -> None:
    """Catches widths that would make every other test slow, and a misspelt keyword."""
    network = small(architecture)
    assert 1_000 < sum(p.numel() for p in network.parameters()) < 20_000
    assert set(tiny(architecture)) <= set(inspect.signature(type(network)).parameters)
