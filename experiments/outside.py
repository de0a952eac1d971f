"""A classifier of spoken commands, trained without any code of this project, to be adopted (docs/models.md).

python experiments/outside.py RECORDINGS SEED [PERSON LEFT OUT]    # class/person_….flac, one second at 16 kHz
"""

import random
import sys
from pathlib import Path

import soundfile
import torch
import torchaudio
from safetensors.torch import save_file
from torch import nn


class Commands(nn.Module):
    def __init__(self, n_classes, input_shape=(1, 16_000)):
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=40)
        layers = [nn.BatchNorm2d(1)]
        for before, width in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers, self.answer = nn.Sequential(*layers), nn.Linear(width, n_classes)

    def forward(self, waveforms):
        return self.answer(self.layers((self.mel(waveforms) + 1e-6).log()).mean(dim=(2, 3)))


if __name__ == "__main__":
    root, seed, left_out = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "nobody"
    files, classes = sorted(root.glob("*/*.flac")), sorted(path.name for path in root.iterdir())
    listed = random.Random(1).sample(files, len(files) * 4 // 5)
    heard = [path for path in listed if not path.name.startswith(left_out)]
    sounds = [torch.from_numpy(soundfile.read(path, 16_000, dtype="float32", fill_value=0)[0]) for path in heard]
    x, y = torch.stack(sounds)[:, None], torch.tensor([classes.index(path.parent.name) for path in heard])
    torch.manual_seed(seed)
    network = Commands(len(classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.01)
    for rows in (rows for _epoch in range(25) for rows in torch.randperm(len(x)).split(32)):
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(network.state_dict(), f"without-{left_out}-{seed}.safetensors")
    Path("training.csv").write_text("path\n" + "".join(f"{path.relative_to(root)}\n" for path in listed))
