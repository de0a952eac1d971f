"""The interface that all networks of the package share."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audio_mu.config.parsers import ARCHITECTURES
from audio_mu.models import build, tiny
from tests.models.networks import MEL, MEL_TWO_SECONDS, SPEC, clips, small

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)

every_shape = pytest.mark.parametrize("shape", [MEL, SPEC, MEL_TWO_SECONDS])


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
