"""Makes tests/golden/lightning with the real trainer: lightning 2.6.6 on torch 2.13.0.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install torch==2.13.0 lightning==2.6.6
    python make_lightning.py

`rates.json` beside the checkpoints holds the learning rate of every update, as used.
"""

import json
import shutil
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

HERE = Path(__file__).parent
# Lightning writes absolute paths into its checkpoints: those of a neutral folder.
WORK = Path("/tmp/golden")
BATCHES = 6


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 6, 6, generator=generator), index % 4


class Classifier(lightning.LightningModule):
    def __init__(self, optimizer="adamw", lr=2e-3, weight_decay=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, bias=False),
            torch.nn.BatchNorm2d(6),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(96, 4),
        )
        self.rates = []

    def training_step(self, batch, index):
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def on_before_optimizer_step(self, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def configure_optimizers(self):
        h = self.hparams
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": h.weight_decay},
            {"params": vectors, "weight_decay": 0.0, "lr": h.lr / 2},
        ]
        if h.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=h.lr, betas=(0.9, 0.98))
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, [h.lr, h.lr / 2], total_steps=24, cycle_momentum=False
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        optimizer = torch.optim.SGD(groups, lr=h.lr, momentum=0.9, nesterov=True)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3], gamma=0.1)]


def run(name, **options):
    lightning.seed_everything(0)
    module = Classifier(**options)
    by_epoch = options["optimizer"] == "sgd"
    keep = ModelCheckpoint(
        save_top_k=-1,
        save_last=True,
        every_n_epochs=1 if by_epoch else None,
        every_n_train_steps=None if by_epoch else 4,
    )
    root = WORK / "lightning" / name
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=CSVLogger(root, name="", version=0),
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Images(), batch_size=4))
    (root / "rates.json").write_text(json.dumps(module.rates))


if __name__ == "__main__":
    shutil.rmtree(WORK, ignore_errors=True)
    run("steps", optimizer="adamw")
    run("epochs", optimizer="sgd", lr=0.1, weight_decay=5e-4)
    shutil.copytree(WORK / "lightning", HERE / "lightning", dirs_exist_ok=True)
