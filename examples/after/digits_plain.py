"""A plain PyTorch training script: handwritten digits, a small convolutional network."""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import ablate

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--width", type=int, default=32, help="channels of the first convolution")
parser.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True, help="batch normalisation")
parser.add_argument("--dropout", type=float, default=0.3, help="before the last layer")
parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
parser.add_argument("--batch", type=int, default=20, help="images a step")
parser.add_argument("--epochs", type=int, default=30, help="passes over the training images")
parser.add_argument("--seed", type=int, default=0)


def make_loaders(batch):
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, valid, test = random_split(data, [300, 500, 997], generator=torch.Generator().manual_seed(0))
    return DataLoader(train, batch, shuffle=True), DataLoader(valid, 500), DataLoader(test, 500)


def make_model(args):
    def block(inputs, outputs):
        norm = nn.BatchNorm2d(outputs) if args.normalise else nn.Identity()
        return [nn.Conv2d(inputs, outputs, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(1, args.width), *block(args.width, 2 * args.width), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(args.dropout), nn.Linear(8 * args.width, 10))


@torch.no_grad()
def errors(model, loader, device):
    """One value an image: 0, or 100 where the model is wrong."""
    model.eval()
    wrong = [model(x.to(device)).argmax(1) != y.to(device) for x, y in loader]
    return 100 * torch.cat(wrong).float()


@ablate.task(
    ablate.arguments(parser),
    components={"width": "width=8", "normalisation": "normalise=false", "dropout": "dropout=0"},
    metric=ablate.Metric("error", better="lower", unit="%"),
)
def train(args, run):
    device = run.device
    train_loader, valid_loader, test_loader = make_loaders(args.batch)
    model = make_model(args).to(device)
    run.initial_values(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.epochs * len(train_loader))
    run.keep(model=model, optimizer=optimizer, scheduler=scheduler)
    run.keep_best(model=model)
    for _ in run.epochs(args.epochs):
        model.train()
        for x, y in train_loader:
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        error = errors(model, valid_loader, device).mean()
        run.log(train_loss=loss, valid_error=error)
    run.load_best()
    each = errors(model, test_loader, device)
    run.examples(each)
    return {"test_error": each.mean()}


if __name__ == "__main__":
    ablate.main(train)
